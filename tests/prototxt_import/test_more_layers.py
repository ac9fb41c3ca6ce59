"""Layers of BVLC's Caffe, caffe-segnet and other forks: values by hand."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.caffe_layers import build, layer
from helpers.golden import assert_same_bits, golden_files, read_golden

from prototxt_import import load_net

X = [[-2.0, -1.0, 0.0, 1.0, 2.0, 4.0]]
E2 = math.exp(2)
# layer, x, y by hand
VALUES = {
    "abs": (layer("AbsVal"), X, [[2, 1, 0, 1, 2, 4]]),
    "elu": (layer("ELU", "elu_param { alpha: 2 }"), [[-math.log(2), 0.0, 3]], [[-1, 0, 3]]),
    "bnll": (layer("BNLL"), [[0.0, 800, -800]], [[math.log(2), 800, 0]]),
    "exp": (layer("Exp", "exp_param { base: 2 scale: 2 shift: 1 }"), [[0.0, 1, -0.5]], [[2, 8, 1]]),
    "exp e": (layer("Exp", "exp_param { shift: 1 }"), [[0.0, 1]], [[math.e, E2]]),
    "log": (layer("Log", "log_param { base: 2 scale: 3 shift: 1 }"), [[0.0, 1, 5]], [[0, 2, 4]]),
    "threshold": (layer("Threshold", "threshold_param { threshold: 1 }"), X, [[0, 0, 0, 0, 1, 1]]),
    "threshold 0": (layer("Threshold"), X, [[0, 0, 0, 1, 1, 1]]),
    "swish": (layer("Swish", "swish_param { beta: 2 }"), [[0.0, math.log(3) / 2]],
              [[0, math.log(3) * 0.375]]),
    "clip": (layer("Clip", "clip_param { min: -1 max: 2 }"), X, [[-1, -1, 0, 1, 2, 2]]),
    "tile": (layer("Tile", "tile_param { axis: 0 tiles: 2 }"), [[1.0, 2]], [[1, 2], [1, 2]]),
    "tile last": (layer("Tile", "tile_param { axis: -1 tiles: 2 }"), [[1.0, 2], [3, 4]],
                  [[1, 2, 1, 2], [3, 4, 3, 4]]),
    "sum": (layer("Reduction"), X, 4),
    "mean": (layer("Reduction", "reduction_param { operation: MEAN axis: -1 coeff: 3 }"), X, [2]),
    "asum": (layer("Reduction", "reduction_param { operation: ASUM axis: 1 }"), X, [10]),
    "sumsq": (layer("Reduction", "reduction_param { operation: SUMSQ axis: 1 coeff: 2 }"), X, [52]),
    "mvn": (layer("MVN"), [[1.0, 3]], [[0, 0]]),
    "mvn across": (layer("MVN", "mvn_param { across_channels: true }"), [[1.0, 3]], [[-1, 1]]),
    "mvn eps": (layer("MVN", "mvn_param { across_channels: true eps: 1 }"), [[1.0, 3]],
                [[-0.5, 0.5]]),
    "mvn mean": (layer("MVN", "mvn_param { normalize_variance: false }"), [[[1.0, 4]]],
                 [[[-1.5, 1.5]]]),
    "lrn": (layer("LRN", "lrn_param { local_size: 3 alpha: 3 beta: 1 k: 2 }"),
            [[[[1.0]], [[2.0]], [[3.0]]]], [[[[1 / 7]], [[2 / 16]], [[3 / 15]]]]),
    "lrn wide": (layer("LRN", "lrn_param { local_size: 999999 alpha: 999999 beta: 1 }"),
                 [[[[1.0]], [[2.0]]]], [[[[1 / 6]], [[2 / 6]]]]),
    "lrn within": (layer("LRN", "lrn_param { local_size: 3 alpha: 9 beta: 2 k: 5 norm_region: "
                                "WITHIN_CHANNEL }"), [[[[1.0, 2.0]]]], [[[[1 / 36, 2 / 36]]]]),
    "segnet bn": (layer("BN", "bn_param { scale_filler { value: 2 } shift_filler { value: 1 } }"),
                  [[[[1.0, 3.0]]]], [[[[-1, 3]]]]),
    "segnet bn inference": (
        layer("BN", "bn_param { bn_mode: INFERENCE scale_filler { value: 2 } }"),
        [[[[1.0, 3.0]]]], [[[[2, 6]]]]),
    "floor": (layer("Pooling", "pooling_param { kernel_size: 2 stride: 2 round_mode: FLOOR }"),
              [[[[1.0, 2, 9], [3, 4, 9], [9, 9, 9]]]], [[[[4]]]]),
    "relu 6": (layer("ReLU6"), [[-1.0, 0, 3, 6, 7]], [[0, 0, 3, 6, 6]]),
    "permute": (layer("Permute", "permute_param { order: 0 order: 2 }"), [[[1.0, 2], [3, 4]]],
                [[[1, 3], [2, 4]]]),
    "shuffle": (layer("ShuffleChannel", "shuffle_channel_param { group: 2 }"),
                [[1.0, 2, 3, 4, 5, 6]], [[1, 4, 2, 5, 3, 6]]),
    "normalize": (layer("Normalize", "norm_param { across_spatial: false scale_filler { value: 2 } "
                        "eps: 1e-20 }"), [[[[3.0]], [[-4.0]]]], [[[[1.2]], [[-1.6]]]]),
    "normalize vector": (layer("Normalize"), [[3.0, 4]], [[0.6, 0.8]]),
    "normalize item": (layer("Normalize", "norm_param { channel_shared: false eps: 9 }"),
                       [[[[4.0, 0]], [[0.0, 0]]]], [[[[0.8, 0]], [[0, 0]]]]),
    "depthwise": (layer("ConvolutionDepthwise", "convolution_param { num_output: 2 kernel_size: 1 "
                        "weight_filler { value: 3 } }"), [[[[1.0]], [[2.0]]]], [[[[3]], [[6]]]]),
    "depthwise without group": (
        layer("DepthwiseConvolution", "convolution_param { num_output: 2 kernel_size: 1 "
              "bias_term: False weight_filler { value: 3 } }"),
        [[[[1.0]], [[2.0]]]], [[[[3]], [[6]]]]),
    "depthwise with a group": (
        layer("DepthwiseConvolution", "convolution_param { num_output: 2 kernel_size: 1 group: 1 "
              "weight_filler { value: 3 } }"), [[[[1.0]], [[2.0]]]], [[[[9]], [[9]]]]),
    "hole": (layer("Convolution", "convolution_param { num_output: 1 kernel_h: 1 kernel_w: 2 "
                   "hole: 2 weight_filler { value: 1 } }"), [[[[1.0, 2, 4, 8]]]], [[[[5, 10]]]]),
    "no ceil": (layer("Pooling", "pooling_param { kernel_size: 2 stride: 2 ceil_mode: false }"),
                [[[[1.0, 2, 9], [3, 4, 9], [9, 9, 9]]]], [[[[4]]]]),
}


@pytest.mark.parametrize(("text", "x", "y"), VALUES.values(), ids=VALUES)
def test_value_by_hand(tmp_path, text, x, y):
    for phase in ("TRAIN", "TEST"):
        net = build(tmp_path, text, [np.shape(x)], phase)
        got = net(x=torch.tensor(x, dtype=torch.float64))["y"]
        torch.testing.assert_close(got, torch.tensor(y, dtype=torch.float64))
        assert tuple(got.shape) == net.shapes["y"]


MASK = [[[[0.0, 3], [3, 8]]]]
HINGE = [[0.5, -3.0], [2.0, 0.0]]
# layer, x, z, y by hand
TWO = {
    "crop": (layer("Crop", "crop_param { offset: 1 }", "xz"), [[[[1.0, 2], [3, 4]]]], [[[[0.0]]]],
             [[[[4]]]]),
    "crop axis": (layer("Crop", "crop_param { axis: -2 offset: 0 offset: 1 }", "xz"),
                  [[1.0, 2, 3], [4, 5, 6]], [[0.0, 0]], [[2, 3]]),
    "upsample": (layer("Upsample", "upsample_param { upsample_h: 3 upsample_w: 3 }", "xz"),
                 [[[[1.0, 2], [3, 4]]]], MASK, [[[[1, 0, 0], [3, 0, 0], [0, 0, 4]]]]),
    "upsample pad": (layer("Upsample", "upsample_param { pad_out_h: true }", "xz"),
                     [[[[1.0, 2], [3, 4]]]], MASK, [[[[1, 0, 0, 3], [0, 0, 0, 0], [4, 0, 0, 0]]]]),
    "unpooling": (layer("Unpooling", "unpooling_param { kernel_size: 2 stride: 2 unpool_size: 3 }",
                        "xz"), [[[[1.0, 2], [3, 4]]]], MASK, [[[[1, 0, 0], [3, 0, 0], [0, 0, 4]]]]),
    "unpooling window": (layer("Unpooling", "unpooling_param { kernel_size: 3 stride: 2 pad: 1 }",
                               "xz"), [[[[1.0, 2], [3, 4]]]], MASK,
                         [[[[1, 0, 0], [3, 0, 0], [0, 0, 4]]]]),
    "upsample scales": (layer("Upsample", "upsample_param { scale_h: 2 scale_w: 3 }", "xz"),
                        [[[[1.0]]]], [[[[5.0]]]], [[[[0, 0, 0], [0, 0, 1]]]]),
    "hinge": (layer("HingeLoss", "", "xz"), HINGE, [0, 1], (0.5 + 0 + 3 + 1) / 2),
    "hinge squares": (layer("HingeLoss", "hinge_loss_param { norm: L2 }", "xz"), HINGE, [0, 1],
                      (0.25 + 0 + 9 + 1) / 2),
    "euclidean": (layer("EuclideanLoss", "", "xz"), [[1.0, 2], [3, 4]], [[1.0, 0], [0, 4]],
                  (4 + 9) / 4),
    "cross entropy": (layer("SigmoidCrossEntropyLoss", "", "xz"), [[0.0, math.log(3)]], [[1, 0.5]],
                      math.log(2) + math.log(4) - math.log(3) / 2),
    "cross entropy far": (layer("SigmoidCrossEntropyLoss", "", "xz"), [[800.0, -800]], [[0, 1]],
                          1600),
    "cross entropy ignored": (
        layer("SigmoidCrossEntropyLoss", "loss_param { ignore_label: -1 normalize: true }", "xz"),
        [[0.0, 5.0], [0.0, 0.0]], [[1, -1], [0, -1]], math.log(2)),
    "cross entropy none": (
        layer("SigmoidCrossEntropyLoss", "loss_param { ignore_label: 9 normalization: VALID }",
              "xz"), [[0.0]], [[9]], 0),
    "weighted loss": (
        layer("SoftmaxWithLoss", "loss_param { weight_by_label_freqs: true class_weighting: 2 "
                                 "class_weighting: 3 ignore_label: 255 }", "xz"),
        [[0.0, 0], [0, 0], [0, 0]], [0, 1, 255], math.log(2) * 5 / 2),
    "weighted full": (
        layer("SoftmaxWithLoss", "loss_param { weight_by_label_freqs: true class_weighting: 2 "
                                 "class_weighting: 3 ignore_label: 255 normalization: FULL }",
              "xz"), [[0.0, 0], [0, 0]], [0, 255], math.log(2)),
    "weighted unlabelled": (
        layer("SoftmaxWithLoss", "loss_param { weight_by_label_freqs: true class_weighting: 2 "
                                 "class_weighting: 3 ignore_label: 255 }", "xz"),
        [[0.0, 0]], [255], math.nan),
    "accuracy beyond": (layer("Accuracy", "", "xz"), [[0.1, 0.9], [0.8, 0.2]], [1, 2], 0.5),
    "seg accuracy": (layer("SegAccuracy", "seg_accuracy_param { ignore_label: 255 }", "xz"),
                     [[[[3.0, 1, 1, 1]], [[2, 2, 2, 2]], [[1, 1, 1, 1]], [[0, 0, 0, 0]]]],
                     [[[[0, 0, 1, 255]]]],
                     [[[[2 / 3, (1 / 2 + 1) / 2, (1 / 2 + 1 / 2 + 1 + 1) / 4]]]]),
    "seg accuracy unlabelled": (
        layer("SegAccuracy", "seg_accuracy_param { ignore_label: 255 ignore_label: 7 }", "xz"),
        [[[[1.0, 1]], [[0, 0]]]], [[[[255, 7]]]], [[[[0, 0, 1]]]]),
    "seg accuracy tie": (layer("SegAccuracy", "", "xz"), [[[[1.0]], [[1.0]]]], [[[[1]]]],
                         [[[[1, 1, 1]]]]),
}


@pytest.mark.parametrize(("text", "x", "z", "y"), TWO.values(), ids=TWO)
def test_value_of_two_bottoms_by_hand(tmp_path, text, x, z, y):
    x, z = (torch.tensor(v, dtype=torch.float64) for v in (x, z))
    net = build(tmp_path, text, [x.shape, z.shape])
    got = net(x=x, z=z)["y"]
    torch.testing.assert_close(got, torch.tensor(y, dtype=torch.float64), equal_nan=True)
    assert tuple(got.shape) == net.shapes["y"]


@pytest.mark.parametrize("wide", [(), (1, 1)])
def test_axpy(tmp_path, wide):
    net = build(tmp_path, layer("Axpy", "", "xzw"), [(1, 2, *wide), (1, 2, 1, 2), (1, 2, 1, 2)])
    y = net(x=torch.tensor([2.0, 3]).view(1, 2, *wide), z=torch.ones(1, 2, 1, 2),
            w=torch.arange(4).view(1, 2, 1, 2))["y"]
    assert y.tolist() == [[[[2, 3]], [[5, 6]]]]


def _attention(x, masks, size, collect):
    """Position by position, as the layer is defined."""
    n, _, height, width = x.shape
    y = torch.zeros_like(x)
    for h in range(height):
        for w in range(width):
            for i in range(size[0]):
                for j in range(size[1]):
                    row, column = h + i - size[0] // 2, w + j - size[1] // 2
                    if 0 <= row < height and 0 <= column < width:
                        weight = masks[:, i * size[1] + j, h, w].view(n, 1)
                        if collect:
                            y[:, :, h, w] += weight * x[:, :, row, column]
                        else:
                            y[:, :, row, column] += weight * x[:, :, h, w]
    return y


@pytest.mark.parametrize("kind", ["COLLECT", "DISTRIBUTE"])
@pytest.mark.parametrize("size", [None, (3, 5), (9, 3)])
def test_pointwise_spatial_attention(tmp_path, kind, size):
    height, width = size or (5, 7)
    fields = f"psa_type: {kind} "
    if size:
        fields += (f"attention_mask_height: {height} attention_mask_width: {width} "
                   "normalization_factor: 2")
    net = build(tmp_path, layer("PointwiseSpatialAttention",
                                f"pointwise_spatial_attention_param {{ {fields} }}", "xz"),
                [(2, 3, 3, 4), (2, height * width, 3, 4)])
    x = torch.randn(2, 3, 3, 4, dtype=torch.float64, requires_grad=True)
    z = torch.randn(2, height * width, 3, 4, dtype=torch.float64, requires_grad=True)
    wanted = _attention(x.detach(), z.detach(), (height, width), kind == "COLLECT")
    torch.testing.assert_close(net(x=x, z=z)["y"], wanted / (2 if size else height * width))
    assert torch.autograd.gradcheck(lambda x, z: net(x=x, z=z)["y"], (x, z))


def test_pointwise_spatial_attention_with_softmax(tmp_path):
    text = layer("PointwiseSpatialAttention", "pointwise_spatial_attention_param { is_softmax: true"
                 " attention_mask_height: 3 attention_mask_width: 3 normalization_factor: 1 }",
                 "xz")
    net = build(tmp_path, text, [(1, 1, 4, 4), (1, 9, 4, 4)])
    # Positions outside the mask weigh as e^0, so equal weights give the mean of the plane.
    x = torch.arange(16, dtype=torch.float64).view(1, 1, 4, 4)
    torch.testing.assert_close(net(x=x, z=torch.zeros(1, 9, 4, 4, dtype=x.dtype))["y"],
                               torch.full_like(x, 7.5))


def test_upsample_of_positions_that_meet(tmp_path):
    net = build(tmp_path, layer("Upsample", "", "xz"), [(1, 1, 1, 3), (1, 1, 1, 3)])
    x = torch.tensor([[[[1.0, 2, 3]]]], dtype=torch.float64, requires_grad=True)
    y = net(x=x, z=[[[[4, 1, 4]]]])["y"]
    assert y.flatten().tolist() == [0, 2, 0, 0, 3] + [0] * 7
    y.backward(torch.arange(12, dtype=torch.float64).view(y.shape))
    assert x.grad.flatten().tolist() == [4, 1, 4]


@pytest.mark.parametrize("place", [12, -1])
def test_upsample_refuses_positions_outside(tmp_path, place):
    net = build(tmp_path, layer("Upsample", "", "xz"), [(1, 1, 1, 3), (1, 1, 1, 3)])
    with pytest.raises(Exception, match=f"positions of the top's 2 x 6 pixels, got {place}"):
        net(x=torch.ones(1, 1, 1, 3), z=[[[[0, 1, place]]]])


def test_counts_of_seg_accuracy_outlive_other_sizes(tmp_path):
    for reset, wanted in (("true", 0.0), ("false", 0.25)):
        net = build(tmp_path, layer("SegAccuracy", f"seg_accuracy_param {{ reset: {reset} }}",
                                    "xz"), [(1, 2, 1, 1), (1, 1, 1, 1)])
        net(x=[[[[1.0]], [[0]]]], z=[[[[0]]]])
        y = net(x=[[[[1.0] * 3], [[0] * 3]]], z=[[[[1, 1, 1]]]])["y"]
        assert y[0, 0, 0, 0] == wanted


def test_segnet_bn_gives_its_statistics(tmp_path):
    net = build(tmp_path, layer("BN", "bn_param { bn_mode: LEARN }", tops=["y", "m", "v"]),
                [(2, 3, 4, 5)], "TEST")
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    outputs = net(x=x)
    torch.testing.assert_close(outputs["m"], x.mean((0, 2, 3), keepdim=True))
    torch.testing.assert_close(outputs["v"], x.var((0, 2, 3), correction=0, keepdim=True))
    assert net.shapes["m"] == net.shapes["v"] == (1, 3, 1, 1) and not outputs["y"].any()


def test_segnet_bn_of_one_value_per_channel_is_its_shift(tmp_path):
    fields = "bn_param { shift_filler { value: 3 } scale_filler { value: 2 } }"
    net = build(tmp_path, layer("BN", fields), [(1, 2, 1, 1)])
    for number in (net, net.float()):
        assert number(x=torch.ones(1, 2, 1, 1))["y"].flatten().tolist() == [3, 3]


def test_dropout_that_samples_drops_in_testing(tmp_path):
    fields = "dropout_param { dropout_ratio: 0.5 sample_weights_test: true }"
    net = build(tmp_path, layer("Dropout", fields), [(1000,)], "TEST")
    assert set(net(x=torch.ones(1000))["y"].tolist()) == {0, 2}


@pytest.mark.parametrize("shape", [(7,), (6, 5), (4, 3, 5), (2, 3, 2, 3, 2)])
def test_batch_norm_of_any_axes(tmp_path, shape):
    x = torch.randn(shape, dtype=torch.float64)
    channels = shape[1] if len(shape) > 1 else 1
    flat = x.reshape(shape[0], channels, -1)
    net = build(tmp_path, layer("BatchNorm"), [shape])
    mean, var = flat.mean((0, 2), keepdim=True), flat.var((0, 2), correction=0, keepdim=True)
    torch.testing.assert_close(net(x=x)["y"], ((flat - mean) / (var + 1e-5).sqrt()).view(shape))
    torch.testing.assert_close(net.params["l"][1], flat.var((0, 2)))


@pytest.mark.parametrize("pool", ["MAX", "AVE"])
@pytest.mark.parametrize(("kernel", "stride", "pad"), [((3, 2), (2, 2), (1, 0)),
                                                       ((2, 3), (3, 1), (0, 0)),
                                                       ((2, 3), (5, 4), (1, 0)),
                                                       ((2, 2), (4, 4), (0, 0)),
                                                       ((3, 3), (2, 3), (1, 1))])
def test_pooling_that_rounds_down(tmp_path, pool, kernel, stride, pad):
    fields = " ".join(f"{name}_h: {h} {name}_w: {w}" for name, (h, w) in
                      (("kernel", kernel), ("stride", stride), ("pad", pad)))
    net = build(tmp_path, layer("Pooling", f"pooling_param {{ pool: {pool} {fields} "
                                           "ceil_mode: false round_mode: FLOOR }"), [(2, 3, 8, 11)])
    x = torch.randn(2, 3, 8, 11, dtype=torch.float64)
    torch_pool = F.max_pool2d if pool == "MAX" else F.avg_pool2d
    torch.testing.assert_close(net(x=x)["y"], torch_pool(x, kernel, stride, pad))


def test_indices_of_pooling_that_rounds_down_are_of_the_whole_plane(tmp_path):
    net = build(tmp_path, layer("Pooling", "pooling_param { kernel_size: 2 stride: 4 round_mode: "
                                           "FLOOR }", tops="ym"), [(1, 2, 8, 11)])
    x = torch.randn(1, 2, 8, 11, dtype=torch.float64)
    _, index = F.max_pool2d(x, 2, 4, return_indices=True)
    assert net(x=x)["m"].tolist() == index.tolist()


def test_losses_count_unless_they_say_otherwise(tmp_path):
    net = build(tmp_path, layer("EuclideanLoss", "", "xz", "") + layer(
        "HingeLoss", "loss_weight: 0", "xw", "").replace('"l"', '"m"'), [(1, 2), (1, 2), (1,)])
    net(x=[[2.0, 0]], z=[[0.0, 0]], w=[1])
    assert net.loss.item() == 2


@pytest.mark.parametrize("path", golden_files("layers_more", "*bilinear*"))
def test_bilinear_filler_matches_golden(path, tmp_path):
    arrays = read_golden(path)
    prototxt = tmp_path / "net.prototxt"
    prototxt.write_text(str(arrays["prototxt"]))
    assert_same_bits(load_net(prototxt).params["l"][0], arrays["param_in/l/0"])


def test_positive_unitball_filler(tmp_path):
    net = build(tmp_path, layer("InnerProduct", "inner_product_param { num_output: 3 weight_filler "
                                "{ type: 'positive_unitball' } }"), [(1, 50)])
    weight = net.params["l"][0]
    assert (weight > 0).all() and weight.std() > 0
    torch.testing.assert_close(weight.sum(1), torch.ones(3, dtype=torch.float64), atol=1e-6, rtol=0)
