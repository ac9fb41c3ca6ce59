"""Where the pixels of blobs lie in each other, for Crop layers that align their bottoms."""

import math
from collections.abc import Iterable

from prototxt_import.format.caffe_pb2 import LayerParameter
from prototxt_import.layers.base import WINDOW, check, pair
from prototxt_import.layers.linear import window

# Layers whose pixels lie where those of their bottoms do.
_PASSING = {"AbsVal", "BN", "BNLL", "BatchNorm", "Bias", "Concat", "Dropout", "ELU", "Eltwise",
            "Exp", "LRN", "Log", "MVN", "PReLU", "Power", "ReLU", "Scale", "Sigmoid", "Slice",
            "Softmax", "Split", "TanH", "Threshold"}


def offsets(layer: LayerParameter, before: Iterable[LayerParameter]) -> list[int]:
    """(rows, columns) that a Crop layer cuts off so that its bottoms' pixels lie on each other, as
    the Caffe of FCN computes them.

    Args:
        before: the layers before it.
    Raises:
        ValueError: no such offset.
    """
    makers = {top: other for other in before for top in other.top if top not in other.bottom}
    check(len(layer.bottom) == 2, f"needs 2 bottoms, got {len(layer.bottom)}")
    cut, wanted = (_places(name, makers) for name in layer.bottom)
    source = next((name for name in wanted if name in cut), None)
    way = "write crop_param { offset: N }"
    check(source is not None, f"its bottoms come from no blob in common: {way}")
    shifts = []
    for (scale, shift), (other_scale, other_shift) in zip(cut[source], wanted[source]):
        check(abs(scale - other_scale) < 1e-6 * scale,
              f"its bottoms have {scale:g} and {other_scale:g} pixels a pixel of {source!r}: {way}")
        shifts.append(math.floor(shift - other_shift + 0.5))
    check(min(shifts) >= 0, f"its first bottom lacks {-min(shifts)} pixels of the second: {way}")
    return shifts


def _places(name, makers):
    """{blob: rows and columns as (scale, shift)}: a blob's pixel x is x * scale + shift in the blob
    called `name`."""
    places, names = {name: ((1, 0), (1, 0))}, [name]
    for blob in names:
        steps = _steps(makers[blob]) if blob in makers else None
        if steps is None:
            continue
        layer = makers[blob]
        for bottom in layer.bottom[:1] if "Crop" in layer.type else layer.bottom:
            if bottom not in places:
                places[bottom] = tuple((scale * own, scale * shift + behind) for
                                       (scale, behind), (own, shift) in zip(places[blob], steps))
                names.append(bottom)
    return places


def _steps(layer):
    """(scale, shift) of rows and columns from a layer's bottom to its top, or None."""
    if layer.type in _PASSING:
        return (1, 0), (1, 0)
    if "Crop" in layer.type:
        cut = list(layer.crop_param.offset) or [0]
        return tuple((1, -k) for k in cut * (3 - len(cut))) if layer.crop_param.axis == 2 else None
    if layer.type == "Pooling" and not layer.pooling_param.global_pooling:
        kernel, stride, pad = (pair(layer.pooling_param, *names) for names in WINDOW)
    elif layer.type in ("Convolution", "Deconvolution"):
        kernel, stride, pad, dilation = window(layer.convolution_param)
        kernel = [d * (k - 1) + 1 for d, k in zip(dilation, kernel)]
    else:
        return None
    centers = [p - (k - 1) / 2 for p, k in zip(pad, kernel)]
    if layer.type == "Deconvolution":
        return tuple((s, -center) for s, center in zip(stride, centers))
    return tuple((1 / s, center / s) for s, center in zip(stride, centers))
