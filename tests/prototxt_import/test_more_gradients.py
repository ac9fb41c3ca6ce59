"""Layers of BVLC's Caffe, caffe-segnet and other forks: gradients numerically."""

import pytest
import torch
from helpers.caffe_layers import build, layer

GRADIENTS = {
    "abs": layer("AbsVal"), "elu": layer("ELU", "elu_param { alpha: 0.7 }"),
    "bnll": layer("BNLL"), "exp": layer("Exp", "exp_param { base: 3 scale: 0.5 shift: 1 }"),
    "log": layer("Power", "power_param { power: 2 shift: 3 }", tops="p") + layer(
        "Log", "log_param { base: 3 scale: 2 shift: 0.5 }", "p").replace('"l"', '"m"'),
    "swish": layer("Swish", "swish_param { beta: 1.5 }"),
    "clip": layer("Clip", "clip_param { min: -0.5 max: 0.5 }"),
    "tile": layer("Tile", "tile_param { axis: 2 tiles: 3 }"),
    **{op: layer("Reduction", f"reduction_param {{ operation: {op} axis: 2 coeff: 0.5 }}")
       for op in ("SUM", "ASUM", "SUMSQ", "MEAN")},
    "mvn": layer("MVN"), "mvn across": layer("MVN", "mvn_param { across_channels: true }"),
    "mvn mean": layer("MVN", "mvn_param { normalize_variance: false across_channels: true }"),
    "lrn": layer("LRN", "lrn_param { local_size: 3 alpha: 0.7 beta: 0.6 k: 2 }"),
    "lrn within": layer("LRN", "lrn_param { local_size: 3 alpha: 0.7 "
                               "norm_region: WITHIN_CHANNEL }"),
    "segnet bn": layer("BN", "bn_param { bn_mode: LEARN scale_filler { value: 1.5 } }"),
    "segnet bn inference": layer("BN", "bn_param { bn_mode: INFERENCE scale_filler { value: 2 } }"),
    "floor": layer("Pooling", "pooling_param { kernel_size: 2 stride: 3 pool: AVE "
                              "round_mode: FLOOR }"),
    "relu 6": layer("Power", "power_param { scale: 8 }", tops="p") + layer(
        "ReLU6", "", "p").replace('"l"', '"m"'),
    "permute": layer("Permute", "permute_param { order: 2 order: 0 }"),
    "shuffle": layer("ShuffleChannel", "shuffle_channel_param { group: 2 }"),
    "normalize": layer("Normalize", "norm_param { channel_shared: false }"),
    "normalize pixel": layer("Normalize", "norm_param { across_spatial: false }"),
    "depthwise": layer("ConvolutionDepthwise", "convolution_param { num_output: 4 kernel_size: 2 "
                       "weight_filler { type: 'msra' } }"),
    "hole": layer("Convolution", "convolution_param { num_output: 2 kernel_size: 2 hole_h: 3 "
                  "hole_w: 2 weight_filler { type: 'msra' } }"),
    "unpooling": layer("Pooling", "pooling_param { kernel_size: 2 stride: 2 }", tops="hm") + layer(
        "Unpooling", "unpooling_param { kernel_size: 2 unpool_h: 5 unpool_w: 4 }",
        "hm").replace('"l"', '"u"'),
    "upsample": layer("Pooling", "pooling_param { kernel_size: 2 stride: 2 }", tops="hm") + layer(
        "Upsample", "upsample_param { upsample_h: 5 upsample_w: 4 }", "hm").replace('"l"', '"u"'),
    "crop": layer("Pooling", "pooling_param { kernel_size: 2 }", tops="r") + layer(
        "Crop", "crop_param { axis: 2 offset: 1 }", "xr").replace('"l"', '"c"'),
}


@pytest.mark.parametrize("text", GRADIENTS.values(), ids=GRADIENTS)
def test_gradcheck(tmp_path, text):
    net = build(tmp_path, text, [(2, 4, 5, 4)])
    x = torch.randn(2, 4, 5, 4, dtype=torch.float64, requires_grad=True)
    learned = [p for p in net.parameters() if p.requires_grad]
    assert torch.autograd.gradcheck(lambda x, *_: net(x=x)["y"], (x, *learned))


LOSSES = {
    "cross entropy": layer("SigmoidCrossEntropyLoss", "loss_weight: 0.3", "xz"),
    "cross entropy ignored": layer("SigmoidCrossEntropyLoss", "loss_param { ignore_label: 1 "
                                   "normalization: VALID }", "xz"),
    "hinge": layer("HingeLoss", "loss_weight: 2", "xw"),
    "hinge squares": layer("HingeLoss", "hinge_loss_param { norm: L2 }", "xw"),
    "weighted": layer("SoftmaxWithLoss", "loss_param { weight_by_label_freqs: true ignore_label: 1 "
                      "class_weighting: 2 class_weighting: 1 class_weighting: 0.5 }", "xw"),
}


@pytest.mark.parametrize("text", LOSSES.values(), ids=LOSSES)
def test_gradcheck_of_losses(tmp_path, text):
    net = build(tmp_path, text, [(4, 3), (4, 3), (4,)])
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    z, w = torch.randint(0, 2, (4, 3)), torch.tensor([0, 1, 2, 0])

    def loss(x):
        net(x=x, z=z, w=w)
        return net.loss
    assert torch.autograd.gradcheck(loss, (x,))


def test_gradcheck_of_euclidean_loss(tmp_path):
    net = build(tmp_path, layer("EuclideanLoss", "", "xz"), [(4, 3), (4, 3)])
    pair = [torch.randn(4, 3, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(lambda x, z: net(x=x, z=z)["y"], pair)


def test_gradcheck_of_axpy(tmp_path):
    net = build(tmp_path, layer("Axpy", "", "xzw"), [(2, 3), (2, 3, 2, 2), (2, 3, 2, 2)])
    tensors = [torch.randn(shape, dtype=torch.float64, requires_grad=True)
               for shape in ((2, 3), (2, 3, 2, 2), (2, 3, 2, 2))]
    assert torch.autograd.gradcheck(lambda x, z, w: net(x=x, z=z, w=w)["y"], tensors)
