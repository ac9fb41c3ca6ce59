"""Checks of a network's layers: their types, bottoms and tops, and what their fields leave open."""

import math
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from itertools import zip_longest
from pathlib import Path

from prototxt_import import alignment
from prototxt_import.format.caffe_pb2 import (
    TRAIN,
    BlobShape,
    InputParameter,
    LayerParameter,
    NetParameter,
)
from prototxt_import.inputs import is_input
from prototxt_import.layers.base import Built, Shape, check
from prototxt_import.layers.table import LAYERS
from pspnet_repro.errors import UserError
from pspnet_repro.words import counted

_MOST = 8  # kinds of layers in one message
# They only write files.
_WRITERS = ("HDF5Output", "ImageOutput", "MatWrite")
# (module, layer) of the Python layers whose code is known.
_PYTHON_LAYERS = {("spatial_dropout", "SpatialDropoutLayer")}
# A layer with one of these learns.
_LEARN = ("convolution_param", "inner_product_param")
# Words in the types of layers that only measure.
_METRIC = re.compile("accuracy|iou|metric|eval|(?<!re)shape$", re.I)
# They may be what a training minimizes.
_ERROR = re.compile("^(mae|r?mse|psnr|ssim|auc)$|error", re.I)


def computed_layers(path: Path | str, net: NetParameter,
                    shapes: Mapping[str, Sequence[int]]) -> list[LayerParameter]:
    """The layers of a network that it computes; a warning names the others.

    A layer of a type that is not supported becomes an Input layer where `shapes` gives the sizes of
    all its tops, and where it reads nothing but what data layers make and seems to learn nothing;
    those that only such layers read are left out.

    Left out are layers that only write files. So are layers of types that are not supported which
    no layer reads and whose name says that they measure; in testing, losses too. BatchNorm layers
    get the network's bn_stats_batch_size. Crop layers of V1 and of HED's Caffe, and AutoCrop layers
    of RCF's, get the offset that aligns their bottoms. A SigmoidCrossEntropyLoss beside HED's data
    layer is HED's, or RCF's beside AutoCrop.
    """
    kinds = {layer.type for layer in net.layer}
    is_heds = "ImageLabelmapData" in kinds
    softmax = [layer.name for layer in net.layer if layer.type == "SoftmaxWithLoss"]
    if is_heds and softmax:
        warnings.warn(f"{path}: layer {softmax[0]!r} (SoftmaxWithLoss): every pixel counts alike, "
                      "as in BVLC's Caffe; that of skeleton networks (FSDS) weighs the skeleton by "
                      "the share of the background", stacklevel=2)
    _join_reshapes(net.layer)
    read = {name for layer in net.layer for name in layer.bottom}
    kept = []
    for layer in _without_preparation(path, net.layer):
        if layer.bottom and layer.top and _unsupported(layer) and {*layer.top} <= shapes.keys():
            layer = _replaced(path, layer, shapes)
        reason = _left_out(layer, read, net.state.phase == TRAIN)
        if reason:
            warnings.warn(f"{path}: layer {layer.name!r} ({layer.type}) is left out: {reason}",
                          stacklevel=2)
            continue
        if layer.type == "BatchNorm" and net.bn_stats_batch_size:
            param = layer.batch_norm_param
            param.stats_batch_size = param.stats_batch_size or net.bn_stats_batch_size
        if layer.type == "SigmoidCrossEntropyLoss" and is_heds:
            layer.type = ("RCF" if "AutoCrop" in kinds else "HED") + layer.type
        if layer.type in ("AlignedCrop", "AutoCrop") or layer.type == "Crop" and is_heds:
            _align(path, layer, kept)
        kept.append(layer)
    _name_offsets(path, kept)
    return kept


def _without_preparation(path, layers):
    """The layers, with inputs in place of those that are not supported and prepare data: they read
    what data layers make, and nothing tells of parameters."""
    data, kept, unread = set(), [], set()
    read = {name for layer in layers for name in layer.bottom}
    for layer in layers:
        bottoms = set(layer.bottom)
        if is_input(layer) and layer.type != "Input":
            data |= set(layer.top)
        elif (bottoms and bottoms <= data and read & set(layer.top) and _unsupported(layer)
              and not any(layer.HasField(field) for field in _LEARN) and not layer.param):
            _warn_of_input(path, layer)
            data |= set(layer.top)
            unread |= bottoms - set(layer.top)
            # Of a layer in place, what the data layer makes is the input.
            layer = LayerParameter(name=layer.name, type=layer.type,
                                   top=[top for top in layer.top if top not in bottoms])
            if not layer.top:
                continue
        kept.append(layer)
    unread -= {name for layer in kept for name in layer.bottom}
    return [layer for layer in kept if not layer.top or not {*layer.top} <= unread]


def _warn_of_input(path, layer):
    warnings.warn(f"{path}: layer {layer.name!r} ({layer.type}) is not computed: give "
                  f"{', '.join(layer.top)} as an input; no gradient passes to the layers before it",
                  stacklevel=4)


def _replaced(path, layer, shapes):
    """The Input layer in place of one that is not supported."""
    _warn_of_input(path, layer)
    sizes = [BlobShape(dim=shapes[top]) for top in layer.top]
    return LayerParameter(name=layer.name, type="Input", top=layer.top,
                          input_param=InputParameter(shape=sizes))


def _join_reshapes(layers):
    """Make Synopsys' Python layer `Reshape` read the blob whose shape it takes, instead of the
    Python layer `TensorShape` between them."""
    measured = {layer.top[0]: layer.bottom[0] for layer in layers if len(layer.bottom) == 1
                and layer.python_param.layer == "TensorShape" and layer.top}
    for layer in layers:
        if (layer.type == "Python" and layer.python_param.layer == "Reshape"
                and len(layer.bottom) == 2 and layer.bottom[1] in measured):
            layer.type, layer.bottom[1] = "ReshapeLike", measured[layer.bottom[1]]


def _align(path, layer, before):
    """Give a Crop layer without offset the one that aligns its bottoms."""
    if not layer.crop_param.offset:
        try:
            layer.crop_param.offset.extend(alignment.offsets(layer, before))
        except ValueError as error:
            raise UserError(f"{path}: layer {layer.name!r} ({layer.type}): {error}") from error


def _name_offsets(path, layers):
    """Warn of the offsets that would align the bottoms of Crop layers without one."""
    placed, found = [], []
    for layer in layers:
        param = layer.crop_param
        if layer.type == "Crop" and not param.offset and param.axis == 2:
            layer = deepcopy(layer)
            with suppress(ValueError):
                layer.crop_param.offset.extend(alignment.offsets(layer, placed))
            cuts = dict.fromkeys(layer.crop_param.offset)
            if any(cuts):
                found.append(f"{' and '.join(map(str, cuts))} in {layer.name!r}")
        placed.append(layer)
    if found:
        more = f" and {len(found) - _MOST} more" if len(found) > _MOST else ""
        warnings.warn(f"{path}: Crop layers without offset: the first Caffe of FCN, and HED's, "
                      f"would cut them at {', '.join(found[:_MOST])}{more}", stacklevel=3)


def _left_out(layer, read, training):
    """Why a layer is not computed, or None."""
    if layer.type in _WRITERS and not layer.top:
        return f"it writes a file of {', '.join(layer.bottom)}"
    what = _unsupported(layer)
    if not what or read & set(layer.top):
        return None
    kind = layer.python_param.layer or layer.type
    measures = _METRIC.search(kind)
    is_loss = ("loss" in kind.lower() or any(layer.loss_weight)
               or _ERROR.search(kind) and not measures)
    if training and is_loss or not (is_loss or measures):
        return None
    return f"{what} is not supported, and no layer reads {', '.join(layer.top)}"


def _unsupported(layer):
    """What of a layer is not supported, or None."""
    code = (layer.python_param.module, layer.python_param.layer)
    known = is_input(layer) or (code in _PYTHON_LAYERS if layer.type == "Python" else
                                layer.type in LAYERS)
    return None if known else f"type {layer.type!r}" + f" ({'.'.join(code)})" * any(code)


def check_supported(path: Path | str, layers: Sequence[LayerParameter]) -> None:
    """UserError that names every type of layer that is not supported."""
    wrong, tops, all_losses = {}, [], True
    read = {name for layer in layers for name in layer.bottom}
    for layer in layers:
        if what := _unsupported(layer):
            wrong.setdefault((layer.type, what), []).append(layer.name)
            tops += layer.top
            all_losses &= bool(_left_out(layer, read, False))
    parts = [f"layer {names[0]!r} ({kind})" + (f" and {len(names) - 1} more" if len(names) > 1 else
                                               "") + f": {what} is not supported"
             for (kind, what), names in list(wrong.items())[:_MOST]]
    if len(wrong) > _MOST:
        parts.append(f"and {counted(len(wrong) - _MOST, 'other type')}")
    if wrong:
        top = next((top for top in tops if top in read), None)
        way = (f"give what it makes as an input (--shape {top}=N,C,H,W) or " if top else
               "ask for phase TEST, which leaves such losses out, or " if all_losses else "")
        raise UserError(f"{path}: {'; '.join(parts)}; docs/caffe-files.md lists the types that "
                        f"are; {way}remove such a layer")


def _other_phase(training, left_out, top):
    """How to have a blob whose layer the phase leaves out."""
    here, there = ("TRAIN", "TEST") if training else ("TEST", "TRAIN")
    name, stages = left_out[top]
    if stages:
        return (f"only layers of stages make {top!r}, {', '.join(stages)}: ask for a stage "
                f"(--stage {stages[0]})")
    return (f"phase {here} leaves out layer {name!r}, which makes {top!r}: ask for phase {there} "
            f"(--phase {there})")


LeftOut = Mapping[str, tuple[str, list[str]]]


def missing_input(training: bool, left_out: LeftOut) -> str:
    """What is wrong where a network has no inputs; left_out: see read_net."""
    if not left_out:
        return "the network has none"
    return f"the network has none: {_other_phase(training, left_out, next(iter(left_out)))}"


def check_ends(layer: LayerParameter, shapes: Mapping[str, Shape],
               layers: Iterable[LayerParameter], training: bool,
               left_out: LeftOut) -> None:
    """Check a layer's bottoms, tops, propagate_down and loss_weight; ValueError says what is wrong.

    Args:
        shapes: {blob: shape} of the blobs before it.
        layers: all layers of the network.
        training: whether the phase is TRAIN.
        left_out: see read_net.
    """
    for name in layer.bottom:
        if name not in shapes:
            later = [other.name for other in layers if name in other.top]
            reason = (f" before it, only by {later[0]!r}: a cycle, or layers out of order"
                      if later else f": {_other_phase(training, left_out, name)}"
                      if name in left_out else "")
            raise ValueError(f"bottom {name!r} is made by no layer{reason}")
    made = set()
    for name, bottom in zip_longest(layer.top, layer.bottom[:len(layer.top)]):
        check(name == bottom or name not in shapes and name not in made,
              f"top {name!r} is there already")
        made.add(name)
    check(len(layer.propagate_down) in (0, len(layer.bottom)),
          f"propagate_down must be given for each bottom or none, got "
          f"{counted(len(layer.propagate_down), 'time')}")
    check(len(layer.loss_weight) in (0, max(1, len(layer.top))),
          f"loss_weight must be given for each top or none, got "
          f"{counted(len(layer.loss_weight), 'time')}")
    for weight in layer.loss_weight:
        check(math.isfinite(weight), f"loss_weight must be finite as float32, got {weight}")


def warn_of_assumptions(path: Path | str,
                        layers: Iterable[tuple[LayerParameter, Built]]) -> None:
    """Warn of what the fields of built layers leave open, once for each kind."""
    names = {}
    for layer, built in layers:
        if built.assumption:
            names.setdefault(built.assumption, []).append(layer.name)
    for assumption, (first, *others) in names.items():
        more = f" and {len(others)} more" if others else ""
        warnings.warn(f"{path}: layer {first!r}{more}: {assumption}", stacklevel=2)
