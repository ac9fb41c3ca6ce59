"""LRN, MVN and Normalize."""

import math

from prototxt_import.format.caffe_pb2 import LayerParameter, LRNParameter
from prototxt_import.layers.base import (
    Built,
    Param,
    Shapes,
    check,
    check_counts,
    check_finite_fields,
    check_image,
    filler_or,
)
from pspnet_repro import ops
from pspnet_repro.exact import functions, linear, norm, response


def lrn(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """x / (k + alpha / n * sum of x^2 over the n nearest channels)^beta; WITHIN_CHANNEL: x * (1 +
    alpha * mean of x^2 over n x n pixels)^-beta, the mean as Pooling's AVE, without k."""
    check_counts(layer, 1, 1)
    shape, param = check_image(shapes[0]), layer.lrn_param
    size = param.local_size
    check(size % 2 == 1 and size < 2 ** 20,
          f"local_size must be odd and below {2 ** 20}, got {size}")
    check_finite_fields(param, ("alpha", "beta", "k"))
    alpha, beta = param.alpha, param.beta

    def factor(mean):
        return functions.power(mean * alpha + 1, -beta)

    def gradient(mean, y, grad):
        return y / (mean * alpha + 1) * (-beta * alpha) * grad

    def within(bottoms, params):
        x, y = linear.split(bottoms[0], 2)
        mean = ops.window_pool2d(y * y, (size, size), (1, 1), ((size - 1) // 2,) * 2, "ave")
        return [x * functions.apply(mean, factor, gradient)]

    def across(bottoms, params):
        return [response.across_channels(bottoms[0], size, alpha, beta, param.k)]

    return Built([shape], within if param.norm_region == LRNParameter.WITHIN_CHANNEL else across)


def mvn(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """Less the mean and, with normalize_variance, over the deviation + eps: of a channel of an
    item, or of an item (across_channels)."""
    check_counts(layer, 1, 1)
    shape, param = shapes[0], layer.mvn_param
    check(1 <= len(shape) <= 4, f"its bottom must have 1 to 4 axes, got {shape}")
    check_finite_fields(param, ("eps",))
    rows = math.prod(shape[:1 if param.across_channels else 2])
    eps = param.eps if param.normalize_variance else None

    def run(bottoms, params):
        return [norm.standardize_rows(bottoms[0].reshape(rows, -1), eps).view(shape)]

    return Built([shape], run)


def normalize(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """x / (sum of x^2 + eps)^0.5 over the channels of a pixel, or over an item (across_spatial),
    times the blob: a scale for each channel (C), or one (1) if channel_shared."""
    check_counts(layer, 1, 1)
    shape, param = shapes[0], layer.norm_param
    check(2 <= len(shape) <= 4, f"its bottom must have 2 to 4 axes, got {shape}")
    check(param.eps > 0, f"eps must be above 0, got {param.eps}")
    axes = (1, 2) if param.across_spatial else 1

    def run(bottoms, params):
        x = bottoms[0].reshape(*shape[:2], -1)
        y = x / (x.square().sum(axes, keepdim=True) + param.eps).sqrt() * params[0].view(1, -1, 1)
        return [y.view(shape)]

    return Built([shape], run, [Param((1 if param.channel_shared else shape[1],),
                                      filler_or(param, "scale_filler", 1))])
