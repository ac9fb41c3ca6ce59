"""The original's arithmetic on the CPU in float32: layers whose every bit is that of the original,
run with one thread of its BLAS. Other devices and dtypes, and PSPNET_OPS=reference, compute in
torch."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

from pspnet_repro import ops

_ops = torch.ops.pspnet
_SMALLEST = float(np.finfo(np.float32).tiny)


def is_exact(*tensors):
    """Whether the functions below compute on these tensors; None counts as yes."""
    return not ops.USE_REFERENCE and all(
        t is None or (t.device.type == "cpu" and t.dtype == torch.float32) for t in tensors)


def _gradient_so_far(parameter):
    """What the gradient of a parameter goes on from, flat or None.

    The original adds every product to the gradient that is there. A parameter with `goes_on` set
    (CaffeSolver's, over the passes of iter_size) has its .grad taken from it, and the backward
    pass returns the whole sum; others begin at 0, as autograd wants it.
    """
    if not getattr(parameter, "goes_on", False):
        return None
    before, parameter.grad = parameter.grad, None
    return before


class _Split(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, count):
        return tuple(x.view_as(x) for _ in range(count))

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads):
        first, *others = [grad for grad in grads if grad is not None]
        for grad in others:
            first = first + grad
        return first, None


def split(x, count):
    """`count` tensors like x, whose gradients are added from the first to the last."""
    return _Split.apply(x, count)


class _Geometry:
    """im2col and its adjoint for images of one size; `group` parts of the channels."""

    def __init__(self, kernel, stride, pad, dilation, group):
        self.window = {"kernel_size": kernel, "stride": stride, "padding": pad,
                       "dilation": dilation}
        self.group = group
        self.plain = max(*kernel, *stride) == 1 and max(pad) == 0

    def columns(self, image):
        """(C, H, W) -> `group` matrices of (C / group * kh * kw, positions)."""
        return (image.flatten(1) if self.plain else F.unfold(image[None], **self.window)[0]).chunk(
            self.group)

    def weights(self, weight):
        """(A, B, kh, kw) -> `group` matrices (A / group, B * kh * kw)."""
        return weight.flatten(1).chunk(self.group)

    def correlate(self, images, weight):
        """The matrices of weights times those of columns: (N, A, positions)."""
        return torch.stack([torch.cat([_ops.original_gemm(w, columns) for w, columns in
                                       zip(self.weights(weight), self.columns(image))])
                            for image in images])

    def scatter(self, images, weight, size):
        """The adjoint of `correlate`: (N, A, h, w) -> (N, C, *size)."""
        weights = self.weights(weight)
        result = []
        for image in images:
            columns = torch.cat([_ops.original_gemm(w.t(), part) for w, part in
                                 zip(weights, image.flatten(1).chunk(self.group))])
            result.append(columns.view(-1, *size) if self.plain else
                          F.fold(columns[None], size, **self.window)[0])
        return torch.stack(result)

    def weight_gradient(self, images, grads, weight, before):
        """sum over images of (N, A, h, w) grads times columns; shape of weight."""
        sums = [None] * self.group if before is None else list(self.weights(before))
        for image, grad in zip(images, grads):
            sums = [_ops.original_gemm(part, columns.t(), total) for part, columns, total in
                    zip(grad.flatten(1).chunk(self.group), self.columns(image), sums)]
        return torch.cat(sums).view(weight.shape)


def _with_bias(y, bias):
    return y if bias is None else y.add_(bias.view(-1, 1, 1))


def _bias_gradient(grads, total):
    for grad in grads:
        total = _ops.original_sum_rows(grad.flatten(1), 1, total)
    return total


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, geometry, out_size):
        ctx.save_for_backward(x, weight)
        ctx.geometry, ctx.parameters = geometry, (weight, bias)
        y = geometry.correlate(x, weight).view(len(x), -1, *out_size)
        return _with_bias(y, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        (x, weight), geometry = ctx.saved_tensors, ctx.geometry
        before = [_gradient_so_far(p) if needed else None
                  for p, needed in zip(ctx.parameters, ctx.needs_input_grad[1:3])]
        return (geometry.scatter(grad, weight, x.shape[2:]) if ctx.needs_input_grad[0] else None,
                geometry.weight_gradient(x, grad, weight, before[0])
                if ctx.needs_input_grad[1] else None,
                _bias_gradient(grad, before[1]) if ctx.needs_input_grad[2] else None, None, None)


class _Deconvolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, geometry, out_size):
        ctx.save_for_backward(x, weight)
        ctx.geometry, ctx.parameters = geometry, (weight, bias)
        return _with_bias(geometry.scatter(x, weight, out_size), bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        (x, weight), geometry = ctx.saved_tensors, ctx.geometry
        before = [_gradient_so_far(p) if needed else None
                  for p, needed in zip(ctx.parameters, ctx.needs_input_grad[1:3])]
        return (geometry.correlate(grad, weight).view(x.shape)
                if ctx.needs_input_grad[0] else None,
                geometry.weight_gradient(grad, x, weight, before[0])
                if ctx.needs_input_grad[1] else None,
                _bias_gradient(grad, before[1]) if ctx.needs_input_grad[2] else None, None, None)


def convolution(x, weight, bias, stride, pad, dilation, group, out_size):
    """Caffe's Convolution; arguments as torch.nn.functional.conv2d's, pairs throughout."""
    if not is_exact(x, weight, bias):
        return F.conv2d(x, weight, bias, stride, pad, dilation, group)
    geometry = _Geometry(weight.shape[2:], stride, pad, dilation, group)
    return _Convolution.apply(x, weight, bias, geometry, out_size)


def deconvolution(x, weight, bias, stride, pad, dilation, group, out_size):
    """Caffe's Deconvolution; arguments as torch.nn.functional.conv_transpose2d's."""
    if not is_exact(x, weight, bias):
        return F.conv_transpose2d(x, weight, bias, stride, pad, 0, group, dilation)
    geometry = _Geometry(weight.shape[2:], stride, pad, dilation, group)
    return _Deconvolution.apply(x, weight, bias, geometry, out_size)


class _InnerProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, transpose):
        ctx.save_for_backward(x, weight)
        ctx.transpose, ctx.parameters = transpose, (weight, bias)
        y = _ops.original_gemm(x, weight if transpose else weight.t())
        return y if bias is None else y.add_(bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        grads = [None] * 4
        if ctx.needs_input_grad[0]:
            grads[0] = _ops.original_gemm(grad, weight.t() if ctx.transpose else weight)
        if ctx.needs_input_grad[1]:
            pair = (x.t(), grad) if ctx.transpose else (grad.t(), x)
            grads[1] = _ops.original_gemm(*pair, _gradient_so_far(ctx.parameters[0]))
        if ctx.needs_input_grad[2]:
            grads[2] = _ops.original_sum_columns(grad, 1, _gradient_so_far(ctx.parameters[1]))
        return tuple(grads)


def inner_product(x, weight, bias, transpose):
    """Caffe's InnerProduct on (..., in): weight (out, in), or (in, out) with `transpose`."""
    if not is_exact(x, weight, bias):
        return F.linear(x, weight.t() if transpose else weight, bias)
    y = _InnerProduct.apply(x.reshape(-1, x.shape[-1]), weight, bias, transpose)
    return y.view(*x.shape[:-1], -1)


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


class _BatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, slope, bias, mean, var, eps, training, momentum):
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
    def backward(ctx, grad):
        xhat, slope, invstd = ctx.saved_tensors
        grad_output = grad.reshape(*grad.shape[:2], -1)
        grads = [None] * 8
        for k in (1, 2):
            if ctx.needs_input_grad[k]:
                parameter = ctx.parameters[k - 1]
                before = _gradient_so_far(parameter)
                grads[k] = _channel_sums(xhat * grad_output if k == 1 else grad_output,
                                         total=None if before is None else before.view(-1)
                                         ).view(parameter.shape)
        if ctx.needs_input_grad[0] and not ctx.training:
            factor = slope.view(-1) * invstd.view(-1)
            grads[0] = (grad_output * _wide(factor)).view(grad.shape)
        elif ctx.needs_input_grad[0]:
            scaled = grad_output * _wide(slope)
            result = xhat * _wide(_channel_sums(scaled * xhat))
            result += _wide(_channel_sums(scaled))
            count = len(scaled) * scaled.shape[2]
            _add_weighted(result, float(-1 / np.float32(count)), scaled, 1.0)
            grads[0] = result.mul_(_wide(invstd)).view(grad.shape)
        return tuple(grads)


def batch_norm(x, slope, bias, mean, var, eps, training, momentum):
    """Caffe's BN layer on exact tensors; in training mean and var change in place."""
    return _BatchNorm.apply(x, slope, bias, mean, var, eps, training, momentum)


def probabilities(scores):
    """Softmax over axis 1 of exact (N, C, S) scores, without a gradient."""
    weights = _ops.original_exp(scores - scores.amax(1, keepdim=True))
    return weights / torch.stack([_ops.original_sum_columns(w) for w in weights])[:, None]


class _Softmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx, scores):
        y = probabilities(scores)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        y, = ctx.saved_tensors
        return (grad - (grad * y).sum(1, keepdim=True)) * y


def softmax(x, axis):
    """Caffe's Softmax along an axis."""
    if not is_exact(x):
        return torch.softmax(x, axis)
    axis %= x.dim()
    around = x.reshape(math.prod(x.shape[:axis]), x.shape[axis], -1)
    return _Softmax.apply(around).view(x.shape)


class _SoftmaxLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, scores, labels, counted, normalizer):
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
    def backward(ctx, grad):
        p, labels, counted = ctx.saved_tensors
        one = torch.ones_like(labels, dtype=p.dtype)
        difference = p.scatter_add(1, labels[:, None], -one[:, None])
        difference = difference.where(counted[:, None], 0)
        return difference.mul_(grad / ctx.normalizer), None, None, None


def softmax_loss(scores, labels, ignored, normalizer):
    """Sum of -log(max(p, FLT_MIN)) over the labelled positions, over the normalizer.

    Args:
        scores: (N, C, S), exact.
        labels: (N, S) int64, each a class or `ignored`.
        ignored: label without loss, or None.
        normalizer: a number.
    """
    counted = torch.ones_like(labels, dtype=torch.bool) if ignored is None else labels != ignored
    return _SoftmaxLoss.apply(scores, labels.where(counted, 0), counted, float(normalizer))
