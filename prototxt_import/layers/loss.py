"""Softmax, its loss, ArgMax and Accuracy."""

import math

import torch

from prototxt_import.format.caffe_pb2 import LayerParameter, LossParameter
from prototxt_import.layers.base import Built, Shapes, axis_index, check, check_counts
from pspnet_repro.exact import norm
from pspnet_repro.training.loss import softmax_loss

_NORMALIZATIONS = {LossParameter.FULL: "full", LossParameter.VALID: "valid",
                   LossParameter.BATCH_SIZE: "batch_size", LossParameter.NONE: "none"}


def softmax(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    check_counts(layer, 1, 1)
    axis = axis_index(layer.softmax_param.axis, shapes[0])
    return Built([shapes[0]], lambda bottoms, params: [norm.softmax(bottoms[0], axis)])


def _labelled(shapes, axis):
    """(items before the axis, classes, positions after it) of scores, checked against labels."""
    axis = axis_index(axis, shapes[0])
    outer, inner = math.prod(shapes[0][:axis]), math.prod(shapes[0][axis + 1:])
    check(math.prod(shapes[1]) == outer * inner,
          f"scores {shapes[0]} need {outer * inner} labels, got {shapes[1]}")
    return outer, shapes[0][axis], inner


def _labels(bottom, classes, ignored):
    labels = bottom.detach().long()
    wrong = (labels < 0) | (labels >= classes)
    if ignored is not None:
        wrong &= labels != ignored
    if wrong.any():
        value = labels[wrong][0].item()
        raise ValueError(f"labels must be 0 to {classes - 1}, got {value}")
    return labels


def _ignored(param):
    return param.ignore_label if param.HasField("ignore_label") else None


def softmax_with_loss(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """pspnet_repro.training.loss.softmax_loss; a second top gets the probabilities."""
    check_counts(layer, 2, (0, 2))
    param, axis = layer.loss_param, layer.softmax_param.axis
    outer, classes, inner = _labelled(shapes, axis)
    normalization = param.normalization
    if not param.HasField("normalization") and param.HasField("normalize"):
        normalization = LossParameter.VALID if param.normalize else LossParameter.BATCH_SIZE

    def run(bottoms, params):
        scores = bottoms[0].reshape(outer, classes, inner)
        labels = _labels(bottoms[1], classes, _ignored(param)).reshape(outer, inner)
        rule = (_ignored(param), _NORMALIZATIONS[normalization])
        loss = softmax_loss(scores, labels, *rule, arithmetic="original")
        return [loss, norm.softmax(bottoms[0], axis)] if len(layer.top) == 2 else [loss]

    return Built([(), shapes[0]][:max(1, len(layer.top))], run)


def _ranked(x, axis, count):
    """(values, indices) of the `count` largest along an axis; of equal ones the last comes first,
    as the original's sort of pairs has it."""
    values, indices = torch.sort(x.flip(axis), dim=axis, descending=True, stable=True)
    return (values.narrow(axis, 0, count), x.shape[axis] - 1 - indices.narrow(axis, 0, count))


def argmax(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """Indices, or values, of the top_k largest along an axis, or over everything of an item."""
    check_counts(layer, 1, 1)
    param, shape = layer.argmax_param, shapes[0]
    check(len(shape) >= 1, "its bottom must have an axis")
    has_axis = param.HasField("axis")
    axis = axis_index(param.axis, shape) if has_axis else 1
    size = shape[axis] if has_axis else math.prod(shape[1:])
    check(1 <= param.top_k <= size, f"top_k must be 1 to {size}, got {param.top_k}")
    if has_axis:
        top = (*shape[:axis], param.top_k, *shape[axis + 1:])
    else:
        top = (shape[0], 2 if param.out_max_val else 1, param.top_k)
        top += (1,) * (len(shape) - 3)

    def run(bottoms, params):
        x = bottoms[0].detach()
        values, indices = _ranked(x if has_axis else x.reshape(shape[0], size), axis, param.top_k)
        indices = indices.to(x.dtype)
        if has_axis:
            return [values if param.out_max_val else indices]
        return [torch.stack([indices, values] if param.out_max_val else [indices], 1).reshape(top)]

    return Built([top], run)


def accuracy(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """Part of the labelled positions whose label is among the top_k; a second top: per class."""
    check_counts(layer, 2, (1, 2))
    param = layer.accuracy_param
    outer, classes, inner = _labelled(shapes, param.axis)
    check(1 <= param.top_k <= classes, f"top_k must be 1 to {classes}, got {param.top_k}")

    def run(bottoms, params):
        scores = bottoms[0].detach().reshape(outer, classes, inner)
        labels = _labels(bottoms[1], classes, _ignored(param)).reshape(outer, 1, inner)
        _, best = _ranked(scores, 1, param.top_k)
        right = (best == labels).any(1)[:, None]
        counted = torch.ones_like(right)
        if _ignored(param) is not None:
            counted = labels != param.ignore_label
        right = right[counted].to(scores.dtype)
        tops = [right.mean()]
        if len(layer.top) == 2:
            kinds = labels[counted]
            total = torch.bincount(kinds, minlength=classes).clamp(min=1)
            tops.append(torch.bincount(kinds, right, classes).to(scores.dtype) / total)
        return tops

    return Built([(), (classes,)][:len(layer.top)], run)
