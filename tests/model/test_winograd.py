"""Winograd's convolution against torch's in float64, and its two operators."""

import re

import pytest
import torch
import torch.nn.functional as F
from helpers.convolutions import drawn, error, needs_onednn
from helpers.networks import random_net
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from pspnet_repro import ops
from pspnet_repro.model import winograd
from pspnet_repro.model.fused import FusedConv
from pspnet_repro.ops import reference

SIZES = [(60, 60), (13, 17), (1, 1), (4, 9), (3, 40)]


def exact(x, weight, bias, dilation):
    return F.conv2d(x.double(), weight.double(), bias.double(), 1, dilation, dilation)


def test_matrices_by_the_product_of_polynomials():
    """In one axis, in float64: 4 sums of 3 products; A and B are exact in float32."""
    a, g, b = winograd.matrices()
    kernel, values = torch.randn(3, dtype=torch.float64), torch.randn(6, dtype=torch.float64)
    wanted = values.unfold(0, 3, 1) @ kernel
    torch.testing.assert_close(a @ ((g @ kernel) * (b @ values)), wanted, rtol=0, atol=1e-13)
    assert torch.equal(a.float().double(), a) and torch.equal(b.float().double(), b)


@needs_onednn
@pytest.mark.parametrize("dilation", [1, 2, 3, 4])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_winograd_matches_float64(size, dilation):
    x, weight, bias = drawn(64, 80, size)
    conv = winograd.WinogradConv(weight, bias, dilation)
    wanted = exact(x, weight, bias, dilation)
    # Five times torch's own error, as winograd.py says, at most ten.
    allowed = 10 * max(error(F.conv2d(x, weight, bias, 1, dilation, dilation), wanted), 1e-7)
    for given in (x, x.contiguous(memory_format=torch.channels_last)):
        output = conv(given, relu=False)
        assert output.is_contiguous(memory_format=torch.channels_last)
        assert error(output, wanted) <= allowed
        assert torch.equal(conv(given, relu=True), output.relu())
    other = torch.randn_like(output)
    sums = other.clone(memory_format=torch.preserve_format)
    assert conv.add_to(sums, x, relu=True) is sums
    torch.testing.assert_close(sums, (output + other).relu(), rtol=1e-6, atol=1e-6)


@needs_onednn
@pytest.mark.parametrize("channels", [256, 2048])
def test_winograd_loses_little_over_many_channels(channels):
    x, weight, bias = drawn(channels, 64, (20, 20), images=1)
    wanted = exact(x, weight, bias, 1)
    found = error(winograd.WinogradConv(weight, bias, 1)(x, relu=False), wanted)
    assert found <= 10 * error(F.conv2d(x, weight, bias, padding=1), wanted)


@needs_onednn
def test_winograd_repeats_bitwise_in_any_batch():
    x, weight, bias = drawn(64, 64, (21, 18), images=3)
    conv = winograd.WinogradConv(weight, bias, 2)
    wanted = conv(x, relu=False)
    assert conv(x[..., :9], relu=False).shape == (3, 64, 21, 9)  # other weights in between
    assert torch.equal(conv(x, relu=False), wanted)
    assert torch.equal(conv(x[1:2], relu=False), wanted[1:2])
    assert conv(x[:0], relu=False).shape == (0, 64, 21, 18)


@pytest.mark.parametrize("change, fit", [
    ({}, True), ({"dilation": 4, "padding": 4}, True), ({"in_channels": 64}, False),
    ({"out_channels": 136}, False), ({"kernel_size": 1, "padding": 0}, False),
    ({"stride": 2}, False), ({"padding": 0}, False), ({"groups": 2}, False),
    ({"dilation": 2}, False), ({"dtype": torch.bfloat16}, False)])
def test_winograd_fits_its_form_alone(change, fit):
    conv = nn.Conv2d(**{"in_channels": 128, "out_channels": 256, "kernel_size": 3, "padding": 1}
                     | change)
    assert winograd.fits(conv.weight, conv.padding, conv.stride, conv.dilation,
                         conv.groups) == fit


@needs_onednn
@torch.no_grad()
def test_fused_convolutions_choose_by_the_map(monkeypatch):
    """Small and huge maps take the direct convolution and do not make the other weights."""
    conv = nn.Conv2d(128, 128, 3, padding=2, dilation=2)
    fused = FusedConv(conv, conv.weight.detach(), conv.bias.detach(), relu=True)
    monkeypatch.setattr(winograd, "MOST_TILES", 100)
    for size, fast in ((24, False), (41, False), (32, True)):
        x = torch.randn(1, 128, size, size)
        wanted = exact(x, conv.weight, conv.bias, 2)
        assert error(fused(x), wanted.relu()) <= 1e-5
        other = torch.randn(1, 128, size, size).contiguous(memory_format=torch.channels_last)
        assert error(fused.add_to(other.clone(memory_format=torch.preserve_format), x),
                     (other + wanted).relu()) <= 1e-5
        assert ("_fast" in vars(fused)) == fast


@needs_onednn
@torch.no_grad()
def test_fused_networks_use_it(monkeypatch):
    monkeypatch.setattr(winograd, "LEAST_CHANNELS", 16)
    monkeypatch.setattr(winograd, "LEAST_TILES", 1)
    net = random_net(widths=(16, 16, 16, 32))
    fused = net.for_inference()
    x = 60 * torch.randn(2, 3, 89, 97)
    wanted = net.logits(x)
    assert error(fused.logits(x), wanted) <= 2e-5
    assert sum("_fast" in vars(part) for part in fused.modules()) >= 4


def products(tiles, outputs):
    return torch.randn(tiles, 36, outputs)


@pytest.mark.parametrize("dilation", [1, 2, 5])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_winograd_operators_match_reference(size, dilation):
    x = torch.randn(2, 32, *size)
    before, after = (matrix.float() for matrix in winograd.matrices()[::-2])
    total = winograd.tiles_of(2, *size, dilation)
    for first, count in ((0, total), (total // 3, total // 2), (total, 0)):
        tiles = ops.winograd_tiles(x, before, dilation, first, count)
        wanted = reference.winograd_tiles(x.double(), before.double(), dilation, first, count)
        # Sums of 36 products of values up to 4 with weights up to 8.
        torch.testing.assert_close(tiles.double(), wanted, rtol=0, atol=1e-4)
        assert torch.equal(ops.winograd_tiles(x.mT.contiguous().mT, before, dilation, first,
                                              count), tiles)
        own = after.T.contiguous()
        torch.testing.assert_close(
            ops.winograd_tiles(x, own, dilation, first, count).double(),
            reference.winograd_tiles(x.double(), own.double(), dilation, first, count),
            rtol=0, atol=1e-4)
        p, bias = products(count, 32), torch.randn(32)
        for add, relu in ((False, False), (True, True)):
            output = torch.randn(2, 32, *size).contiguous(memory_format=torch.channels_last)
            wanted = output.double()
            ops.winograd_pixels(output, p, after, bias, dilation, first, add, relu)
            reference.winograd_pixels(wanted, p.double(), after.double(), bias.double(), dilation,
                                      first, add, relu)
            torch.testing.assert_close(output.double(), wanted, rtol=0, atol=1e-4)


def test_winograd_pixels_keeps_nan():
    output = torch.zeros(1, 16, 4, 4).contiguous(memory_format=torch.channels_last)
    p = torch.zeros(1, 36, 16)
    p[0, 0, 3] = torch.nan
    ops.winograd_pixels(output, p, winograd.matrices()[0].float(), torch.zeros(16), 1, 0, True,
                        True)
    assert output[0, 3, 0, 0].isnan() and not output[0, 2].isnan().any()


def operands(changes):
    arguments = {
        "input": torch.zeros(2, 16, 9, 9), "before": torch.zeros(6, 6),
        "output": torch.zeros(2, 16, 9, 9).contiguous(memory_format=torch.channels_last),
        "products": torch.zeros(3, 36, 16), "after": torch.zeros(4, 6), "bias": torch.zeros(16),
        "dilation": 1, "first": 4, "count": 3} | changes
    tiles = [arguments[k] for k in ("input", "before", "dilation", "first", "count")]
    pixels = [arguments[k] for k in ("output", "products", "after", "bias", "dilation", "first")]
    return tiles, [*pixels, False, False]


def test_winograd_operators_opcheck():
    tiles, pixels = operands({})
    torch.library.opcheck(torch.ops.pspnet.winograd_tiles.default, tiles)
    torch.library.opcheck(torch.ops.pspnet.winograd_pixels.default, pixels)


REFUSED = [
    ({"input": torch.zeros(16, 9, 9)}, "input must be 4-D (N, C, H, W), got 3-D"),
    ({"input": torch.zeros(2, 17, 9, 9)}, "input must have a multiple of 16 channels, got 17"),
    ({"dilation": 0}, "dilation must be 1 to 1048576, got 0"),
    ({"first": -1}, "first and count must lie within the 18 tiles, got -1 and 3"),
    ({"first": 16}, "first and count must lie within the 18 tiles, got 16 and 3"),
    ({"before": torch.zeros(4, 6), "after": torch.zeros(6, 6)}, " float32 on the CPU, got [")]
REFUSED_PIXELS = [
    ({"output": torch.zeros(2, 16, 9, 9)}, "output must be channels last, got strides"),
    ({"products": torch.zeros(3, 36, 32)}, "products must be (count, 36, channels) with the "
                                           "output's 16 channels, got shape [3, 36, 32]"),
    ({"bias": torch.zeros(15)}, "bias must have shape [16], got [15]")]


@pytest.mark.parametrize("fake", [False, True], ids=["real", "fake"])
@pytest.mark.parametrize("changes, words", REFUSED + REFUSED_PIXELS,
                         ids=[words[:40] for _, words in REFUSED + REFUSED_PIXELS])
def test_winograd_operators_reject(changes, words, fake):
    tiles, pixels = operands(changes)
    calls = [] if (changes, words) in REFUSED_PIXELS else [(ops.winograd_tiles, tiles)]
    calls += [] if "input" in changes else [(ops.winograd_pixels, pixels)]
    for function, arguments in calls:
        with pytest.raises(RuntimeError, match=re.escape(words)):
            if fake:
                with FakeTensorMode() as mode:
                    function(*(mode.from_tensor(a) if isinstance(a, torch.Tensor) else a
                               for a in arguments))
            else:
                function(*arguments)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_winograd_operators_reject_other_dtypes(dtype):
    tiles, pixels = operands({})
    with pytest.raises(RuntimeError, match="input must be float32, got"):
        ops.winograd_tiles(tiles[0].to(dtype), *tiles[1:])
    with pytest.raises(RuntimeError, match="products must be"):
        ops.winograd_pixels(pixels[0], pixels[1].to(dtype), *pixels[2:])
