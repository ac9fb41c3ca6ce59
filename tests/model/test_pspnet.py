"""The network: shapes, arguments, names and the receptive field."""

import re

import pytest
import torch
from helpers.networks import MINI, ROWS

from pspnet_repro import PSPNet, ops
from pspnet_repro.model.caffe_names import caffe_names
from pspnet_repro.model.resnet import MaxPool, ResNet
from pspnet_repro.sync_bn import SyncBatchNorm2d


@pytest.mark.parametrize("name", ROWS)
def test_rows_of_table_1(name):
    arguments, channels = ROWS[name]
    with torch.device("meta"):
        full = PSPNet(150, 50, **arguments)
    assert full.head.conv.conv.weight.shape == (512, channels, 3, 3)
    net = PSPNet(5, 50, **arguments, **MINI)
    x = torch.randn(2, 3, 89, 89)
    logits, aux_logits = net(x)
    assert logits.shape == aux_logits.shape == (2, 5, 12, 12)
    (logits.square().mean() + aux_logits.square().mean()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    net.eval()
    with torch.no_grad():
        scores = net(x)
    assert scores.shape == (2, 5, 89, 89) and scores.isfinite().all()


@pytest.mark.parametrize("depth, blocks", [(50, 16), (101, 33), (152, 50), (269, 89)])
def test_depths(depth, blocks):
    with torch.device("meta"):
        net = PSPNet(150, depth)
    count = sum(len(getattr(net.backbone, f"stage{k}")) for k in (2, 3, 4, 5))
    # Three convolutions a block, and the depth counts stem and classifier of the 7x7 ResNet.
    assert count == blocks and 3 * blocks + 2 == depth


def test_released_network_layer_for_layer(shared):
    """Every convolution and BN of the released PSPNet50: name, shape, stride, dilation, bias."""
    text = (shared / "prototxt" / "pspnet50_ADE20K_473.prototxt").read_text()
    released = {}
    for layer in re.split(r"\nlayer \{", text):
        kind = re.search(r'type: "(Convolution|BN)"', layer)
        if not kind:
            continue
        name = re.search(r'name: "([^"]+)"', layer).group(1)

        def number(field, default):
            found = re.search(rf"\b{field}: (\d+)", layer)
            return int(found.group(1)) if found else default

        released[name] = None if kind.group(1) == "BN" else (
            number("num_output", None), number("kernel_size", None), number("stride", 1),
            number("dilation", 1), number("pad", 0), "bias_term: false" not in layer)
    with torch.device("meta"):
        net = PSPNet(150, 50, aux=False)
    ours = {}
    for path, layer in caffe_names(net).items():
        module = net.get_submodule(path)
        ours[layer] = None if not isinstance(module, torch.nn.Conv2d) else (
            module.out_channels, module.kernel_size[0], module.stride[0], module.dilation[0],
            module.padding[0], module.bias is not None)
    assert ours == released


@pytest.mark.parametrize("depth, name", [(50, "conv4_7"), (101, "conv4_24")])
def test_auxiliary_names(depth, name):
    with torch.device("meta"):
        names = caffe_names(PSPNet(150, depth))
    assert names["auxiliary.conv.conv"] == name and names["auxiliary.conv.bn"] == f"{name}/bn"
    assert names["auxiliary.score"] == "conv6_1"


def test_caffe_names_are_one_to_one():
    with torch.device("meta"):
        for settings in ({}, {"stem": "classic"}, {"bins": (1,)}, {"reduce": False}):
            net = PSPNet(7, 50, **settings)
            names = caffe_names(net)
            assert len(set(names.values())) == len(names)
            owners = {key.rpartition(".")[0] for key in net.state_dict()}
            assert set(names) == owners


@pytest.mark.parametrize("stride_in", ["1x1", "3x3"])
def test_stride_place_changes_results_not_shapes(stride_in):
    a, b = (PSPNet(3, 50, stride_in=place, **MINI) for place in ("1x1", "3x3"))
    b.load_state_dict(a.state_dict())
    block = {"1x1": a, "3x3": b}[stride_in].backbone.stage3[0]
    assert (block.reduce.conv.stride, block.spatial.conv.stride) == (
        ((2, 2), (1, 1)) if stride_in == "1x1" else ((1, 1), (2, 2)))
    x = torch.randn(1, 3, 89, 89)
    with torch.no_grad():
        assert not torch.allclose(a.eval()(x), b.eval()(x))


def test_stride_place_defaults_as_released():
    with torch.device("meta"):
        assert PSPNet(3, 50).backbone.stage3[0].reduce.conv.stride == (2, 2)
        assert PSPNet(3, 101).backbone.stage3[0].spatial.conv.stride == (2, 2)


@pytest.mark.parametrize("strides, dilations, stride", [
    ((1, 2, 1, 1), (1, 1, 2, 4), 8), ((1, 2, 2, 1), (1, 1, 1, 2), 16),
    ((1, 2, 2, 2), (1, 1, 1, 1), 32)])
def test_dilation_on_or_off(strides, dilations, stride):
    net = PSPNet(3, 50, (1, 2), strides=strides, dilations=dilations, **MINI).eval()
    size = 2 * stride * 3 + 1
    with torch.no_grad():
        assert net.stride == stride
        assert net.logits(torch.randn(1, 3, size, size)).shape[2:] == (7, 7)
        assert net(torch.randn(1, 3, size, size)).shape[2:] == (size, size)


@pytest.mark.parametrize("stem, convolutions", [("deep", 3), ("classic", 1)])
def test_stems(stem, convolutions):
    net = PSPNet(3, 50, stem=stem, **MINI)
    assert len(net.backbone.stem) == convolutions
    assert net.logits(torch.randn(1, 3, 89, 89))[0].shape == (1, 3, 12, 12)


def test_half_width():
    with torch.device("meta"):
        net = PSPNet(3, 50, width=0.5)
    assert [getattr(net.backbone, f"stage{k}")[-1].increase.conv.out_channels
            for k in (2, 3, 4, 5)] == [128, 256, 512, 1024]
    assert net.settings.channels == (512, 1024)
    assert net.head.conv.conv.out_channels == 256 and net.auxiliary.conv.conv.out_channels == 128


def test_initial_weights():
    net = PSPNet(150, 50, width=0.5)
    weight = net.backbone.stage4[1].spatial.conv.weight
    fan_in = weight[0].numel()
    # 147456 draws: the sample deviation is within 1% of sqrt(2 / fan_in).
    assert weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.01)
    assert not net.head.score.bias.any()


def test_settings_rebuild_the_network():
    net = PSPNet(4, 101, (1, 3), "max", False, stride_in="1x1", **MINI)
    again = PSPNet(**net.settings)
    assert again.settings == net.settings
    again.load_state_dict(net.state_dict())


@pytest.mark.parametrize("one, other", [
    ({}, {"depth": 101, "blocks": (3, 4, 6, 3), "stride_in": "1x1"}),
    ({"width": 0.3}, {"widths": [19, 38, 77, 154]}),
    ({"bins": (), "pool": "max", "reduce": False}, {"bins": []}),
    ({"head_width": 512, "aux_width": 256, "initial_running_var": 0.0}, {}),
    ({"aux": False, "aux_width": 3}, {"aux": False}),
    ({"strides": (1, 1, 1, 1), "stride_in": "3x3"}, {"strides": (1, 1, 1, 1)}),
], ids=["depth", "width", "no-pyramid", "heads", "no-aux", "no-stride"])
def test_settings_say_the_same_of_the_same_network(one, other):
    with torch.device("meta"):
        one, other = PSPNet(3, **one), PSPNet(3, **other)
        again = PSPNet(**one.settings)
    assert one.settings == other.settings == again.settings
    for net in (other, again):
        assert ([(n, t.shape) for n, t in net.state_dict().items()]
                == [(n, t.shape) for n, t in one.state_dict().items()])


@pytest.mark.parametrize("settings", [
    {"stem": "classic", "dilations": (1, 1, 1, 1), "stride_in": "3x3"},
    {"stem": "deep", "dilations": (1, 1, 1, 1), "stride_in": "1x1"}], ids=["classic", "deep"])
def test_receptive_field_is_what_a_score_sees(settings):
    net = PSPNet(3, 50, (), **MINI, **settings).eval().double()
    size = 185
    middle = (size - 1) // net.stride // 2
    # Maximum and ReLU pass the gradient of some pixels only: several inputs together reach the
    # whole field, and none may reach beyond it.
    seen = torch.zeros(size, size, dtype=torch.bool)
    for _ in range(6):
        x = torch.randn(1, 3, size, size, dtype=torch.float64, requires_grad=True)
        net.logits(x)[0, :, middle, middle].sum().backward()
        seen |= x.grad[0].abs().sum(0) > 0
    rows, columns = (seen.any(axis).nonzero().flatten() for axis in (1, 0))
    field = net.receptive_field()
    for span in (rows, columns):
        reached = int(span[-1] - span[0]) + 1
        # The last pixels need the right arg-maximum at each edge of pool1.
        assert field - 4 <= reached <= field


def test_pyramid_sees_everything():
    net = PSPNet(3, 50, dilations=(1, 1, 1, 1), **MINI).eval().double()
    x = torch.randn(1, 3, 185, 185, dtype=torch.float64, requires_grad=True)
    net.logits(x)[0, :, 0, 0].sum().backward()
    assert x.grad[0, :, -8:, -8:].any()


@pytest.mark.parametrize("arguments, words", [
    ({"blocks": ()}, r"blocks must be 4 numbers of at least 1, got \(\)"),
    ({"width": 0.03, "bins": tuple(range(1, 80))}, "bins must name at most as many levels as the"),
    ({"stem_width": 0}, "stem_width must be 1 to 512, got 0"),
    ({"depth": 34}, "depth must be one of 50, 101, 152, 269, got 34"),
    ({"classes": 0}, "classes must be at least 1, got 0"),
    ({"pool": "median"}, "pool must be"),
    ({"bins": (0,)}, r"bins must be at least 1, got \(0,\)"),
    ({"blocks": (1, 1001, 1, 1)}, r"blocks must be at most 1000, got \(1, 1001, 1, 1\)"),
    ({"widths": (8, 8, 8, 5000)}, "widths must be at most 8 times"),
    ({"widths": (8, 8, 0, 8)}, r"widths must be 4 numbers of at least 1, got \(8, 8, 0, 8\)"),
    ({"head_width": 0}, "head_width and aux_width must be at least 1, got 0 and 256"),
    ({"backbone": "big"}, 'backbone must be "resnet", got'),
    ({"dropout": 1.5}, "dropout must be 0 to 1, got 1.5"),
    ({"stem": "round"}, "stem must be"),
    ({"stride_in": "5x5"}, "stride_in must be"),
    ({"blocks": (1, 1, 1)}, r"blocks must be 4 numbers of at least 1, got \(1, 1, 1\)"),
    ({"width": 0.001}, "width must be at most 8 and leave a channel of 64, got 0.001"),
    ({"width": float("nan")}, "width must be at most 8 and leave a channel of 64, got nan"),
    ({"variance": "none"}, "variance must be one of"),
])
def test_pspnet_rejects(arguments, words):
    with pytest.raises(ValueError, match=words):
        PSPNet(**{"classes": 3, **arguments})


def test_pspnet_rejects_sizes_that_upsampling_cannot_meet():
    net = PSPNet(3, 50, **MINI).eval()
    with pytest.raises(ValueError, match=r"crop sizes must be 8 \* k \+ 1 pixels, got 90"):
        net(torch.zeros(1, 3, 89, 90))


def test_pool_padding():
    """pool1 by hand: of 5 pixels windows 0-2, 2-4 without padding, 0-1, 1-3, 3-4 with it."""
    x = torch.tensor([[3.0, 1, 2, 0, 4]]).expand(5, 5)[None, None]
    assert MaxPool(0)(x)[0, 0, 0].tolist() == [3, 4]
    assert MaxPool(1)(x)[0, 0, 0].tolist() == [3, 2, 4]
    with pytest.raises(ValueError, match="pool_padding must be 0 or 1, got 2"):
        ResNet(blocks=(1, 1, 1, 1), pool_padding=2)


@pytest.mark.parametrize("asked", [{}, {"bn_momentum": 0.1}, {"bn_momentum": 0}])
def test_running_values_take_the_momentum_of_each_batch(asked):
    net = PSPNet(3, **MINI, **asked)
    momentum = asked.get("bn_momentum", 0.05)
    layers = [layer for layer in net.modules() if isinstance(layer, SyncBatchNorm2d)]
    assert {layer.momentum for layer in layers} == {momentum} and len(layers) > 20
    assert ("bn_momentum" in net.settings) == bool(asked)
    with pytest.raises(ValueError, match="bn_momentum must be 0 to 1, got 1.5"):
        PSPNet(3, bn_momentum=1.5)


def test_spatial_dropout_drops_whole_channels():
    net = PSPNet(3, **MINI, dropout=0.5, spatial_dropout=True)
    assert net.settings["spatial_dropout"]
    x = torch.ones(1, 64, 4, 4)
    torch.manual_seed(0)
    dropped = net.head.dropout(x).flatten(2)
    assert (dropped == dropped[:, :, :1]).all()
    assert 0 < (dropped[0, :, 0] == 0).sum() < 64


def test_original_arithmetic_is_another_order_of_sums():
    """In float32 it differs by rounding, in float64 not at all."""
    settings = {"width": 0.125, "stem_width": 8, "blocks": (1, 1, 1, 1), "dropout": 0.0,
                "variance": "biased", "head": "literal"}
    nets = [PSPNet(3, **settings, arithmetic=arithmetic) for arithmetic in ("torch", "original")]
    nets[1].load_state_dict(nets[0].state_dict())
    assert nets[1].settings["arithmetic"] == "original"
    x = torch.randn(2, 3, 89, 89)
    for dtype, equal in ((torch.float32, ops.USE_REFERENCE), (torch.float64, True)):
        ours, theirs = (torch.cat(net.to(dtype)(x.to(dtype))) for net in nets)
        assert torch.equal(ours, theirs) == equal
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("settings, words", [
    ({"arithmetic": "caffe"}, 'must be "torch" or "original", got \'caffe\''),
    ({"arithmetic": "original"}, "needs head \"literal\" and variance \"biased\", got "
                                 "'factorized' and 'unbiased'"),
    ({"arithmetic": "original", "variance": "biased", "head": "factorized"}, "got 'factorized'")])
def test_arithmetic_rejects(settings, words):
    with pytest.raises(ValueError, match=words):
        PSPNet(3, **settings)
