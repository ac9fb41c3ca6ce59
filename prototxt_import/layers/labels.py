"""Labels of losses and accuracies, what losses are divided by, and which scores are best."""

import math
from collections.abc import Iterable

import torch

from prototxt_import.format.caffe_pb2 import AccuracyParameter, LayerParameter, LossParameter
from prototxt_import.layers.base import Shapes, axis_index, check, check_counts

NORMALIZATIONS = {LossParameter.FULL: "full", LossParameter.VALID: "valid",
                  LossParameter.BATCH_SIZE: "batch_size", LossParameter.NONE: "none"}


def labelled(shapes: Shapes, axis: int) -> tuple[int, int, int]:
    """(items before the axis, classes, positions after it) of scores, checked against labels."""
    axis = axis_index(axis, shapes[0])
    outer, inner = math.prod(shapes[0][:axis]), math.prod(shapes[0][axis + 1:])
    check(math.prod(shapes[1]) == outer * inner,
          f"scores {shapes[0]} need {outer * inner} labels, got {shapes[1]}")
    return outer, shapes[0][axis], inner


def ignored_label(param: LossParameter | AccuracyParameter) -> tuple[int, ...]:
    """The labels that a message with one optional ignore_label leaves out."""
    return (param.ignore_label,) if param.HasField("ignore_label") else ()


def read_labels(bottom: torch.Tensor, classes: int, ignored: Iterable[int],
                refuse: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
    """A blob as int64 labels, and which of them count.

    Args:
        bottom: the blob.
        classes: labels are below this number.
        ignored: labels that may be there and do not count.
        refuse: whether other labels are an error.
    Raises:
        ValueError: a label is neither a class nor ignored.
    """
    labels = bottom.detach().long()
    counted = torch.ones_like(labels, dtype=torch.bool)
    for value in ignored:
        counted &= labels != value
    wrong = counted & ((labels < 0) | (labels >= classes))
    if refuse and wrong.any():
        raise ValueError(f"labels must be 0 to {classes - 1}, got {labels[wrong][0].item()}")
    return labels, counted


def ranked(x: torch.Tensor, axis: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(values, indices) of the `count` largest along an axis; of equal ones the last comes first,
    as the original's sort of pairs has it."""
    values, indices = torch.sort(x.flip(axis), dim=axis, descending=True, stable=True)
    return (values.narrow(axis, 0, count), x.shape[axis] - 1 - indices.narrow(axis, 0, count))


def normalization_of(param: LossParameter, default: int) -> int:
    """`normalization`, or what the older `normalize` says, or the default."""
    if param.HasField("normalization") or not param.HasField("normalize"):
        return param.normalization if param.HasField("normalization") else default
    return LossParameter.VALID if param.normalize else LossParameter.BATCH_SIZE


def normalizer_of(normalization: int, counted: torch.Tensor) -> int:
    """What a loss is divided by; `counted`: which labels of (N, positions) count."""
    return {"full": counted.numel(), "valid": int(counted.sum()), "batch_size": len(counted),
            "none": 1}[NORMALIZATIONS[normalization]]


def check_pair(layer: LayerParameter, shapes: Shapes) -> tuple[int, int]:
    """Check two bottoms of as many numbers; returns the first's (items, numbers of an item)."""
    check_counts(layer, 2, (0, 1))
    check(len(shapes[0]) >= 1, "its bottoms must have an axis of items")
    check(math.prod(shapes[0]) == math.prod(shapes[1]) and shapes[0][:1] == shapes[1][:1],
          f"its bottoms must have as many items and numbers, got {shapes}")
    return shapes[0][0], math.prod(shapes[0][1:])
