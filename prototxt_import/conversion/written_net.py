"""The network that a caffemodel describes: Caffe writes its layers beside their weights."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

from google.protobuf.message import DecodeError

from prototxt_import.format import caffe_pb2
from prototxt_import.format.wire import iterate_fields
from pspnet_repro.errors import UserError, first_line
from pspnet_repro.files import refuse_pipe
from pspnet_repro.weights import recognize

_NAME, _INPUT, _LAYER = 1, 3, 100
# Pixels of the image for one of the feature map, as in every PSPNet.
_STRIDE = 8
# Of a network without a pyramid, whose layers allow any.
_CROP_SIZE = 473


def is_caffemodel(path: str | Path,
                  kinds: Sequence[recognize.Kind] = (recognize.CAFFEMODEL,)) -> bool:
    """Whether a file is a caffemodel of these kinds; False for what cannot be read. Raises
    UserError for a pipe, which may never give anything."""
    refuse_pipe(path)
    with contextlib.suppress(OSError, ValueError):  # whoever reads it says why
        return recognize.kind_at(path) in kinds
    return False


def written_net(path: str | Path) -> tuple[caffe_pb2.NetParameter, str | Path, dict]:
    """(NetParameter in phase TRAIN, path, shapes of its inputs) of a caffemodel.

    The sizes of inputs are not in the file; those of an image and its labels follow from the
    largest bin, which is the whole feature map.

    Raises:
        UserError: a damaged file, one without layers' settings, as the released caffemodels, or one
            whose settings programs read differently.
    """
    net = caffe_pb2.NetParameter(state=caffe_pb2.NetState(phase=caffe_pb2.TRAIN))
    for number, value in iterate_fields(path, "a caffemodel", (recognize.CAFFEMODEL,),
                                        dict.fromkeys((_NAME, _INPUT, _LAYER), bytes)):
        try:
            if number == _LAYER:
                net.layer.append(_layer(value, path))
            elif number == _INPUT:
                net.input.append(value.decode())
            else:
                net.name = value.decode()
        except (DecodeError, ValueError) as error:
            raise UserError(f"{path}: damaged: {first_line(error)}: copy it again") from error
    if not any(layer.HasField("convolution_param") for layer in net.layer):
        raise UserError(f"{path}: holds weights without the settings of their layers: name the "
                        f"network's prototxt too: --initial-weights NET.prototxt,{path}")
    sides = [layer.pooling_param.kernel_size for layer in net.layer if layer.type == "Pooling"
             and layer.pooling_param.kernel_size == layer.pooling_param.stride]
    size = (max(sides) - 1) * _STRIDE + 1 if sides else _CROP_SIZE
    return net, path, {name: (1, 1 if name == "label" else 3, size, size) for name in net.input}


def _layer(data, path):
    layer = caffe_pb2.LayerParameter.FromString(data)
    layer.DiscardUnknownFields()  # blobs
    if layer.pooling_param.HasField("round_mode"):
        raise UserError(f"{path}: layer {layer.name!r} (Pooling): its field 13 is round_mode in "
                        "BVLC's Caffe and ceil_mode in others: name the network's prototxt too: "
                        f"NET.prototxt,{path}")
    if layer.type == "Input":
        layer.input_param.CopyFrom(caffe_pb2.InputLayer.FromString(data).input_param)
    return layer
