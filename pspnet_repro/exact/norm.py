"""The original's arithmetic, continued: BN, Softmax and its loss."""

import math

import numpy as np
import torch
from torch.autograd.function import FunctionCtx, once_differentiable

from pspnet_repro.exact import functions
from pspnet_repro.exact.gradients import add_gradient
from pspnet_repro.exact.linear import is_exact

_ops = torch.ops.pspnet
_SMALLEST = float(np.finfo(np.float32).tiny)


def _channel_sums(x, first=1.0, second=1.0, total=None):
    """`second` * sum over images of `first` * the sums of planes of (N, C, S)."""
    planes = _ops.original_sum_rows(x.reshape(-1, x.shape[2]), first)
    return _ops.original_sum_columns(planes.view(x.shape[:2]), second, total)


def _add_weighted(y, beta, x, alpha):
    """y = beta * y + alpha * x in place."""
    _ops.original_axpy(y.mul_(beta), x, alpha)
    return y


def _wide(values):
    return values.reshape(-1, 1)


def _add_channel_sums(parameter, terms):
    """The gradient of a slope or a bias, see add_gradient."""
    def add(total):
        sums = _channel_sums(terms, total=None if total is None else total.view(-1))
        return sums.view(parameter.shape)

    return add_gradient(parameter, add)


def _centred(scaled, xhat):
    """What the normalization of a batch leaves of a gradient, but for the division by the
    deviation."""
    result = xhat * _wide(_channel_sums(scaled * xhat))
    result += _wide(_channel_sums(scaled))
    count = len(scaled) * scaled.shape[2]
    return _add_weighted(result, float(-1 / np.float32(count)), scaled, 1.0)


class _BatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: torch.Tensor, slope: torch.Tensor, bias: torch.Tensor,
                mean: torch.Tensor, var: torch.Tensor, eps: float, training: bool,
                momentum: float) -> torch.Tensor:
        flat = x.reshape(*x.shape[:2], -1)
        batch_mean, batch_var = mean, var
        if training:
            weights = (1 / np.float32(flat.shape[2]), 1 / np.float32(len(flat)))
            batch_mean = _channel_sums(flat, *weights)
            rest = float(1 - np.float32(momentum))
            _add_weighted(mean.view(-1), momentum, batch_mean, rest)
        y = flat - _wide(batch_mean)
        if training:
            batch_var = _channel_sums(_ops.original_pow(y, 2), *weights)
            _add_weighted(var.view(-1), momentum, batch_var, rest)
        invstd = _ops.original_pow(batch_var + np.float32(eps), -0.5)
        y *= _wide(invstd)
        ctx.training, ctx.parameters = training, (slope, bias)
        keep = training or ctx.needs_input_grad[1]
        ctx.save_for_backward(y.clone() if keep else None, slope, invstd)
        y *= _wide(slope)
        y += _wide(bias)
        return y.view(x.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: torch.Tensor) -> tuple:
        xhat, slope, invstd = ctx.saved_tensors
        grad_output = grad.reshape(*grad.shape[:2], -1)
        grads = [None] * 8
        for k in (1, 2):
            if ctx.needs_input_grad[k]:
                terms = xhat * grad_output if k == 1 else grad_output
                grads[k] = _add_channel_sums(ctx.parameters[k - 1], terms)
        if ctx.needs_input_grad[0] and not ctx.training:
            factor = slope.view(-1) * invstd.view(-1)
            grads[0] = (grad_output * _wide(factor)).view(grad.shape)
        elif ctx.needs_input_grad[0]:
            result = _centred(grad_output * _wide(slope), xhat)
            grads[0] = result.mul_(_wide(invstd)).view(grad.shape)
        return tuple(grads)


def batch_norm(x: torch.Tensor, slope: torch.Tensor, bias: torch.Tensor, mean: torch.Tensor,
               var: torch.Tensor, eps: float, training: bool, momentum: float) -> torch.Tensor:
    """Caffe's BN layer on exact tensors; in training mean and var change in place."""
    return _BatchNorm.apply(x, slope, bias, mean, var, eps, training, momentum)


def standardize(x: torch.Tensor, mean: torch.Tensor, var: torch.Tensor, eps: float) -> torch.Tensor:
    """Caffe's BatchNorm layer on an exact tensor with statistics that are given."""
    deviation = _ops.original_pow(var + np.float32(eps), 0.5)
    return (x - mean.view(-1, 1, 1)) / deviation.view(-1, 1, 1)


def probabilities(scores: torch.Tensor) -> torch.Tensor:
    """Softmax over axis 1 of exact (N, C, S) scores, without a gradient."""
    weights = _ops.original_exp(scores - scores.amax(1, keepdim=True))
    return weights / torch.stack([_ops.original_sum_columns(w) for w in weights])[:, None]


class _Softmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, scores: torch.Tensor) -> torch.Tensor:
        y = probabilities(scores)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: torch.Tensor) -> torch.Tensor:
        y, = ctx.saved_tensors
        return (grad - (grad * y).sum(1, keepdim=True)) * y


def softmax(x: torch.Tensor, axis: int) -> torch.Tensor:
    """Caffe's Softmax along an axis."""
    if not is_exact(x):
        return torch.softmax(x, axis)
    axis %= x.dim()
    around = x.reshape(math.prod(x.shape[:axis]), x.shape[axis], -1)
    return _Softmax.apply(around).view(x.shape)


class _SoftmaxLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, scores: torch.Tensor, labels: torch.Tensor, counted: torch.Tensor,
                normalizer: float) -> torch.Tensor:
        p = probabilities(scores)
        ctx.save_for_backward(p, labels, counted)
        ctx.normalizer = normalizer
        chosen = p.gather(1, labels[:, None])[:, 0][counted].clamp(min=_SMALLEST)
        terms = -_ops.original_log(chosen).numpy()
        # One by one, as numpy accumulates.
        loss = np.add.accumulate(terms)[-1] if len(terms) else np.float32(0)
        return torch.tensor(loss) / normalizer

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: torch.Tensor) -> tuple:
        p, labels, counted = ctx.saved_tensors
        one = torch.ones_like(labels, dtype=p.dtype)
        difference = p.scatter_add(1, labels[:, None], -one[:, None])
        difference = difference.where(counted[:, None], 0)
        return difference.mul_(grad / ctx.normalizer), None, None, None


def softmax_loss(scores: torch.Tensor, labels: torch.Tensor, ignored: int | None,
                 normalizer: float) -> torch.Tensor:
    """Sum of -log(max(p, FLT_MIN)) over the labelled positions, over the normalizer.

    Args:
        scores: (N, C, S), exact.
        labels: (N, S) int64, each a class or `ignored`.
        ignored: label without loss.
    """
    counted = torch.ones_like(labels, dtype=torch.bool) if ignored is None else labels != ignored
    return _SoftmaxLoss.apply(scores, labels.where(counted, 0), counted, float(normalizer))


class _OwnStatistics(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, scale, shift, eps):
        flat = x.reshape(*x.shape[:2], -1)
        weights = (1 / np.float32(flat.shape[2]), 1 / np.float32(len(flat)))
        mean = _channel_sums(flat, *weights)
        squares = _channel_sums(_ops.original_pow(flat, 2), *weights)
        var = squares - _ops.original_pow(mean, 2)
        deviation = _ops.original_pow(var + np.float32(eps), 0.5)
        xhat = (flat - _wide(mean)) / _wide(deviation)
        ctx.parameters = (scale, shift)
        ctx.save_for_backward(xhat, scale, deviation)
        ctx.mark_non_differentiable(mean, var)
        y = xhat * _wide(scale)
        y += _wide(shift)
        return y.view(x.shape), mean, var

    @staticmethod
    @once_differentiable
    def backward(ctx, grad, *_):
        xhat, scale, deviation = ctx.saved_tensors
        grad_output = grad.reshape(*grad.shape[:2], -1)
        grads = [None] * 4
        for k, terms in ((1, xhat * grad_output), (2, grad_output)):
            if ctx.needs_input_grad[k]:
                grads[k] = _add_channel_sums(ctx.parameters[k - 1], terms)
        if ctx.needs_input_grad[0]:
            grads[0] = (_centred(grad_output * _wide(scale), xhat) / _wide(deviation)).view(
                grad.shape)
        return tuple(grads)


def own_statistics_norm(x: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor,
                        eps: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """caffe-segnet's BN, which always takes the batch's mean and variance.

    Args:
        x: (N, C, H, W).
        scale, shift: C numbers.
        eps: added to the variance E[x^2] - E[x]^2.
    Returns:
        The output, the mean (C) and the variance (C), the last two without gradients.
    """
    if is_exact(x, scale, shift):
        return _OwnStatistics.apply(x, scale, shift, eps)
    # F.batch_norm would refuse a single value per channel.
    y = torch.batch_norm(x, scale.reshape(-1), shift.reshape(-1), None, None, True, 0.0, eps, False)
    var, mean = torch.var_mean(x.detach(), (0, 2, 3), correction=0)
    return y, mean, var


class _Standardize(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, eps):
        weight = float(np.float32(1 / x.shape[1]))
        y = x - _wide(_row_sums(x, weight))
        ctx.deviation = None
        if eps is not None:
            squares = functions.power(y, 2)
            ctx.deviation = functions.power(_row_sums(squares, weight), 0.5) + eps
            y /= _wide(ctx.deviation)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        y, = ctx.saved_tensors
        if ctx.deviation is None:
            return grad - _wide(_row_sums(grad, float(np.float32(1 / grad.shape[1])))), None
        result = _wide(_row_sums(y * grad, 1.0)) * y + _wide(_row_sums(grad, 1.0))
        weight = float(np.float32(-1 / y.shape[1]))
        result = (_add_weighted(result, weight, grad.contiguous(), 1.0) if is_exact(y) else
                  grad + result * weight)
        return result / _wide(ctx.deviation), None


def _row_sums(x, weight):
    return _ops.original_sum_rows(x, weight) if is_exact(x) else x.sum(1) * weight


def standardize_rows(x: torch.Tensor, eps: float | None) -> torch.Tensor:
    """Caffe's MVN of (rows, numbers): less the row's mean, and over its deviation + eps unless eps
    is None. The gradient takes eps for a part of the deviation, as the original's does."""
    return _Standardize.apply(x, eps)


def affine(x: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """scale * x + shift for each channel of (N, C, H, W)."""
    if is_exact(x, scale, shift):
        zero, one = torch.zeros_like(scale), torch.ones_like(scale)
        return batch_norm(x, scale, shift, zero, one, 0.0, False, 0.0)
    return x * _wide(scale)[:, :, None] + _wide(shift)[:, :, None]
