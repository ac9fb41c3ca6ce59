"""Local response normalization across channels, in the original's order of sums."""

import numpy as np
import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

from pspnet_repro.exact.linear import is_exact

_ops = torch.ops.pspnet


class _AcrossChannels(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, size, alpha, beta, k):
        ctx.ratio = float(np.float32(2 * np.float32(alpha) * np.float32(beta) / np.float32(size)))
        weight = float(np.float32(alpha) / np.float32(size))
        ctx.size = size = _reach(x, size)
        half = size // 2
        squares = F.pad(x * x, (0, 0, 0, 0, half, half))
        scale = torch.stack([torch.stack(_window_sums(image, size, k, weight))
                             for image in squares])
        factor = _ops.original_pow(scale, -beta)
        y = factor * x
        ctx.save_for_backward(x, y, scale, factor)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        (x, y, scale, factor), size = ctx.saved_tensors, ctx.size
        result, half = (grad * factor).contiguous(), size // 2
        ratios = F.pad(grad * y / scale, (0, 0, 0, 0, half, half))
        for image, planes, gradients in zip(ratios, x, result):
            total = torch.zeros_like(image[0])
            for plane in image[:size - 1]:
                _ops.original_axpy(total, plane, 1.0)
            # Other than in `_window_sums`, a plane is subtracted before the next is added.
            for head, tail, plane, gradient in zip(image[size - 1:], image, planes, gradients):
                _ops.original_axpy(total, head, 1.0)
                _ops.original_axpy(gradient, total * plane, -ctx.ratio)
                _ops.original_axpy(total, tail, -1.0)
        return result, None, None, None, None


def _reach(x, size):
    """An odd number of nearest channels that holds as many of those there are as `size` does."""
    return min(size, 2 * x.shape[1] - 1)


def _window_sums(planes, size, first, weight):
    """(C, H, W): first + weight * the sum of `size` planes of (C + size - 1, H, W), each sum made
    from the one before: a plane is added, then another subtracted."""
    total = torch.full_like(planes[0], first)
    for plane in planes[:size]:
        _ops.original_axpy(total, plane, weight)
    sums = [total]
    for head, tail in zip(planes[size:], planes):
        total = total.clone()
        _ops.original_axpy(total, head, weight)
        _ops.original_axpy(total, tail, -weight)
        sums.append(total)
    return sums


def across_channels(x: torch.Tensor, size: int, alpha: float, beta: float,
                    k: float) -> torch.Tensor:
    """x / (k + alpha / size * sum of x^2 over the `size` nearest channels)^beta of (N, C, H, W)."""
    if is_exact(x):
        return _AcrossChannels.apply(x, size, alpha, beta, k)
    reach = _reach(x, size)
    return F.local_response_norm(x, reach, alpha * reach / size, beta, k)
