"""Functions of one number as the original computes them, and values whose gradient is known.

On exact tensors exp, log and pow are those of the C library; elsewhere they are torch's.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch.autograd.function import once_differentiable

from pspnet_repro.exact.linear import is_exact

_ops = torch.ops.pspnet


def exp(x: torch.Tensor) -> torch.Tensor:
    """e^x."""
    return _ops.original_exp(x) if is_exact(x) else x.exp()


def log(x: torch.Tensor) -> torch.Tensor:
    """The natural logarithm."""
    return _ops.original_log(x) if is_exact(x) else x.log()


def power(x: torch.Tensor, exponent: float) -> torch.Tensor:
    """x^exponent."""
    return _ops.original_pow(x, exponent) if is_exact(x) else x.pow(exponent)


def sigmoid(x: torch.Tensor) -> torch.Tensor:
    """1 / (1 + e^-x), in float64 after the exponential, as in the original."""
    if not is_exact(x):
        return x.sigmoid()
    return (1 / (1 + _ops.original_exp(-x).double())).to(x.dtype)


class _Function(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, function, gradient):
        y = function(x)
        ctx.save_for_backward(x, y)
        ctx.gradient = gradient
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        return ctx.gradient(*ctx.saved_tensors, grad), None, None


def apply(x: torch.Tensor, function: Callable[[torch.Tensor], torch.Tensor],
          gradient: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor],
          ) -> torch.Tensor:
    """function(x), whose gradient is gradient(x, y, grad_output)."""
    return _Function.apply(x, function, gradient)


class _Loss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, total, difference, normalizer):
        ctx.save_for_backward(difference)
        ctx.normalizer = normalizer
        return total / normalizer

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        difference, = ctx.saved_tensors
        return difference * (grad / ctx.normalizer), None, None, None


def loss(x: torch.Tensor, total: torch.Tensor, difference: torch.Tensor,
         normalizer: float) -> torch.Tensor:
    """total / normalizer, whose gradient by x is difference / normalizer.

    Args:
        x: the tensor that the loss is of.
        total: a scalar.
        difference: of the shape of x.
    """
    return _Loss.apply(x, total.detach(), difference.detach(), float(normalizer))


def total(terms: torch.Tensor) -> torch.Tensor:
    """The sum of a tensor; of an exact one as a loop adds it, one number after the other."""
    if not is_exact(terms):
        return terms.sum()
    sums = np.add.accumulate(terms.detach().reshape(-1).numpy())
    return torch.tensor(sums[-1] if len(sums) else np.float32(0))
