"""Gradients that the exact layers add to those of earlier passes, in the original's order."""

import pytest
import torch
from torch import nn

from pspnet_repro import ops
from pspnet_repro.exact import linear, norm
from pspnet_repro.training.solver import CaffeSGD

pytestmark = pytest.mark.skipif(ops.USE_REFERENCE, reason="the reference has other orders of sums")
BIG = 2.0 ** 30  # 1 + BIG is BIG
ONE_BY_ONE = (1, 1), (0, 0), (1, 1), 1, (1, 1)


def _weight(layer):
    """A layer whose weight's gradient is the sum of its inputs; each image adds one."""
    return torch.zeros(1, 1, 1, 1), lambda terms, weight: layer(
        terms.view(-1, 1, 1, 1), weight, None, *ONE_BY_ONE).sum()


def _bias(layer):
    """A layer whose bias's gradient is the sum of what multiplies its outputs."""
    return torch.zeros(1), lambda terms, bias: (
        layer(torch.zeros(len(terms), 1, 1, 1), torch.ones(1, 1, 1, 1), bias, *ONE_BY_ONE)
        * terms.view(-1, 1, 1, 1)).sum()


def _shared():
    """An InnerProduct an input, all of one weight."""
    return torch.zeros(1, 1), lambda terms, weight: sum(
        linear.inner_product(term.view(1, 1), weight, None, False).sum() for term in terms)


LAYERS = {"convolution": _weight(linear.convolution), "convolution's bias":
          _bias(linear.convolution), "deconvolution": _weight(linear.deconvolution),
          "deconvolution's bias": _bias(linear.deconvolution), "shared": _shared()}


@pytest.mark.parametrize("name", LAYERS)
def test_a_solver_adds_every_product_to_the_gradient_that_is_there(name):
    start, loss = LAYERS[name]
    parameter = nn.Parameter(start)
    solver = CaffeSGD([parameter], 0.1, iter_size=2)
    for terms in ([1.0], [BIG, -BIG]):
        solver.backward(loss(torch.tensor(terms), parameter))
    assert parameter.grad.item() == 0


@pytest.mark.parametrize("name", LAYERS)
def test_outside_a_solver_gradients_are_autograds(name):
    start, loss = LAYERS[name]
    parameter = nn.Parameter(start)
    solver = CaffeSGD([parameter], 0.1, iter_size=2)
    with pytest.raises(RuntimeError, match="does not require grad"):
        solver.backward(torch.zeros(1))
    for terms in ([1.0], [BIG, -BIG]):
        loss(torch.tensor(terms), parameter).backward()
    assert parameter.grad.item() == 1
    gradient, = torch.autograd.grad(loss(torch.tensor([3.0]), parameter), parameter)
    assert gradient.item() == 3 and parameter.grad.item() == 1


def test_gradients_of_what_another_solver_learns_are_autograds():
    start, loss = LAYERS["convolution"]
    mine, other = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    solver = CaffeSGD([mine], 0.1)
    for terms in ([1.0], [BIG, -BIG]):
        terms = torch.tensor(terms)
        solver.backward(loss(terms, mine) + loss(terms, other))
    assert (mine.grad.item(), other.grad.item()) == (0, 1)


def test_two_passes_of_bn_are_one_sum():
    """With whole numbers, whose sums are exact."""
    generator = torch.Generator().manual_seed(0)
    slope, bias = (nn.Parameter(torch.ones(3)) for _ in range(2))
    solver = CaffeSGD([slope, bias], 0.1, iter_size=2)
    wanted = torch.zeros(2, 3)
    for _ in range(2):
        x, factors = torch.randint(-9, 9, (2, 2, 3, 5), generator=generator).float()
        y = norm.batch_norm(x, slope, bias, torch.zeros(3), torch.ones(3), 0.0, False, 0.9)
        solver.backward((y * factors).sum())
        wanted += torch.stack([(x * factors).sum((0, 2)), factors.sum((0, 2))])
    assert torch.equal(torch.stack([slope.grad, bias.grad]), wanted)
