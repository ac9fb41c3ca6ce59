"""Reduction."""

import math

from prototxt_import.format.caffe_pb2 import LayerParameter, ReductionParameter
from prototxt_import.layers.base import Built, Shapes, axis_index, check_counts, check_finite_fields

_SUMS = {
    ReductionParameter.SUM: lambda x: x.sum(-1), ReductionParameter.MEAN: lambda x: x.sum(-1),
    ReductionParameter.ASUM: lambda x: x.abs().sum(-1),
    ReductionParameter.SUMSQ: lambda x: x.square().sum(-1),
}


def reduction(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """coeff times the sum, mean, sum of absolute values or of squares over the axes from `axis`."""
    check_counts(layer, 1, 1)
    param, shape = layer.reduction_param, shapes[0]
    check_finite_fields(param, ("coeff",))
    axis = axis_index(param.axis, shape)
    top = shape[:axis]
    coeff = param.coeff
    if param.operation == ReductionParameter.MEAN:
        coeff /= math.prod(shape[axis:])

    def run(bottoms, params):
        return [_SUMS[param.operation](bottoms[0].reshape(*top, -1)) * coeff]

    return Built([top], run)
