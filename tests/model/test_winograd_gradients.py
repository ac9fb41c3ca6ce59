"""Training by Winograd's convolution: its gradients against torch's in float64, and what is left to
torch."""

import pytest
import torch
import torch.nn.functional as F
from helpers.convolutions import drawn, error, needs_onednn
from helpers.networks import random_net
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from pspnet_repro import ops
from pspnet_repro.model import winograd


def gradients(conv2d, x, weight, grad, dilation):
    """(output, gradient of the maps, of the kernel)."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in (x, weight)]
    output = conv2d(*leaves, dilation)
    return output, *torch.autograd.grad(output, leaves, grad)


def by_torch(x, weight, dilation):
    return F.conv2d(x, weight, None, 1, dilation, dilation)


def trained(x, weight, dilation):
    return winograd.conv2d(x, weight, [dilation] * 2, (1, 1), [dilation] * 2)


@needs_onednn
@pytest.mark.parametrize("dilation", [1, 2, 4])
def test_winograd_gradients_match_float64(dilation):
    x, weight, _ = drawn(128, 144, (57, 59))
    grad = torch.randn(2, 144, 57, 59)
    wanted = gradients(by_torch, x.double(), weight.double(), grad.double(), dilation)
    for name, actual, plain, exact in zip(("output", "maps", "kernel"),
                                          gradients(trained, x, weight, grad, dilation),
                                          gradients(by_torch, x, weight, grad, dilation), wanted):
        # A tenth of what gradients of a whole network may differ.
        assert error(actual, exact) <= 1e-5, name
        assert not torch.equal(actual, plain), "not by Winograd"


@needs_onednn
def test_kernels_learn_from_several_images_at_once(monkeypatch):
    """Five images of nine tiles, by three because there are 32 channels; and none."""
    monkeypatch.setattr(winograd, "LEAST_TRAINED_TILES", 1)
    monkeypatch.setattr(winograd, "LEAST_CHANNELS", 16)
    x, weight, _ = drawn(32, 48, (11, 9), 5)
    grad = torch.randn(5, 48, 11, 9)
    wanted = gradients(by_torch, x.double(), weight.double(), grad.double(), 1)
    counts = []
    monkeypatch.setattr(ops, "winograd_tiles", lambda *args, tiles=ops.winograd_tiles: (
        counts.append(args[-1]), tiles(*args))[1])
    actual = gradients(trained, x, weight, grad, 1)
    assert counts[-4:] == [27, 27, 18, 18]
    assert error(actual[2], wanted[2]) <= 1e-5
    assert not gradients(trained, x[:0], weight, grad[:0], 1)[2].any()


@pytest.mark.parametrize("capability", ["AVX2", "AVX512"])
def test_pointwise_gradients_match_float64(capability, monkeypatch):
    """Of maps that are channels last; of others bits are torch's, and of all with AVX-512."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    x, grad, weight = torch.randn(2, 24, 9, 7), torch.randn(2, 40, 9, 7), torch.randn(40, 24, 1, 1)

    def pointwise(x, weight, dilation):
        return winograd.conv2d(x, weight, (0, 0))

    def torch_pointwise(x, weight, dilation):
        return F.conv2d(x, weight)

    exact = gradients(torch_pointwise, x.double(), weight.double(), grad.double(), 1)
    for layout in (torch.channels_last, torch.contiguous_format):
        x, grad = (maps.contiguous(memory_format=layout) for maps in (x, grad))
        for actual, plain, wanted in zip(gradients(pointwise, x, weight, grad, 1),
                                         gradients(torch_pointwise, x, weight, grad, 1), exact):
            assert error(actual, wanted) <= 1e-6 and actual.shape == plain.shape
            assert (capability == "AVX2" and layout == torch.channels_last
                    or torch.equal(actual, plain))


@needs_onednn
def test_winograd_trains_maps_that_are_large_enough_alone():
    """Elsewhere bits are torch's: recorded trainings of small crops repeat."""
    weight = torch.randn(128, 128, 3, 3, requires_grad=True)
    for size, channels, fast in ((57, 128, True), (56, 128, False), (57, 64, False)):
        x, kernel = torch.randn(1, channels, size, size), weight[:, :channels]
        assert torch.equal(trained(x, kernel, 1), by_torch(x, kernel, 1)) != fast
        with torch.no_grad():
            assert torch.equal(trained(x, kernel, 1), by_torch(x, kernel, 1))
    with torch.autocast("cpu", torch.bfloat16):
        assert trained(torch.randn(1, 128, 57, 57), weight, 1).dtype == torch.bfloat16
    with FakeTensorMode() as mode:
        fake = mode.from_tensor(torch.randn(1, 128, 57, 57))
        assert trained(fake, mode.from_tensor(weight), 1).shape == (1, 128, 57, 57)


@needs_onednn
def test_gradients_of_a_network_match_the_direct_ones(monkeypatch):
    """With all inputs of ReLU above 0: one on the other side is no rounding error."""
    net = random_net(widths=(16, 16, 128, 128), bins=(), dropout=0).train()
    for name, tensor in net.named_parameters():
        if name.endswith("bn.bias"):
            nn.init.constant_(tensor, 8)
    x, calls = 60 * torch.randn(2, 3, 449, 449), []
    weight_gradient = winograd._weight_gradient
    monkeypatch.setattr(winograd, "_weight_gradient",
                        lambda *rest: calls.append(rest) or weight_gradient(*rest))

    def step():
        net.zero_grad()
        logits, aux_logits = net(x)
        (logits.square().mean() + 0.4 * aux_logits.square().mean()).backward()
        # Those of BN are 0 but for rounding, as the next one undoes them.
        return [parameter.grad for parameter in net.parameters() if parameter.dim() == 4]

    actual = step()
    assert len(calls) >= 2
    monkeypatch.setattr(winograd, "LEAST_TRAINED_TILES", 10 ** 9)
    for grad, wanted in zip(actual, step(), strict=True):
        assert error(grad, wanted) <= 1e-4


@needs_onednn
def test_a_second_derivative_is_refused_and_a_trace_has_torchs_convolution():
    x, weight = torch.randn(1, 128, 60, 60), torch.randn(128, 128, 3, 3) / 34
    weight.requires_grad_()
    gradient, = torch.autograd.grad(winograd.conv2d(x, weight).square().sum(), weight,
                                    create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()
    traced = torch.jit.trace(winograd.conv2d, (x, weight), check_trace=False)
    assert [node.kind() for node in traced.graph.nodes()][-1] == "aten::_convolution"
