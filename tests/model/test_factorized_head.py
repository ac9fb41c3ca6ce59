"""The factorized head against the literal one."""

import copy

import pytest
import torch
import torch.nn.functional as F
from helpers.networks import MINI, ROWS
from torch.nn.parallel import DistributedDataParallel

from pspnet_repro import PSPNet, ops
from pspnet_repro.model.factorized_head import pyramid_conv2d, shifted_interpolation

# Height and width of maps: square, oblong, sizes that no bin but 1 divides, as small as allowed.
SIZES = [(12, 12), (13, 17), (6, 6), (7, 30), (60, 60)]


def literal(x, levels, weight):
    upsampled = [ops.interp2d(level, x.shape[2:]) for level in reversed(levels)]
    return F.conv2d(torch.cat([x, *upsampled], 1), weight, padding=1)


def arguments(bins, size, dtype=torch.float32, channels=24, reduced=6, outputs=16):
    x = torch.randn(2, channels, *size)
    levels = [torch.randn(2, reduced, b, b) for b in bins]
    weight = torch.randn(outputs, channels + reduced * len(bins), 3, 3)
    return [t.to(dtype).requires_grad_() for t in (x, *levels, weight)]


def error(actual, expected):
    """Largest error over the largest value."""
    return ((actual.double() - expected.double()).abs().max() / expected.abs().max()).item()


def results(function, tensors, grad_output):
    x, *levels, weight = tensors
    output = function(x, levels, weight)
    return [output, *torch.autograd.grad(output, tensors, grad_output.to(output.dtype))]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("bins", [(1,), (1, 2, 3, 6), (5, 1)], ids=str)
def test_pyramid_conv2d_matches_literal(bins, size):
    """Output (borders too: every tap weighs as much) and gradients of every argument."""
    tensors = arguments(bins, size)
    grad_output = torch.randn(2, 16, *size)
    output, *grads = results(pyramid_conv2d, tensors, grad_output)
    wanted, *wanted_grads = results(literal, tensors, grad_output)
    assert error(output, wanted) <= 1e-5
    assert max(map(error, grads, wanted_grads)) <= 1e-4


def test_pyramid_conv2d_pads_with_zeros():
    """Ones everywhere: 4 taps see the image in corners, 6 at edges, 9 inside."""
    ones = torch.ones(1, 1, 4, 5), [torch.ones(1, 1, b, b) for b in (1, 2)], torch.ones(1, 3, 3, 3)
    edge, inside = [12, 18, 18, 18, 12], [18, 27, 27, 27, 18]
    assert pyramid_conv2d(*ones)[0, 0].round(decimals=4).tolist() == [edge, inside, inside, edge]


def test_shifted_interpolation_by_hand():
    taps = shifted_interpolation(2, 3, torch.float32, "cpu")
    assert taps.tolist() == [[0, 1, 0.5], [0, 0, 0.5], [1, 0.5, 0], [0, 0.5, 1], [0.5, 0, 0],
                             [0.5, 1, 0]]


def test_pyramid_conv2d_in_float64_is_the_same_function():
    tensors = arguments((1, 2, 3), (7, 5), torch.float64)
    grad_output = torch.randn(2, 16, 7, 5, dtype=torch.float64)
    pairs = zip(results(pyramid_conv2d, tensors, grad_output),
                results(literal, tensors, grad_output), strict=True)
    assert max(error(a, b) for a, b in pairs) <= 1e-13


def test_pyramid_conv2d_gradcheck():
    tensors = arguments((1, 3), (4, 5), torch.float64, channels=2, reduced=1, outputs=2)
    assert torch.autograd.gradcheck(lambda x, a, b, weight: pyramid_conv2d(x, [a, b], weight),
                                    tensors)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("reduced", [6, 24], ids=["reduced", "whole"])
def test_pyramid_conv2d_dtypes(dtype, reduced):
    """Half types: as near to float64 as the literal head, over all elements."""
    tensors = arguments((1, 2, 3, 6), (17, 13), dtype, reduced=reduced)
    grad_output = torch.randn(2, 16, 17, 13).to(dtype)
    exact = results(literal, [t.detach().double().requires_grad_() for t in tensors], grad_output)
    ours, theirs = (results(f, tensors, grad_output) for f in (pyramid_conv2d, literal))

    def distance(tensor, wanted):
        assert tensor.dtype == dtype
        return ((tensor.double() - wanted).norm() / wanted.norm()).item()

    for a, b, wanted in zip(ours, theirs, exact, strict=True):
        # The literal head rounds upsampled maps and the result, this one the features' share and
        # the result: with equal shares errors of sqrt(1 + 1/2) in both, and up to sqrt(3/2) more
        # in this one where maps of few bins upsample without rounding.
        assert distance(a, wanted) <= 1.225 * distance(b, wanted)


def test_pyramid_conv2d_under_autocast_sums_taps_in_float32():
    tensors = arguments((1, 2, 3, 6), (12, 12))
    x, *levels, weight = [t.detach() for t in tensors]
    with torch.autocast("cpu", torch.bfloat16):
        output = pyramid_conv2d(torch.zeros_like(x), levels, weight)
    assert output.dtype == torch.bfloat16
    assert torch.equal(output, pyramid_conv2d(torch.zeros_like(x), levels, weight).bfloat16())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_pyramid_conv2d_sums_taps_in_float32_in_both_directions(dtype):
    """Without features, half types give what float32 gives, rounded once."""
    tensors = arguments((1, 2, 3, 6), (12, 15), dtype)
    with torch.no_grad():
        tensors[0].zero_()
    grad_output = torch.randn(2, 16, 12, 15).to(dtype)
    half = results(pyramid_conv2d, tensors, grad_output)
    wanted = results(pyramid_conv2d, [t.detach().float().requires_grad_() for t in tensors],
                     grad_output)
    channels = tensors[0].shape[1]
    output, _, *levels, weight = zip(half, wanted, strict=True)
    for a, b in (output, *levels, [grad[:, channels:] for grad in weight]):
        assert a.dtype == dtype and torch.equal(a, b.to(dtype))


def test_pyramid_conv2d_any_strides():
    x, *levels, weight = [t.detach() for t in arguments((1, 3), (9, 8))]
    wanted = pyramid_conv2d(x, levels, weight)
    strided = x.to(memory_format=torch.channels_last), [t.mT.contiguous().mT for t in levels]
    assert error(pyramid_conv2d(*strided, weight.mT.contiguous().mT), wanted) <= 1e-6


def test_pyramid_conv2d_of_no_images():
    """A process without images, whose batch normalization counts with the others."""
    x, *levels, weight = [t.detach() for t in arguments((1, 2), (9, 8))]
    output = pyramid_conv2d(x[:0], [level[:0] for level in levels], weight)
    assert output.shape == (0, 16, 9, 8)


@pytest.mark.slow
def test_pyramid_conv2d_compiles():
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(pyramid_conv2d, fullgraph=True, dynamic=True, backend=backend)
    for size in ((12, 14), (17, 21)):
        x, *levels, weight = arguments((1, 2, 3, 6), size)
        torch.testing.assert_close(compiled(x, levels, weight), pyramid_conv2d(x, levels, weight),
                                   rtol=0, atol=0)
    assert len(graphs) == 1, "sizes made the compiler start again"


@pytest.mark.slow
def test_pyramid_conv2d_compiles_gradients():
    tensors = arguments((1, 2, 3, 6), (12, 14))
    grad_output = torch.randn(2, 16, 12, 14)
    compiled = torch.compile(pyramid_conv2d, fullgraph=True, dynamic=True, backend="aot_eager")
    for a, b in zip(results(compiled, tensors, grad_output),
                    results(pyramid_conv2d, tensors, grad_output), strict=True):
        assert error(a, b) <= 1e-6


def both(**settings):
    nets = [PSPNet(5, head=head, dropout=0.0, **settings) for head in ("factorized", "literal")]
    nets[0].load_state_dict(nets[1].state_dict())
    return nets


@pytest.mark.parametrize("training", [True, False], ids=["training", "testing"])
@pytest.mark.parametrize("name", ROWS)
def test_rows_of_table_1_match_literal(name, training):
    """From the backbone's features on: through a whole network any rounding turns some ReLU."""
    nets = [net.train(training) for net in both(**ROWS[name][0], **MINI)]
    middle, channels = nets[0].settings.channels
    stage4, features = (torch.randn(2, c, 13, 17).relu() for c in (middle, channels))
    dy = torch.randn(2, 5, 13, 17)
    found = []
    for net in nets:
        x = features.clone().requires_grad_()
        net.backbone.forward = lambda _, x=x: (stage4, x)
        output = net.logits(None)
        output = output[0] if training else output
        parameters = [p for part in (net.pyramid, net.head) for p in part.parameters()
                      if p.requires_grad]
        grads = torch.autograd.grad(output, [x, *parameters], dy, allow_unused=not training)
        found.append((output, [g for g in grads if g is not None]))
    (output, grads), (wanted, wanted_grads) = found
    assert error(output, wanted) <= 1e-5 and len(grads) == len(wanted_grads)
    assert max(map(error, grads, wanted_grads)) <= 1e-4


def test_whole_network_matches_literal():
    nets = [net.double() for net in both(**MINI)]
    x = torch.randn(2, 3, 89, 137, dtype=torch.float64)
    for net in nets:
        logits, aux_logits = net(x)
        (logits.square().mean() + aux_logits.square().mean()).backward()
    for (name, a), b in zip(nets[0].named_parameters(), nets[1].parameters(), strict=True):
        assert error(a.grad, b.grad) <= 1e-8, name
    with torch.no_grad():
        assert error(nets[0].eval()(x), nets[1].eval()(x)) <= 1e-12


def test_heads_are_settings_of_the_same_parameters():
    factorized, head = both(**MINI)
    assert (factorized.settings["head"], head.settings["head"]) == ("factorized", "literal")
    assert PSPNet(5).settings["head"] == "factorized" and not PSPNet(**head.settings).factorized
    assert {**factorized.settings, "head": "literal"} == head.settings
    with torch.device("meta"):
        assert PSPNet(5, bins=(), head="literal").settings == PSPNet(5, bins=()).settings


def _step(net, x):
    net.zero_grad()
    logits, aux_logits = net(x)
    (logits.square().mean() + aux_logits.square().mean()).backward()
    return {name: p.grad.numpy() for name, p in net.named_parameters()}


def _parallel_step(rank, size):
    torch.manual_seed(0)
    net = PSPNet(5, dropout=0.0, variance="biased", **MINI).double()
    x = torch.randn(4, 3, 57, 65, dtype=torch.float64)
    if size == 1:
        return _step(net, x)
    part = copy.deepcopy(x[2 * rank:2 * rank + 2])
    return {name.removeprefix("module."): grad
            for name, grad in _step(DistributedDataParallel(net), part).items()}


@pytest.mark.dist
def test_distributed_data_parallel_matches_one_process(two):
    ranks = two.run(_parallel_step, 2)
    wanted = _parallel_step(0, 1)
    assert ranks[0].keys() == wanted.keys()
    for name, grad in wanted.items():
        for rank in ranks:
            assert abs(rank[name] - grad).max() <= 1e-9 * abs(grad).max(), name
