"""How much memory the blobs of one pass may need."""

import math

from prototxt_import.net import CaffeNet
from pspnet_repro.errors import UserError

# Bytes of all blobs together: the largest released network, 713 pixels a side, has 3.4e9.
MAX_BLOBS_BYTES = 2 ** 32
# Bytes of one blob: the largest of that network has 1.4e8.
MAX_BLOB_BYTES = 2 ** 30
# Bytes of the columns that a convolution makes of one image: those of that network have 1.2e9.
MAX_COLUMNS_BYTES = 2 ** 31


def check_blobs(net: CaffeNet) -> None:
    """UserError naming the layer at which the blobs of a built CaffeNet pass the limits.

    A blob counts 4 bytes an element and, where layers work in place, once.
    """
    made = {name for step in net.steps for name in step.layer.top}
    places = [(f"input {name!r}", [name]) for name in net.shapes if name not in made]
    places += [(f"layer {step.layer.name!r} ({step.layer.type})", step.layer.top)
               for step in net.steps]
    total, seen = 0, set()
    for place, names in places:
        for name in names:
            size = 0 if name in seen else 4 * math.prod(net.shapes[name])
            seen.add(name)
            total += size
            if size > MAX_BLOB_BYTES:
                raise UserError(f"{net.path}: {place}: a blob must be at most {MAX_BLOB_BYTES} "
                                f"bytes, {name!r} of shape {net.shapes[name]} needs {size}")
            if total > MAX_BLOBS_BYTES:
                raise UserError(f"{net.path}: {place}: blobs up to this layer must be at most "
                                f"{MAX_BLOBS_BYTES} bytes, got {total}")
    for step in net.steps:
        if step.layer.type in ("Convolution", "Deconvolution", "NdConvolution", "Convolution3D"):
            _check_columns(net, step)


def _check_columns(net, step):
    layer = step.layer
    image = layer.bottom[0] if layer.type == "Deconvolution" else layer.top[0]
    size = (4 * step.params[0][0].numel() * layer.convolution_param.group
            * math.prod(net.shapes[image][2:]))
    if size > MAX_COLUMNS_BYTES:
        raise UserError(f"{net.path}: layer {layer.name!r} ({layer.type}): the columns of an image "
                        f"must be at most {MAX_COLUMNS_BYTES} bytes, got {size}")
