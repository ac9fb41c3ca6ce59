"""Softmax and the losses."""

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from google.protobuf.message import DecodeError

from prototxt_import.format.blobs import array_of
from prototxt_import.format.caffe_pb2 import (
    HingeLossParameter,
    LayerParameter,
    LossParameter,
    WeightsBlob,
)
from prototxt_import.layers.base import (
    Built,
    Shapes,
    axis_index,
    check,
    check_counts,
    check_finite_fields,
)
from prototxt_import.layers.labels import (
    NORMALIZATIONS,
    check_pair,
    ignored_label,
    labelled,
    normalization_of,
    normalizer_of,
    read_labels,
)
from pspnet_repro.errors import first_line
from pspnet_repro.exact import functions, norm
from pspnet_repro.exact.linear import is_exact
from pspnet_repro.files import refuse_pipe
from pspnet_repro.training.loss import softmax_loss

_SMALLEST = torch.finfo(torch.float32).tiny
# The least probability whose logarithm the losses of given probabilities take.
_LEAST = 1e-20


def softmax(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    check_counts(layer, 1, 1)
    axis = axis_index(layer.softmax_param.axis, shapes[0])
    return Built([shapes[0]], lambda bottoms, params: [norm.softmax(bottoms[0], axis)])


def softmax_with_loss(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """pspnet_repro.training.loss.softmax_loss; a second top gets the probabilities.

    With `weight_by_label_freqs` (caffe-segnet) a pixel counts `class_weighting` of its label times;
    so it does with the weights of the file `weight_source` (DeepLab's first Caffe), whose sum over
    the pixels the loss is divided by.
    """
    check_counts(layer, 2, (0, 2))
    param, axis = layer.loss_param, layer.softmax_param.axis
    outer, classes, inner = labelled(shapes, axis)
    normalization = normalization_of(param, LossParameter.VALID)
    check(not param.use_weights, "use_weights (FuseNet) is not supported: write the weights as "
          "loss_param { weight_by_label_freqs: true class_weighting: 1.5 ... }")
    weights = None
    if param.HasField("weight_source"):
        weights = _weights(param.weight_source, classes)
    if param.weight_by_label_freqs:
        check(len(param.class_weighting) == classes,
              f"class_weighting must be given for each of {classes} classes, got "
              f"{len(param.class_weighting)}")
        weights = torch.tensor(list(param.class_weighting))

    def run(bottoms, params):
        scores = bottoms[0].reshape(outer, classes, inner)
        ignored = ignored_label(param)
        labels, counted = (t.reshape(outer, inner) for t in
                           read_labels(bottoms[1], classes, ignored))
        if weights is None:
            rule = (ignored[0] if ignored else None, NORMALIZATIONS[normalization])
            loss = softmax_loss(scores, labels, *rule, arithmetic="original")
        else:
            normalizer = normalizer_of(normalization, counted)
            # Both programs divide by 0 where no pixel is labelled.
            if param.HasField("weight_source"):
                normalizer = weights[labels[counted]].sum().item()
            elif param.HasField("normalization"):
                normalizer = max(1, normalizer)
            loss = _weighted(scores, labels, counted, weights.to(scores), normalizer)
        return [loss, norm.softmax(bottoms[0], axis)] if len(layer.top) == 2 else [loss]

    return Built([(), shapes[0]][:max(1, len(layer.top))], run)


def _weighted(scores, labels, counted, weights, normalizer):
    """Softmax loss of (N, C, S) scores whose pixels weigh as their labels do."""
    x = scores.detach()
    p = norm.probabilities(x) if is_exact(x) else x.softmax(1)
    labels = labels.where(counted, 0)[:, None]
    weight = weights[labels].where(counted[:, None], 0)
    terms = -functions.log(p.gather(1, labels).clamp(min=_SMALLEST)) * weight
    difference = (p.scatter_add(1, labels, -torch.ones_like(weight)) * weight).where(
        counted[:, None], 0)
    return functions.loss(scores, functions.total(terms), difference, normalizer)


def _weights(source, classes):
    """The numbers in a text file, one for each class."""
    refuse_pipe(source)
    try:
        weights = torch.tensor([float(word) for word in Path(source).read_text().split()])
    except (OSError, ValueError) as error:
        raise ValueError(f"its weights of the classes, weight_source {source!r}: cannot be read: "
                         f"{first_line(error)}; put the file there") from error
    check(len(weights) == classes and weights.min() >= 0 and weights.isfinite().all(),
          f"weight_source {source!r} must hold {classes} numbers, each at least 0, one for each "
          f"class, has {len(weights)}")
    return weights


def _check_labels(layer, shapes):
    """Check scores and a label for each item; returns (items, numbers of an item)."""
    check_counts(layer, 2, (0, 1))
    check(len(shapes[0]) >= 1, "its scores must have an axis of items")
    items, size = shapes[0][0], math.prod(shapes[0][1:])
    check(math.prod(shapes[1]) == items,
          f"scores {shapes[0]} need {items} labels, got {shapes[1]}")
    return items, size


def hinge_loss(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """Sum of max(0, 1 - x) of each label's score and max(0, 1 + x) of the others, or of their
    squares (norm L2), over the batch size."""
    items, size = _check_labels(layer, shapes)
    squared = layer.hinge_loss_param.norm == HingeLossParameter.L2

    def run(bottoms, params):
        x = bottoms[0].detach().reshape(items, size)
        labels, _ = read_labels(bottoms[1].reshape(items, 1), size, ())
        sign = torch.ones_like(x).scatter_(1, labels, -1)
        margin = (1 + x * sign).clamp(min=0)
        total = (margin * margin if squared else margin).sum()
        difference = 2 * margin * sign if squared else (margin * sign).sign()
        return [functions.loss(bottoms[0], total, difference.reshape(shapes[0]), items)]

    return Built([()], run)


def euclidean_loss(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """Half the sum of the squared differences, over the batch size; gradients reach both."""
    items, _ = check_pair(layer, shapes)

    def run(bottoms, params):
        difference = bottoms[0] - bottoms[1].reshape(shapes[0])
        total = difference.detach().square().sum() / 2
        return [functions.loss(difference, total, difference, items)]

    return Built([()], run)


def l1_loss(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """The sum of the absolute differences, over the batch size; gradients reach both."""
    items, _ = check_pair(layer, shapes)

    def run(bottoms, params):
        difference = bottoms[0] - bottoms[1].reshape(shapes[0])
        d = difference.detach()
        return [functions.loss(difference, d.abs().sum(), d.sign(), items)]

    return Built([()], run)


def smooth_l1_loss(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """Sum of (sigma * d)^2 / 2 of the differences d below 1 / sigma^2 and of |d| - 0.5 / sigma^2 of
    others, over the batch size; a third bottom weighs d, a fourth what comes of it."""
    check(len(shapes) in (2, 4), f"needs 2 or 4 bottoms, got {len(shapes)}")
    check(all(shapes) and len({(shape[0], math.prod(shape)) for shape in shapes}) == 1,
          f"its bottoms must have as many items and numbers, got {shapes}")
    param = layer.smooth_l1_loss_param
    check(0 < param.sigma < math.inf, f"sigma must be finite and above 0, got {param.sigma}")

    def run(bottoms, params):
        x, target, *weights = (bottom.reshape(shapes[0]) for bottom in bottoms)
        inside, outside = [w.detach() for w in weights] or (1, 1)
        d = (x - target) * inside
        terms = F.smooth_l1_loss(d, torch.zeros_like(d), reduction="none", beta=param.sigma ** -2)
        return [(terms * outside).sum() / shapes[0][0]]

    return Built([()], run)


def _infogain_matrix(source, classes):
    """The matrix (classes, classes) in a file, a BlobProto."""
    refuse_pipe(source)
    try:
        matrix = torch.tensor(array_of(WeightsBlob.FromString(Path(source).read_bytes())))
    except (OSError, DecodeError, ValueError) as error:
        raise ValueError(f"its matrix, source {source!r}: cannot be read: {error}; put the file "
                         "there, or give the matrix as a third bottom") from error
    check(matrix.numel() == classes ** 2, f"its matrix {source!r} must be {classes} x {classes}, "
                                          f"has {matrix.numel()} numbers")
    return matrix.reshape(classes, classes)


def infogain_loss(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """-sum over classes k of H[label, k] * log(probability of k), of the softmax of scores; H is
    the third bottom or the file `source`. A second top gets the probabilities."""
    check_counts(layer, (2, 3), (0, 2))
    param, axis = layer.loss_param, axis_index(layer.infogain_loss_param.axis, shapes[0])
    outer, classes, inner = labelled(shapes, axis)
    normalization = normalization_of(param, LossParameter.VALID)
    if len(shapes) == 3:
        check(math.prod(shapes[2]) == classes ** 2,
              f"its third bottom must be a matrix {classes} x {classes}, got {shapes[2]}")
        own = None
    else:
        own = _infogain_matrix(layer.infogain_loss_param.source, classes)

    def run(bottoms, params):
        x = bottoms[0]
        matrix = (bottoms[2].detach() if own is None else own).reshape(classes, classes).to(x)
        labels, counted = (t.reshape(outer, inner) for t in
                           read_labels(bottoms[1], classes, ignored_label(param)))
        probabilities = norm.softmax(x, axis)
        p = probabilities.detach().reshape(outer, classes, inner)
        gain = matrix[labels.where(counted, 0)].movedim(2, 1) * counted[:, None]
        total = functions.total(-gain * functions.log(p.clamp(min=_LEAST)))
        difference = (p * gain.sum(1, keepdim=True) - gain).reshape(shapes[0])
        loss = functions.loss(x, total, difference, max(1, normalizer_of(normalization, counted)))
        return [loss, probabilities][:max(1, len(layer.top))]

    return Built([(), shapes[0]][:max(1, len(layer.top))], run,
                 assumption="InfogainLoss takes scores, as BVLC's Caffe does since 2016; before, "
                            "it took probabilities: remove the Softmax layer in front of it")


def multinomial_logistic_loss(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """-log of the probability of each label, over the batch size; the bottom is probabilities."""
    items, size = _check_labels(layer, shapes)

    def run(bottoms, params):
        p = bottoms[0].detach().reshape(items, size)
        labels, _ = read_labels(bottoms[1].reshape(items, 1), size, ())
        own = p.gather(1, labels).clamp(min=_LEAST)
        difference = torch.zeros_like(p).scatter_(1, labels, -1 / own)
        return [functions.loss(bottoms[0], -functions.total(functions.log(own)),
                               difference.reshape(shapes[0]), items)]

    return Built([()], run)


def contrastive_loss(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """Half the mean of d^2 of similar pairs, whose third bottom is not 0, and of
    max(0, margin - d)^2 of others, or max(0, margin - d^2) with `legacy_version`; d is the distance
    of a pair."""
    check_counts(layer, 3, (0, 1))
    param = layer.contrastive_loss_param
    check_finite_fields(param, ("margin",))
    check(len(shapes[0]) >= 2 and shapes[0] == shapes[1] and math.prod(shapes[2]) == shapes[0][0],
          f"its bottoms must be two alike (N, ...) and N numbers, got {shapes}")
    items = shapes[0][0]

    def run(bottoms, params):
        difference = bottoms[0].reshape(items, -1) - bottoms[1].reshape(items, -1)
        d = difference.detach()
        similar = (bottoms[2].detach().reshape(items).long() != 0)[:, None]
        square = d.square().sum(1, keepdim=True)
        if param.legacy_version:
            rest = (param.margin - square).clamp(min=0)
            other, slope = rest, rest.sign()
        else:
            rest = (param.margin - square.sqrt()).clamp(min=0)
            # 1e-4 as in the original: two that are one have a gradient.
            other, slope = rest.square(), rest / (square.sqrt() + 1e-4)
        total = torch.where(similar, square, other).sum() / 2
        return [functions.loss(difference, total, torch.where(similar, d, -slope * d), items)]

    return Built([()], run)
