"""The step of the original's solver in one pass."""

import pytest
import torch

from pspnet_repro.training.solver import CaffeSGD

SHAPES = [(1,), (31,), (32,), (7, 5, 3, 3), (64, 33), (40, 30, 1, 1), (0, 4)]


class _ByRule(CaffeSGD):
    """The same, pass by pass: what a rule of its own has."""


def _parameters(dtype, memory_format):
    generator = torch.Generator().manual_seed(0)
    parameters = []
    for shape in SHAPES:
        values = torch.randn(shape, generator=generator, dtype=torch.double).to(dtype)
        if len(shape) == 4:
            values = values.contiguous(memory_format=memory_format)
        parameters.append(torch.nn.Parameter(values))
    return parameters


@pytest.mark.parametrize("decay", [0.0, 0.01])
@pytest.mark.parametrize("iter_size", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_one_pass_has_the_bits_of_the_rule(dtype, iter_size, decay):
    results = []
    for kind in (CaffeSGD, _ByRule):
        parameters = _parameters(dtype, torch.contiguous_format)
        solver = kind(parameters, 0.1, 0.9, decay, iter_size)
        generator = torch.Generator().manual_seed(1)
        for step in range(3):
            solver.set_rate(0.1 / (step + 1))
            for parameter in parameters:
                parameter.grad = torch.randn(parameter.shape, generator=generator,
                                             dtype=torch.double).to(dtype)
            before = [p.grad.clone() for p in parameters]
            solver.step()
            assert all(map(torch.equal, before, (p.grad for p in parameters)))
        results.append([*parameters, *(solver.state[p]["momentum_buffer"] for p in parameters)])
    if dtype == torch.float32:  # the original's type: its roundings are the rule
        assert all(map(torch.equal, *results))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


def test_layouts_of_weights_gradients_and_momentum_may_differ():
    results = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        parameters = _parameters(torch.float64, memory_format)
        solver = CaffeSGD(parameters, 0.1, 0.9, 0.01)
        for step in range(2):
            for parameter in parameters:
                parameter.grad = torch.full(parameter.shape, 1.0 + step).double()
            solver.step()
            if step == 0:  # as a file of the other layout leaves it
                for parameter in parameters:
                    state = solver.state[parameter]
                    state["momentum_buffer"] = state["momentum_buffer"].contiguous()
        results.append([p.detach() for p in parameters])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-14, atol=0)


def test_caffe_sgd_opcheck_and_refusals():
    weights, grads, buffers = ([torch.rand(5, 3), torch.rand(40)] for _ in range(3))
    operator, numbers = torch.ops.pspnet.caffe_sgd, (0.5, 0.1, 0.9, 0.01)
    torch.library.opcheck(operator, (weights, grads, buffers, *numbers))
    with pytest.raises(RuntimeError, match="grads and buffers must be as many as the 2 params, got "
                                           "1 and 2"):
        operator(weights, grads[:1], buffers, *numbers)
    with pytest.raises(RuntimeError, match=r"buffers must have shape \[5, 3\], got \[40\]"):
        operator(weights, grads, buffers[::-1], *numbers)
    with pytest.raises(RuntimeError, match="params must be float32 or float64, got Half"):
        operator([w.half() for w in weights], grads, buffers, *numbers)
    with pytest.raises(RuntimeError, match="params must be dense, got strides"):
        operator([torch.rand(5, 6)[:, ::2]], grads[:1], buffers[:1], *numbers)
    with pytest.raises(RuntimeError, match="buffers must have their params' strides"):
        operator(weights[:1], grads[:1], [torch.rand(3, 5).T], *numbers)
