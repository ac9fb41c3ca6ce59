"""Layers that work element by element."""

import math

import torch
import torch.nn.functional as F

from prototxt_import.format.caffe_pb2 import EltwiseParameter, LayerParameter
from prototxt_import.layers.base import (
    Built,
    Param,
    Shapes,
    check,
    check_counts,
    check_finite_fields,
    filler_or,
)


def _pointwise(layer, shapes, function):
    check_counts(layer, 1, 1)
    return Built([shapes[0]], lambda bottoms, params: [function(bottoms[0])])


def relu(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """x where x > 0, else negative_slope * x."""
    check_finite_fields(layer.relu_param, ("negative_slope",))
    slope = layer.relu_param.negative_slope
    return _pointwise(layer, shapes, lambda x: F.leaky_relu(x, slope) if slope else torch.relu(x))


def sigmoid(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    return _pointwise(layer, shapes, torch.sigmoid)


def tanh(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    return _pointwise(layer, shapes, torch.tanh)


def power(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """(shift + scale * x)^power."""
    param = layer.power_param
    check_finite_fields(param, ("power", "scale", "shift"))

    def function(x):
        base = x * param.scale + param.shift
        return base if param.power == 1 else base.pow(param.power)

    return _pointwise(layer, shapes, function)


def dropout(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """In training each element is 0 with probability dropout_ratio, else divided by the rest."""
    ratio = layer.dropout_param.dropout_ratio
    check(0 <= ratio < 1, f"dropout_ratio must be at least 0 and below 1, got {ratio}")
    return _pointwise(layer, shapes, lambda x: F.dropout(x, ratio, train))


def prelu(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """x where x > 0, else slope * x; blob: slopes (C), or one slope () if channel_shared."""
    check_counts(layer, 1, 1)
    param = layer.prelu_param
    check(len(shapes[0]) >= 2, f"its bottom must have channels, got {shapes[0]}")
    shape = () if param.channel_shared else (shapes[0][1],)

    def run(bottoms, params):
        return [F.prelu(bottoms[0], params[0].reshape(-1))]

    return Built([shapes[0]], run, [Param(shape, filler_or(param, "filler", 0.25))])


def eltwise(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """Product, sum with coefficients, or maximum of bottoms of one shape."""
    check_counts(layer, (2, None), 1)
    param = layer.eltwise_param
    check(all(shape == shapes[0] for shape in shapes), f"its bottoms must be alike, got {shapes}")
    coeff = list(param.coeff)
    summed = param.operation == EltwiseParameter.SUM
    for value in coeff:
        check(math.isfinite(value), f"coeff must be finite as float32, got {value}")
    check(not coeff or summed, "coeff must stand with operation SUM")
    check(len(coeff) in (0, len(shapes)), f"needs {len(shapes)} coeff or none, got {len(coeff)}")

    def run(bottoms, params):
        output, *others = bottoms
        if summed and coeff:
            output = coeff[0] * output
        for k, x in enumerate(others, 1):
            if summed:
                output = torch.add(output, x, alpha=coeff[k] if coeff else 1)
            elif param.operation == EltwiseParameter.PROD:
                output = output * x
            else:
                # The original's ties: to the second bottom of the first pair, else to the earlier.
                output = torch.where(output > x if k == 1 else ~(x > output), output, x)
        return [output]

    return Built([shapes[0]], run)
