"""Multiply-adds against sums done by hand."""

import torch
import torch.nn.functional as F
from torch._subclasses import FakeTensorMode

from pspnet_repro import PSPNet, ops
from pspnet_repro.model.factorized_head import pyramid_conv2d
from pspnet_repro.model.multiply_adds import multiply_adds


def total(function, *inputs):
    return sum(multiply_adds(function, *inputs).values())


def test_multiply_adds_by_hand():
    x = torch.zeros(2, 3, 6, 8)
    weight = torch.zeros(5, 3, 3, 3)
    # 2 images x 5 x 6 x 8 outputs of 3 x 3 x 3 products each, whatever the padding hides.
    assert multiply_adds(lambda: F.conv2d(x, weight, padding=1)) == {
        "aten.convolution": 2 * 5 * 6 * 8 * 27}
    assert multiply_adds(lambda: x.flatten(0, 2) @ torch.zeros(8, 7)) == {"aten.mm": 36 * 8 * 7}
    assert total(lambda: x.relu() + x) == 0
    # Four neighbours for each of 2 x 3 x 12 x 10 pixels.
    assert total(ops.interp2d, x, (12, 10)) == 4 * 720
    assert total(ops.pyramid_pool2d, x, (1, 2)) == 2 * 288
    assert total(lambda: ops.pyramid_pool2d(x, (3,), "max")) == 288
    # 4 x 4 windows of 3 x 2 pixels in each of 6 planes.
    assert total(lambda: ops.window_pool2d(x, (3, 2), 2, (1, 0), "max")) == 6 * 16 * 6
    assert total(lambda: ops.window_pool2d(x, (3, 2), 2, (1, 0))) == 6 * 16 * 6
    c = torch.ones(3)
    assert total(lambda: ops.batch_norm_normalize(x, c, c, c, c, True)) == 288


def test_factorized_head_by_hand():
    """One level of 2 x 2 bins and 5 channels beside 3, to 4 outputs on a map of 6 x 8."""
    counts = multiply_adds(pyramid_conv2d, torch.zeros(1, 3, 6, 8), [torch.zeros(1, 5, 2, 2)],
                           torch.zeros(4, 8, 3, 3))
    own = 4 * 48 * 27
    taps = 4 * 9 * 5 * 4
    columns, rows = 4 * 6 * 6 * 8, 4 * 6 * 6 * 8
    matrices = 4 * (6 * 2 + 2 * 8)
    assert sum(counts.values()) == own + taps + columns + rows + matrices


def released(**settings):
    """GMAC of a pass of PSPNet50 at 473 for testing."""
    with FakeTensorMode():
        net = PSPNet(150, **settings).eval()
        return total(net.logits, torch.empty(1, 3, 473, 473)) / 1e9


def test_pspnet50_at_half_the_heads_arithmetic():
    """The original's convolutions are 161.5 GMAC (pspnet inspect)."""
    assert 161.5 < released(head="literal") < 163
    assert released() <= 130
    # Without reduction the concatenation has 10240 channels.
    assert released(head="literal", reduce=False) > 2 * released(reduce=False) > 240
