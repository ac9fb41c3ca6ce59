"""ArgMax, Accuracy and SegAccuracy."""

import math

import torch

from prototxt_import.format.caffe_pb2 import LayerParameter
from prototxt_import.layers.base import Built, Shapes, axis_index, check, check_counts
from prototxt_import.layers.labels import ignored_label, labelled, ranked, read_labels


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
        values, indices = ranked(x if has_axis else x.reshape(shape[0], size), axis, param.top_k)
        indices = indices.to(x.dtype)
        if has_axis:
            return [values if param.out_max_val else indices]
        return [torch.stack([indices, values] if param.out_max_val else [indices], 1).reshape(top)]

    return Built([top], run)


def accuracy(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """Part of the labelled positions whose label is among the top_k; a second top: per class.

    As in the original, a label beyond the classes is no error: it is never right.
    """
    check_counts(layer, 2, (1, 2))
    param = layer.accuracy_param
    outer, classes, inner = labelled(shapes, param.axis)
    check(1 <= param.top_k <= classes, f"top_k must be 1 to {classes}, got {param.top_k}")

    def run(bottoms, params):
        scores = bottoms[0].detach().reshape(outer, classes, inner)
        labels, counted = (t.reshape(outer, 1, inner) for t in
                           read_labels(bottoms[1], classes, ignored_label(param), refuse=False))
        _, best = ranked(scores, 1, param.top_k)
        right = (best == labels).any(1)[:, None][counted].to(scores.dtype)
        tops = [right.mean()]
        if len(layer.top) == 2:
            kinds = labels[counted]
            known = (kinds >= 0) & (kinds < classes)
            kinds = kinds[known]
            total = torch.bincount(kinds, minlength=classes).clamp(min=1)
            tops.append(torch.bincount(kinds, right[known], classes).to(scores.dtype) / total)
        return tops

    return Built([(), (classes,)][:len(layer.top)], run)


def seg_accuracy(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """Accuracy of pixels, mean recall and mean IoU, as (1, 1, 1, 3).

    The mean recall is over the classes that the labels hold. A class that neither labels nor
    predictions hold has IoU 1. Without a labelled pixel the first two are 0. With `reset: false`
    the counts of all passes are summed.
    """
    check_counts(layer, 2, 1)
    param = layer.seg_accuracy_param
    scores, labels = (shape + (1,) * (4 - len(shape)) for shape in shapes)
    check(len(scores) == 4 and labels == (scores[0], 1, *scores[2:]),
          f"labels of scores {shapes[0]} must be {(scores[0], 1, *scores[2:4])}, got {shapes[1]}")
    classes = scores[1]
    state = {"matrix": torch.zeros(classes, classes, dtype=torch.int64)}

    def run(bottoms, params):
        x = bottoms[0].detach()
        _, best = ranked(x.reshape(scores), 1, 1)
        truth, counted = read_labels(bottoms[1].reshape(labels), classes, param.ignore_label)
        pairs = truth[counted] * classes + best[counted]
        matrix = torch.bincount(pairs, minlength=classes ** 2).view(classes, classes).cpu()
        if not param.reset:
            matrix = matrix + state["matrix"]
        state["matrix"] = matrix
        return [torch.tensor(_rates(matrix), dtype=x.dtype, device=x.device).view(1, 1, 1, 3)]

    return Built([(1, 1, 1, 3)], run, state=state)


def _rates(matrix):
    """Pixel accuracy, mean recall and mean IoU of counts (true class, predicted class)."""
    right, actual = matrix.diagonal().double(), matrix.sum(1)
    occurs, union = actual > 0, actual + matrix.sum(0) - matrix.diagonal()
    iou = torch.where(union == matrix.diagonal(), 1, right / union)
    recall = (right / actual)[occurs]
    return [(right.sum() / actual.sum().clamp(min=1)).item(),
            recall.mean().item() if len(recall) else 0.0, iou.mean().item()]
