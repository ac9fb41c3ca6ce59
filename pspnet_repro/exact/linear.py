"""The original's arithmetic on the CPU in float32: layers whose every bit is that of the original,
run with one thread of its BLAS. Other devices and dtypes, and PSPNET_OPS=reference, compute in
torch."""

import contextlib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar

import torch
import torch.nn.functional as F
from torch.autograd.function import FunctionCtx, once_differentiable

from pspnet_repro import ops
from pspnet_repro.exact.gradients import add_gradient

_ops = torch.ops.pspnet
_IN_TORCH = ContextVar("in_torch", default=False)


@contextlib.contextmanager
def in_torch(active: bool) -> Iterator[None]:
    """A block in which, if `active`, no tensor is exact: torch computes everything, and faster."""
    token = _IN_TORCH.set(active)
    try:
        yield
    finally:
        _IN_TORCH.reset(token)


def is_exact(*tensors: torch.Tensor | None) -> bool:
    """Whether the functions below compute on these tensors; None counts as yes."""
    return not ops.USE_REFERENCE and not _IN_TORCH.get() and all(
        t is None or (t.device.type == "cpu" and t.dtype == torch.float32) for t in tensors)


class _Split(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: torch.Tensor, count: int) -> tuple[torch.Tensor, ...]:
        return tuple(x.view_as(x) for _ in range(count))

    @staticmethod
    def backward(ctx: FunctionCtx, *grads: torch.Tensor | None) -> tuple[torch.Tensor, None]:
        first, *others = [grad for grad in grads if grad is not None]
        for grad in others:
            first = first + grad
        return first, None


def split(x: torch.Tensor, count: int) -> tuple[torch.Tensor, ...]:
    """`count` tensors like x, whose gradients are added from the first to the last."""
    return _Split.apply(x, count)


def _joined(parts):
    """Parts along their first axis; one part is not copied."""
    return parts[0] if len(parts) == 1 else torch.cat(parts)


class _Geometry:
    """im2col and its adjoint for images of one size; `group` parts of the channels."""

    def __init__(self, kernel: Sequence[int], stride: Sequence[int], pad: Sequence[int],
                 dilation: Sequence[int], group: int) -> None:
        self.window = {"kernel_size": kernel, "stride": stride, "padding": pad,
                       "dilation": dilation}
        self.group = group
        self.plain = max(*kernel, *stride) == 1 and max(pad) == 0

    def columns(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(C, H, W) -> `group` matrices of (C / group * kh * kw, positions)."""
        return (image.flatten(1) if self.plain else F.unfold(image[None], **self.window)[0]).chunk(
            self.group)

    def weights(self, weight: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(A, B, kh, kw) -> `group` matrices (A / group, B * kh * kw)."""
        return weight.flatten(1).chunk(self.group)

    def correlate(self, images: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """The matrices of weights times those of columns: (N, A, positions)."""
        weights = self.weights(weight)
        return _joined([_joined([_ops.original_gemm(w, columns) for w, columns in
                                 zip(weights, self.columns(image))])[None] for image in images])

    def scatter(self, images: torch.Tensor, weight: torch.Tensor,
                size: Sequence[int]) -> torch.Tensor:
        """The adjoint of `correlate`: (N, A, h, w) -> (N, C, *size)."""
        weights = self.weights(weight)
        result = []
        for image in images:
            columns = _joined([_ops.original_gemm(w.t(), part) for w, part in
                               zip(weights, image.flatten(1).chunk(self.group))])[None]
            result.append(columns.view(1, -1, *size) if self.plain else
                          F.fold(columns, size, **self.window))
        return _joined(result)

    def weight_gradient(self, images: torch.Tensor, grads: torch.Tensor, weight: torch.Tensor,
                        total: torch.Tensor | None) -> torch.Tensor:
        """`total` plus the sum over images of (N, A, h, w) grads times columns; shape of weight."""
        sums = [None] * self.group if total is None else list(self.weights(total))
        for image, grad in zip(images, grads):
            sums = [_ops.original_gemm(part, columns.t(), so_far) for part, columns, so_far in
                    zip(grad.flatten(1).chunk(self.group), self.columns(image), sums)]
        return _joined(sums).view(weight.shape)


def _with_bias(y, bias):
    return y if bias is None else y.add_(bias.view(-1, 1, 1))


def _bias_gradient(grads, total):
    for grad in grads:
        total = _ops.original_sum_rows(grad.flatten(1), 1, total)
    return total


def _gradients(ctx, grad, of_input, large, small):
    """What the backward functions of convolution and its adjoint return.

    Args:
        ctx, grad: theirs.
        of_input: a function that gives the input's gradient.
        large, small: of input and `grad` the one that windows are taken of, and the other.
    """
    grads = [None] * 5
    if ctx.needs_input_grad[0]:
        grads[0] = of_input()
    if ctx.needs_input_grad[1]:
        grads[1] = add_gradient(ctx.parameters[0], lambda total: ctx.geometry.weight_gradient(
            large, small, ctx.saved_tensors[1], total))
    if ctx.needs_input_grad[2]:
        grads[2] = add_gradient(ctx.parameters[1], lambda total: _bias_gradient(grad, total))
    return tuple(grads)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None,
                geometry: _Geometry, out_size: Sequence[int]) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry, ctx.parameters = geometry, (weight, bias)
        y = geometry.correlate(x, weight).view(len(x), -1, *out_size)
        return _with_bias(y, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: torch.Tensor) -> tuple:
        (x, weight), geometry = ctx.saved_tensors, ctx.geometry
        return _gradients(ctx, grad, lambda: geometry.scatter(grad, weight, x.shape[2:]), x, grad)


class _Deconvolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None,
                geometry: _Geometry, out_size: Sequence[int]) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry, ctx.parameters = geometry, (weight, bias)
        return _with_bias(geometry.scatter(x, weight, out_size), bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: torch.Tensor) -> tuple:
        (x, weight), geometry = ctx.saved_tensors, ctx.geometry
        return _gradients(ctx, grad, lambda: geometry.correlate(grad, weight).view(x.shape), grad,
                          x)


def convolution(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None,
                stride: tuple[int, int], pad: tuple[int, int], dilation: tuple[int, int],
                group: int, out_size: Sequence[int]) -> torch.Tensor:
    """Caffe's Convolution; arguments as torch.nn.functional.conv2d's, pairs throughout."""
    if not is_exact(x, weight, bias):
        return F.conv2d(x, weight, bias, stride, pad, dilation, group)
    geometry = _Geometry(weight.shape[2:], stride, pad, dilation, group)
    return _Convolution.apply(x, weight, bias, geometry, out_size)


def deconvolution(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None,
                  stride: tuple[int, int], pad: tuple[int, int], dilation: tuple[int, int],
                  group: int, out_size: Sequence[int]) -> torch.Tensor:
    """Caffe's Deconvolution; arguments as torch.nn.functional.conv_transpose2d's."""
    if not is_exact(x, weight, bias):
        return F.conv_transpose2d(x, weight, bias, stride, pad, 0, group, dilation)
    geometry = _Geometry(weight.shape[2:], stride, pad, dilation, group)
    return _Deconvolution.apply(x, weight, bias, geometry, out_size)


class _InnerProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None,
                transpose: bool) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.transpose, ctx.parameters = transpose, (weight, bias)
        y = _ops.original_gemm(x, weight if transpose else weight.t())
        return y if bias is None else y.add_(bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: torch.Tensor) -> tuple:
        x, weight = ctx.saved_tensors
        grads = [None] * 4
        if ctx.needs_input_grad[0]:
            grads[0] = _ops.original_gemm(grad, weight.t() if ctx.transpose else weight)
        if ctx.needs_input_grad[1]:
            pair = (x.t(), grad) if ctx.transpose else (grad.t(), x)
            grads[1] = add_gradient(ctx.parameters[0],
                                    lambda total: _ops.original_gemm(*pair, total))
        if ctx.needs_input_grad[2]:
            grads[2] = add_gradient(ctx.parameters[1],
                                    lambda total: _ops.original_sum_columns(grad, 1, total))
        return tuple(grads)


def inner_product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None,
                  transpose: bool) -> torch.Tensor:
    """Caffe's InnerProduct on (..., in): weight (out, in), or (in, out) with `transpose`."""
    if not is_exact(x, weight, bias):
        return F.linear(x, weight.t() if transpose else weight, bias)
    y = _InnerProduct.apply(x.reshape(-1, x.shape[-1]), weight, bias, transpose)
    return y.view(*x.shape[:-1], -1)
