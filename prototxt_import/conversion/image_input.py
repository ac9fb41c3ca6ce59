"""The input of networks that want other values than Caffe's, as a layer of Caffe.

A 1x1 convolution before the network makes RGB, another mean and a deviation of `data`, which stays
BGR minus Caffe's mean: the authors' scripts feed it as ever. The network's own padding follows it,
so borders are exact, which they would not be in a first convolution that took this over.
"""

from collections.abc import Mapping

import numpy as np

from pspnet_repro.model.settings import MEAN_BGR, BackboneSettings

LAYER = "data_normalized"
SHAPE = (3, 3, 1, 1)


def is_caffes(settings: BackboneSettings) -> bool:
    """Whether a network takes `data` as it is."""
    return not any(name in settings for name in settings.INPUT)


def layer_arrays(settings: BackboneSettings) -> list[np.ndarray]:
    """Weight and bias of the layer."""
    weight, bias = np.zeros(SHAPE), np.zeros(3)
    for ours, blob in enumerate(_order(settings.input_order)):
        weight[ours, blob] = 1 / settings.input_std[ours]
        bias[ours] = (MEAN_BGR[blob] - settings.input_mean[ours]) / settings.input_std[ours]
    return [weight.astype(np.float32), bias.astype(np.float32)]


def layer_settings(weight: np.ndarray, bias: np.ndarray) -> Mapping[str, object] | None:
    """Settings of which `layer_arrays` makes these; None where there are none."""
    for order in ("bgr", "rgb"):
        blobs = _order(order)
        scales = [float(weight[ours, blob].item()) for ours, blob in enumerate(blobs)]
        if np.count_nonzero(weight) == 3 and min(scales) > 0:
            std = [_shortest(1 / scale, lambda value: np.float32(1 / value), scale)
                   for scale in scales]
            mean = [_shortest(MEAN_BGR[blob] - shift * deviation,
                              lambda value: np.float32((MEAN_BGR[blob] - value) / deviation), shift)
                    for blob, shift, deviation in zip(blobs, bias.tolist(), std)]
            return {"input_order": order, "input_mean": tuple(mean), "input_std": tuple(std)}
    return None


def _order(order):
    """The channels of `data` in a network's order."""
    return (0, 1, 2) if order == "bgr" else (2, 1, 0)


def _shortest(value, made, wanted):
    """The shortest decimal near a value of which the file's float32 is made."""
    return next((short for digits in range(12)
                 if (short := round(value, digits)) and made(short) == np.float32(wanted)), value)
