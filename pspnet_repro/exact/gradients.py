"""Gradients of parameters in the original's order: every product is added to the sum so far."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar

import torch

_LEARNING = ContextVar("learning", default=frozenset())


@contextlib.contextmanager
def adding_to_grad(parameters: Iterable[torch.Tensor]) -> Iterator[None]:
    """A block whose backward passes add to the parameters' .grad in the original's order.

    In the original every layer adds its products to the gradient that is there, whichever layer or
    pass of iter_size began it. Autograd sums the products of each layer and pass from 0 and adds
    these sums, which rounds differently. In this block the exact layers add to .grad themselves;
    torch's layers, and every backward pass elsewhere, are autograd's.
    """
    token = _LEARNING.set(frozenset(map(id, parameters)))
    try:
        yield
    finally:
        _LEARNING.reset(token)


def add_gradient(parameter: torch.Tensor,
                 add: Callable[[torch.Tensor | None], torch.Tensor]) -> torch.Tensor | None:
    """What the backward function of an exact layer returns for a parameter.

    Args:
        parameter: the tensor that the forward function was called with.
        add: gives the sum so far, or None, with this layer's products.
    Returns:
        The gradient; None where `adding_to_grad` has the sum put into .grad.
    """
    if id(parameter) not in _LEARNING.get():
        return add(None)
    parameter.grad = add(parameter.grad)
    return None
