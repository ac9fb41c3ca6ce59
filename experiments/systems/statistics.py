"""What SegNet's programs count in the training images: weights of classes, statistics of BN."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
import torch

from prototxt_import.layers.segnet import EPS, has_own_statistics
from prototxt_import.net import CaffeNet
from pspnet_repro.data.conventions import value_counts
from pspnet_repro.data.labels import read_label
from pspnet_repro.data.pairs import Pair


def median_frequency_weights(pairs: Sequence[Pair], classes: int) -> list[float]:
    """Weights of classes by their labels: median of the frequencies / frequency of the class.

    A class's frequency is its share of the labelled pixels of the images in which it occurs. A
    class that never occurs has weight 0. The weights are float32's. Source: SegNet's paper.
    """
    pixels, beside = np.zeros(classes), np.zeros(classes)
    for pair in pairs:
        label = read_label(pair.label, classes, pair.table, pair.colours)
        counts = value_counts(label)[:classes]
        pixels += counts
        beside += (counts > 0) * counts.sum()
    occurs = pixels > 0
    frequency = pixels[occurs] / beside[occurs]
    weights = np.zeros(classes, np.float32)
    weights[occurs] = np.median(frequency) / frequency if occurs.any() else 0
    return weights.tolist()


@torch.no_grad()
def inference_parameters(net: CaffeNet, batches: Iterable[dict[str, torch.Tensor]]
                      ) -> dict[str, list[torch.Tensor]]:
    """The parameters with which a network is tested, {layer: tensors}.

    caffe-segnet's BN normalizes by the batch while it learns. For the test its authors' script
    replaces that by means over training images, written into scale and shift: mean of the means;
    mean of the variances * m / (m - 1), m values in a batch's channel.

    Args:
        net: as Network.for_training makes it; it is not changed.
        batches: its inputs, for layers of that kind alone; each is passed through it once.
    """
    parameters = {name: list(tensors) for name, tensors in net.params.items()}
    steps = [step for step in net.steps if has_own_statistics(step.layer)]
    if not steps:
        return parameters
    sums, count = dict.fromkeys((step.layer.name for step in steps), 0), 0
    for batch in batches:
        net(**batch)
        count += 1
        for step in steps:
            items, _, *size = step.built.tops[0]
            number = items * math.prod(size)
            mean, variance = (net.blobs[name].double() for name in step.layer.top[1:])
            sums[step.layer.name] += torch.stack([mean, variance * number / max(number - 1, 1)])
    for name, total in sums.items():
        mean, variance = total / count
        scale, shift = (tensor.double() for tensor in parameters[name])
        factor = scale / torch.sqrt(variance + EPS)
        parameters[name] = [tensor.float() for tensor in (factor, shift - mean * factor)]
    return parameters
