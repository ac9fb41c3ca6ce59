"""Cross entropies of sigmoids: BVLC's, and those of the Caffes of HED and RCF."""

import torch

from prototxt_import.format.caffe_pb2 import LayerParameter, LossParameter
from prototxt_import.layers.base import Built, Shapes, check
from prototxt_import.layers.labels import (
    check_pair,
    ignored_label,
    normalization_of,
    normalizer_of,
)
from pspnet_repro.exact import functions


def _sigmoid_terms(x, target):
    """-(t * log(sigmoid(x)) + (1 - t) * log(1 - sigmoid(x))), and its gradient, element by
    element."""
    positive = (x >= 0).to(x.dtype)
    terms = functions.log(1 + functions.exp(x - 2 * x * positive)) - x * (target - positive)
    return terms, functions.sigmoid(x) - target


def sigmoid_cross_entropy_loss(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """-sum of t * log(sigmoid(x)) + (1 - t) * log(1 - sigmoid(x)), over the batch size unless
    loss_param says otherwise."""
    items, size = check_pair(layer, shapes)
    param = layer.loss_param
    normalization = normalization_of(param, LossParameter.BATCH_SIZE)

    def run(bottoms, params):
        x, target = bottoms[0], bottoms[1].detach().reshape(shapes[0])
        counted = torch.ones_like(target, dtype=torch.bool)
        for value in ignored_label(param):
            counted &= target.long() != value
        terms, difference = _sigmoid_terms(x.detach(), target)
        normalizer = max(1, normalizer_of(normalization, counted.reshape(items, size)))
        return [functions.loss(x, functions.total(terms[counted]), difference.where(counted, 0),
                               normalizer)]

    return Built([()], run)


_HEDS = ("SigmoidCrossEntropyLoss beside ImageLabelmapData is HED's, which weighs edges and rest "
         "by each other's share; for BVLC's, as in DSS, make the data layer an Input layer")


def hed_loss(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """HED's SigmoidCrossEntropyLoss: of each item, pixels of label 1 count as the share of those of
    label 0, and the other way round. Other labels have no loss, but the whole gradient."""
    return _edge_loss(layer, shapes, 1, 1)._replace(assumption=_HEDS)


def rcf_loss(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """RCF's: as HED's, but label 0 counts 1.1 times, and other labels have no gradient."""
    return _edge_loss(layer, shapes, 1.1, 0)


def _edge_loss(layer, shapes, rest_factor, other_factor):
    items, size = check_pair(layer, shapes)
    check(not layer.loss_param.ListFields(), "takes no loss_param, as HED's and RCF's Caffe read "
          "none: remove it")

    def run(bottoms, params):
        x, target = (bottom.detach().reshape(items, size) for bottom in bottoms)
        terms, difference = _sigmoid_terms(x, target)
        edges, rest = target == 1, target == 0
        share = edges.sum(1, keepdim=True) / (edges | rest).sum(1, keepdim=True).to(x.dtype)
        weight = torch.where(edges, 1 - share, rest_factor * share)
        total = functions.total((terms * weight)[edges | rest])
        difference = torch.where(edges | rest, weight, other_factor) * difference
        return [functions.loss(bottoms[0], total, difference.reshape(shapes[0]), items)]

    return Built([()], run)
