"""What the tests of all image operators share: one description of each operator."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from pspnet_repro import ops
from pspnet_repro.ops import functions, reference


@dataclass(frozen=True)
class Case:
    """An operator with fixed arguments: `fast` and `slow` take an image and give outputs."""

    name: str
    fast: Callable
    slow: Callable


def _pool(kernel, stride, padding, mode):
    return Case(f"window_pool2d-{mode}-k{kernel}s{stride}p{padding}",
                lambda x: [ops.window_pool2d(x, kernel, stride, padding, mode)],
                lambda x: [reference.window_pool2d(
                    x, *map(functions._pair, (kernel, stride, padding)), mode)])


def _pyramid(bins, mode):
    return Case(f"pyramid_pool2d-{mode}-{bins}",
                lambda x: list(ops.pyramid_pool2d(x, bins, mode)),
                lambda x: list(reference.pyramid_pool2d(x, bins, mode)))


def _interp(size, begin=0, end=0):
    return Case(f"interp2d-{size}-{begin}-{end}",
                lambda x: [ops.interp2d(x, size, begin, end)],
                lambda x: [reference.interp2d(x, size, begin, end)])


CASES = [
    _pool(3, 2, 1, "ave"), _pool(3, 2, 1, "max"), _pool((4, 3), (3, 2), (2, 1), "ave"),
    _pool((4, 3), (3, 2), (2, 1), "max"), _pool(5, 1, 0, "ave"), _pool(2, 2, 0, "max"),
    _pyramid((1, 2, 3, 6), "ave"), _pyramid((1, 2, 3, 6), "max"), _pyramid((4,), "ave"),
    _interp((23, 31)), _interp((4, 5)), _interp((1, 1)), _interp((7, 9)), _interp((9, 12), -1, -2),
]
# Of `scores`: (classes, map, window, canvas, tops, lefts).
PLACES = [
    (5, (6, 8), (41, 57), (41, 57), [0], [0]),
    (5, (6, 8), (41, 57), (60, 90), [0, 19, 5], [0, 33, 33]),
    (21, (12, 12), (89, 89), (50, 143), [0, -39, 0], [0, 54, -20]),  # parts stick out
    (3, (4, 5), (10, 17), (30, 30), [-10, 30, 4], [3, 3, 40]),  # nothing on the canvas
    (2, (1, 1), (7, 5), (7, 5), [0], [0]),
    (1, (3, 3), (1, 1), (2, 2), [1], [1]),
    (4, (7, 9), (5, 4), (5, 4), [0], [0]),  # shrinks
    (150, (3, 40), (17, 313), (17, 313), [0], [0]),
    (4, (7, 9), (7, 9), (7, 9), [0], [0]),
]


def image(n, c, h, w, dtype=torch.float64, seed=0):
    """A random image with distinct values, so that every maximum is unique."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randperm(n * c * h * w, generator=generator).double() / 100
    return (values.view(n, c, h, w) - values.mean()).to(dtype)


def maps(n, classes, h, w, dtype=torch.float32, seed=0):
    """(logits, mirrored), spread so that probabilities range over many powers of ten."""
    generator = torch.Generator().manual_seed(seed)
    return [(4 * torch.randn(n, classes, h, w, generator=generator)).to(dtype) for _ in range(2)]


def run_with_gradient(function, x, seed=1):
    """(outputs, gradient of the input) for random output gradients, the same for every call."""
    x = x.detach().requires_grad_()
    outputs = function(x)
    generator = torch.Generator().manual_seed(seed)
    grads = [torch.randn(o.shape, generator=generator, dtype=torch.float64).to(o.dtype)
             for o in outputs]
    torch.autograd.backward(outputs, grads)
    return [o.detach() for o in outputs], x.grad
