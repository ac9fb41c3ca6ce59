"""Original weights into our networks: every parameter filled once, every blob used once."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from prototxt_import.conversion.blobs import Blobs, listed, merged_bn
from prototxt_import.conversion.graph import Graph
from prototxt_import.conversion.image_input import layer_settings
from prototxt_import.conversion.miniature import network_class
from prototxt_import.conversion.structure import read_parts
from pspnet_repro.errors import UserError
from pspnet_repro.model.caffe_names import caffe_names
from pspnet_repro.model.pspnet import PSPNet
from pspnet_repro.model.resnet import ResNet
from pspnet_repro.weights.adopt import Conversion, Row
from pspnet_repro.weights.model_file import shape_differences


def convert(prototxt: Path | str, caffemodel: Path | str) -> PSPNet:
    """A PSPNet, in eval mode, from the original's files.

    Settings are read from the network's graph: blocks, widths, strides, dilations, place of the
    stride, stem, bins and their kind, classes, dropout. Layers may have any names. An auxiliary
    branch is found in the graph (training nets) or, by its released names, in the weights alone.
    How BN counts variances in training is "unbiased" for SyncBN, "biased" for a BN that is not
    frozen or has engine CAFFE, "torch" for engine CUDNN; frozen BN says nothing: "unbiased".

    Args:
        prototxt: a deploy net or a training net.
        caffemodel: its weights; layers go by name and shapes, their types do not count.
    Raises:
        UserError: a file that cannot be read, a network of another structure, or layers and blobs
            that are missing, left over, of another shape or not finite; they are named.
    """
    return convert_network(prototxt, caffemodel).model


def convert_backbone(prototxt: Path | str, caffemodel: Path | str) -> ResNet:
    """A ResNet, in eval mode, from a classification network, whose classifier is left out.

    BatchNorm and Scale become our BN, see `merged_bn`. Arguments and errors as in `convert`.
    """
    return convert_network(prototxt, caffemodel, whole=False).model


def convert_network(prototxt: Path | str, caffemodel: Path | str,
                    whole: bool | None = True) -> Conversion:
    """The Conversion of a PSPNet (`whole`), or of the ResNet in a classification network; None
    takes a ResNet where the network ends in a classifier (InnerProduct), else a PSPNet."""
    graph = Graph(prototxt)
    if whole is None:
        whole = not any(node.kind == "InnerProduct" for node in graph.nodes)
    parts = read_parts(graph, whole)
    blobs = Blobs(caffemodel)
    settings = parts.settings
    arrays, rows = {}, []

    def put(path, name, tensors):
        path = path if whole else path.removeprefix("backbone.")
        arrays.update((f"{path}.{key}", array) for key, array in tensors.items())
        rows.append(Row(name, "x".join(map(str, tensors["weight"].shape)), path))

    for path, unit in parts.units.items():
        weight, *bias = blobs.take(unit.conv.name, unit.conv.params)
        put(f"{path}.conv", unit.conv.name, {"weight": weight})
        put(f"{path}.bn", unit.norm.name, _bn(unit, bias, blobs))
        if unit.scale is not None:
            rows.append(rows[-1]._replace(layer=unit.scale.name))
    for path, node in parts.scores.items():
        put(path, node.name, dict(zip(("weight", "bias"), blobs.take(node.name, node.params))))
    if parts.normalization is not None:
        name = parts.normalization.name
        inputs = layer_settings(*blobs.take(name, parts.normalization.params))
        if inputs is None:
            blobs.problems.append(f"layer {name!r} of {prototxt} must give each channel of the "
                                  "input once, times a number above 0")
        settings |= inputs or {}
    if whole and not settings["aux"]:
        _take_auxiliary(settings, blobs, put, prototxt)
    for node in parts.left_out:
        if blobs.drop(node.name) or node.kind != "Input":
            rows.append(Row(node.name, node.kind, "left out"))
    blobs.check(prototxt)
    model = without_memory(network_class(settings) if whole else ResNet, settings, prototxt)
    differences = shape_differences(model.state_dict(), arrays)
    if differences:
        raise UserError(f"{prototxt}: its blobs do not fit its structure: {listed(differences)}")
    # Copies: the arrays are views of the file's bytes.
    model.load_state_dict({name: torch.from_numpy(np.array(array, np.float32))
                           for name, array in arrays.items()}, assign=True)
    return Conversion(model.eval(), rows, parts.image.shape[2])


def _bn(unit, conv_bias, blobs):
    norm = unit.norm
    arrays = blobs.take(norm.name, norm.params, norm=True)
    if norm.kind != "BatchNorm":
        weight, bias, mean, var = arrays
        factor, eps = 1.0, norm.layer.bn_param.eps
    else:
        mean, var, factor = arrays
        factor, eps = float(factor[0]), norm.layer.batch_norm_param.eps
        scale = blobs.take(unit.scale.name, unit.scale.params) if unit.scale is not None else []
        weight, bias = [*scale, *(np.ones_like(mean), np.zeros_like(mean))[len(scale):]]
    shift = conv_bias[0].astype(np.float64).reshape(mean.shape) if conv_bias else 0.0
    return _merged(blobs, norm.name, mean, var, weight, bias, factor=factor, eps=eps, shift=shift)


def _merged(blobs, name, *arrays, **terms):
    try:
        return merged_bn(*arrays, **terms)
    except ValueError as error:
        blobs.problems.append(f"layer {name!r}: {error}")
        return {"weight": arrays[2]}


def without_memory(module: type[PSPNet] | type[ResNet], settings: Mapping[str, object],
                   path: Path | str) -> PSPNet | ResNet:
    """A PSPNet or a ResNet whose tensors are still to come; settings out of range: UserError."""
    try:
        with torch.device("meta"):
            return module(**settings)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error


def _take_auxiliary(settings, blobs, put, prototxt):
    """Fill the auxiliary branch from layers that only the weights have, by its released names."""
    model = without_memory(network_class(settings), {**settings, "aux": True}, prototxt)
    conv, norm, score = (name for path, name in caffe_names(model).items()
                         if path.startswith("auxiliary."))
    if not {conv, norm, score} & set(blobs.layers):
        return
    middle, classes = model.auxiliary.conv.conv.in_channels, settings["classes"]
    shape = blobs.layers[conv][0].shape if conv in blobs.layers else ()
    width = shape[0] if shape[1:] == (middle, 3, 3) else model.auxiliary.conv.conv.out_channels
    settings |= {"aux": True, "aux_width": width}
    put("auxiliary.conv.conv", conv,
        {"weight": blobs.take(conv, [(width, middle, 3, 3)])[0]})
    weight, bias, mean, var = blobs.take(norm, [(1, width, 1, 1)] * 4, norm=True)
    put("auxiliary.conv.bn", norm, _merged(blobs, norm, mean, var, weight, bias))
    put("auxiliary.score", score, dict(zip(
        ("weight", "bias"), blobs.take(score, [(classes, width, 1, 1), (classes,)]))))
