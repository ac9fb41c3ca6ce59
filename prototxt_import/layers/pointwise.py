"""Layers that work element by element."""

import ast
import math

import numpy as np
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
from pspnet_repro.exact import functions


def _pointwise(layer, shapes, function):
    check_counts(layer, 1, 1)
    return Built([shapes[0]], lambda bottoms, params: [function(bottoms[0])])


def _custom(layer, shapes, function, gradient):
    """A layer of a function(x) and a gradient(x, y, grad_output)."""
    return _pointwise(layer, shapes, lambda x: functions.apply(x, function, gradient))


def relu(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """x where x > 0, else negative_slope * x; at most 6 with relu6, at most `maximum` where it is
    above 0, at least `minimum` where it is not 0. A second top is 1 where x > 0, else 0, as in
    DecoupledNet's Caffe."""
    check_counts(layer, 1, (1, 2))
    param = layer.relu_param
    check_finite_fields(param, ("negative_slope", "maximum", "minimum"))
    slope = param.negative_slope
    low = param.minimum or -math.inf
    high = min([6.0] * param.relu6 + [param.maximum] * (param.maximum > 0), default=math.inf)
    check(low < high, f"minimum must be below {high}, got {low}")

    def function(x):
        y = F.leaky_relu(x, slope) if slope else torch.relu(x)
        return F.hardtanh(y, low, high) if math.isfinite(low) or math.isfinite(high) else y

    def run(bottoms, params):
        mask = (bottoms[0].detach() > 0).to(bottoms[0].dtype) if len(layer.top) == 2 else None
        return [function(bottoms[0]), mask][:len(layer.top)]

    return Built([shapes[0]] * len(layer.top), run)


def hard_swish(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """x * min(max(x + 3, 0), 6) / 6."""
    return _pointwise(layer, shapes, lambda x: x * F.relu6(x + 3) / 6)


def hard_sigmoid(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """alpha * x + beta, but at least 0 and at most 1."""
    param = layer.hard_sigmoid_param
    check(param.HasField("alpha") and param.HasField("beta"),
          "needs alpha and beta, which the forks that have it start differently: write "
          "hard_sigmoid_param { alpha: 0.2 beta: 0.5 }, or 0.16666667 and 0.5 for MobileNet-V3's")
    check_finite_fields(param, ("alpha", "beta"))
    return _pointwise(layer, shapes,
                      lambda x: F.hardtanh(param.alpha * x + param.beta, 0.0, 1.0))


def mish(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """x * tanh(log(1 + e^x))."""
    return _pointwise(layer, shapes, F.mish)


def relu6(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """x, but at least 0 and at most 6."""
    return _pointwise(layer, shapes, F.relu6)


def sigmoid(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    return _custom(layer, shapes, functions.sigmoid,
                   lambda x, y, grad: (grad * y * (1 - y.double())).to(y.dtype))


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


def absval(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    check(list(layer.top) != list(layer.bottom), "must have a top of its own, not its bottom")
    return _pointwise(layer, shapes, torch.abs)


def elu(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """x where x > 0, else alpha * (e^x - 1)."""
    check_finite_fields(layer.elu_param, ("alpha",))
    return _elu(layer, shapes, layer.elu_param.alpha, 1)


def _elu(layer, shapes, alpha, factor):
    def function(x):
        return factor * (x.clamp(min=0) + alpha * (functions.exp(x.clamp(max=0)) - 1))

    def gradient(x, y, grad):
        return grad * torch.where(x > 0, factor, factor * alpha + y)

    return _custom(layer, shapes, function, gradient)


def selu(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """lambda times ELU, whose alpha and lambda keep a mean of 0 and a variance of 1."""
    check_finite_fields(layer.selu_param, ("alpha", "lambda"))
    return _elu(layer, shapes, layer.selu_param.alpha, getattr(layer.selu_param, "lambda"))


def bnll(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """log(1 + e^x)."""
    def function(x):
        # In float64 after the exponential, as in the original.
        return (x.clamp(min=0) + (1 + functions.exp(-x.abs()).double()).log()).to(x.dtype)

    def gradient(x, y, grad):
        # The original's limit, beyond which e^x may overflow.
        exp = functions.exp(x.clamp(max=50))
        return (grad * exp / (exp.double() + 1)).to(x.dtype)

    return _custom(layer, shapes, function, gradient)


def _log_base(param):
    """The logarithm of `base`, of which -1 stands for e."""
    check_finite_fields(param, ("base", "scale", "shift"))
    check(param.base == -1 or param.base > 0, f"base must be above 0, or -1 for e, got "
                                              f"{param.base}")
    return np.float32(1 if param.base == -1 else math.log(param.base))


def exp(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """base^(shift + scale * x)."""
    param = layer.exp_param
    inner = float(_log_base(param) * np.float32(param.scale))
    with np.errstate(over="ignore"):
        outer = float(np.float32(np.float64(math.e if param.base == -1 else param.base)
                                 ** param.shift))
    check(math.isfinite(outer), f"base^shift must be finite as float32, got {outer}")

    def function(x):
        return functions.exp(x * inner) * outer

    return _custom(layer, shapes, function, lambda x, y, grad: y * grad * inner)


def log(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """The logarithm of shift + scale * x to the base."""
    param = layer.log_param
    base = _log_base(param)
    check(base != 0, "base must not be 1")
    factor = float(1 / base)
    slope = float(np.float32(param.scale) / base)

    def function(x):
        return functions.log(x * param.scale + param.shift) * factor

    def gradient(x, y, grad):
        return functions.power(x * param.scale + param.shift, -1) * slope * grad

    return _custom(layer, shapes, function, gradient)


def threshold(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """1 where x is above the threshold, else 0; no gradient."""
    check_finite_fields(layer.threshold_param, ("threshold",))
    limit = layer.threshold_param.threshold
    return _pointwise(layer, shapes, lambda x: (x.detach() > limit).to(x.dtype))


def swish(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """x * sigmoid(beta * x)."""
    check_finite_fields(layer.swish_param, ("beta",))
    beta = layer.swish_param.beta

    def rate(x):
        # In float64, as in the original.
        return 0.5 * torch.tanh(0.5 * (beta * x).double()) + 0.5

    def gradient(x, y, grad):
        part = beta * y
        return (grad * (part + rate(x).to(x.dtype) * (1 - part.double()))).to(x.dtype)

    return _custom(layer, shapes, lambda x: x * rate(x).to(x.dtype), gradient)


def clip(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """x, but at least min and at most max; at both the gradient passes."""
    param = layer.clip_param
    check(param.HasField("min") and param.HasField("max"), "needs min and max")
    check_finite_fields(param, ("min", "max"))
    check(param.min <= param.max, f"min must be at most max {param.max}, got {param.min}")

    def gradient(x, y, grad):
        return grad * ((x >= param.min) & (x <= param.max))

    return _custom(layer, shapes, lambda x: x.clamp(param.min, param.max), gradient)


def dropout(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """In training each element is 0 with probability dropout_ratio, else divided by the rest; with
    `sample_weights_test` in testing too. With `scale_train: false` all is times the rest."""
    param = layer.dropout_param
    ratio = param.dropout_ratio
    train = train or param.sample_weights_test
    # In testing all is kept, and a ratio of 1 means nothing.
    check(0 <= ratio < 1 or ratio == 1 and not train,
          f"dropout_ratio must be at least 0 and below 1, got {ratio}")

    def function(x):
        y = F.dropout(x, ratio, train)
        return y if param.scale_train else y * (1 - ratio)

    return _pointwise(layer, shapes, function)


def selu_dropout(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """In training each element is SeLu's limit with probability dropout_ratio; then all are scaled
    and shifted to a mean of 0 and a variance of 1."""
    param = layer.selu_dropout_param
    ratio = param.dropout_ratio
    check(0 <= ratio < 1, f"dropout_ratio must be at least 0 and below 1, got {ratio}")
    check(abs(param.alpha + 1.75809934) < 1e-5,
          f"alpha must be -1.75809934, the limit of SeLu, got {param.alpha}")
    return _pointwise(layer, shapes, lambda x: F.alpha_dropout(x, ratio, train))


def spatial_dropout(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """ENet's Python layer: in `phase` TRAIN of its param_str a channel of an item is 0 with
    probability `p`; what is left is divided by the rest, in every phase."""
    check_counts(layer, 1, 1)
    check(len(shapes[0]) >= 2, f"its bottom must have channels, got {shapes[0]}")
    text = layer.python_param.param_str
    try:
        fields = ast.literal_eval(text)
        phase, ratio = fields["phase"], float(fields["p"])
    except (ValueError, SyntaxError, TypeError, KeyError, MemoryError, RecursionError) as error:
        raise ValueError(f"param_str must be {{'phase': 'TRAIN', 'p': '0.1'}}, got "
                         f"{text[:60]!r}") from error
    check(0 < ratio < 1, f"p must be above 0 and below 1, got {ratio}")

    def function(x):
        kept = torch.rand(x.shape[:2], device=x.device) >= ratio if phase == "TRAIN" else 1
        return x * torch.as_tensor(kept, dtype=x.dtype, device=x.device).reshape(
            *(x.shape[:2] if phase == "TRAIN" else (1, 1)), *(1,) * (x.ndim - 2)) / (1 - ratio)

    return _pointwise(layer, shapes, function)


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
