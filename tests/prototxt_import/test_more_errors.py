"""Fields and bottoms that layers of BVLC's Caffe, caffe-segnet and other forks refuse."""

import pytest
import torch
from helpers.caffe_layers import build, layer

from pspnet_repro.errors import UserError

# Of inputs x (2, 4, 6, 6), z (2, 4, 3, 3), w (2).
REFUSED = [
    ("AbsVal", "", "x", "x", "must have a top of its own, not its bottom"),
    ("Exp", "exp_param { base: 0 }", "x", "y", "base must be above 0, or -1 for e, got 0"),
    ("Exp", "exp_param { base: -2 }", "x", "y", "base must be above 0, or -1 for e, got -2"),
    ("Exp", "exp_param { shift: 90 }", "x", "y", "base.shift must be finite as float32, got inf"),
    ("Exp", "exp_param { scale: inf }", "x", "y", "scale must be finite"),
    ("Log", "log_param { base: 1 }", "x", "y", "base must not be 1"),
    ("Log", "log_param { shift: nan }", "x", "y", "shift must be finite"),
    ("ELU", "elu_param { alpha: nan }", "x", "y", "alpha must be finite"),
    ("Swish", "swish_param { beta: nan }", "x", "y", "beta must be finite"),
    ("Threshold", "threshold_param { threshold: nan }", "x", "y", "threshold must be finite"),
    ("Clip", "", "x", "y", "needs min and max"),
    ("Clip", "clip_param { min: 1 max: 0 }", "x", "y", "min must be at most max 0.0, got 1.0"),
    ("Tile", "", "x", "y", "tiles must be at least 1, got 0"),
    ("Tile", "tile_param { tiles: -1 }", "x", "y", "tiles must be at least 1, got -1"),
    ("Tile", "tile_param { axis: 4 tiles: 2 }", "x", "y", "axis must be an axis of"),
    ("Tile", "tile_param { tiles: 2147483647 }", "x", "y", "at most 2147483647 elements"),
    ("Reduction", "reduction_param { axis: -5 }", "x", "y", "axis must be an axis of"),
    ("Reduction", "reduction_param { coeff: nan }", "x", "y", "coeff must be finite"),
    ("LRN", "lrn_param { local_size: 4 }", "x", "y", "local_size must be odd and below .*, got 4"),
    ("LRN", "lrn_param { k: nan }", "x", "y", "k must be finite"),
    ("LRN", "", "w", "y", "its bottom must be 4-D"),
    ("MVN", "mvn_param { eps: nan }", "x", "y", "eps must be finite"),
    ("Crop", "", "x", "y", "needs 2 bottoms, got 1"),
    ("Crop", "crop_param { axis: 1 offset: 1 offset: 2 }", "xz", "y",
     "offset must be given once or for each of 3 axes, got 2 times"),
    ("Crop", "crop_param { offset: 4 }", "xz", "y",
     r"axis 2 of \(2, 4, 6, 6\) must hold 3 from offset 4 on, as \(2, 4, 3, 3\) asks"),
    ("Crop", "", "zx", "y", "axis 2 of .* must hold 6 from offset 0 on"),
    ("Crop", "", "xw", "y", "its second bottom must have the axes of"),
    ("Axpy", "", "zxx", "y", r"its first bottom must be \(2, 4\) or \(2, 4, 1, 1\), got"),
    ("Axpy", "", "wxz", "y", "its second and third bottom must be alike"),
    ("Upsample", "upsample_param { upsample_h: 6 }", "zz", "y",
     "upsample_h and upsample_w must stand together"),
    ("Upsample", "upsample_param { scale_h: 2 }", "zz", "y", "needs upsample_h and upsample_w, or"),
    ("Upsample", "upsample_param { scale: 2 scale_h: 2 scale_w: 2 }", "zz", "y",
     "needs upsample_h and"),
    ("Upsample", "upsample_param { scale: 1 }", "zz", "y", "scale must be 2 to"),
    ("Upsample", "upsample_param { upsample_h: 1 upsample_w: 6 }", "zz", "y",
     "upsample_h and upsample_w must be above 1"),
    ("Upsample", "upsample_param { scale: 3 pad_out_w: true }", "zz", "y",
     "pad_out_w must stand with scale 2, got 3"),
    ("Upsample", "", "xz", "y", "its mask must be .2, 4, 6, 6., got .2, 4, 3, 3."),
    ("Unpooling", "unpooling_param { unpool: TILE }", "zz", "y", "unpool must be MAX"),
    ("Unpooling", "", "zz", "y", "kernel_size must be 1 to"),
    ("Unpooling", "unpooling_param { kernel_size: 1 unpool_size: 3 }", "xz", "y", "its mask must"),
    ("Permute", "permute_param { order: 1 order: 1 }", "x", "y", "each once, got .1, 1."),
    ("Permute", "permute_param { order: 4 }", "x", "y", "order must be axes of"),
    ("ShuffleChannel", "shuffle_channel_param { group: 3 }", "x", "y", "must divide 4 channels"),
    ("ShuffleChannel", "shuffle_channel_param { group: 0 }", "x", "y", "must divide 4 channels"),
    ("Normalize", "norm_param { eps: 0 }", "x", "y", "eps must be above 0, got 0"),
    ("ConvolutionDepthwise", "convolution_param { num_output: 8 kernel_size: 1 }", "x", "y",
     "num_output must be its 4 inputs, got 8"),
    ("DepthwiseConvolution", "convolution_param { num_output: 8 kernel_size: 1 }", "x", "y",
     "num_output must be its 4 inputs, got 8"),
    ("Convolution", "convolution_param { num_output: 1 kernel_size: 1 hole: 2 dilation: 2 }", "x",
     "y", "must have dilation or hole, its older name, got 2 and 2"),
    ("Convolution", "convolution_param { num_output: 1 kernel_size: 1 hole: 0 }", "x", "y",
     "hole must be 1 to"),
    *[("Python", "python_param { module: 'spatial_dropout' layer: 'SpatialDropoutLayer' param_str: "
       f"'{fields}' }}", "x", "y", message) for fields, message in (
           ("p", "param_str must be .* got 'p'"), ("[]", "param_str must be"),
           ('{\"p\": 0.1}', "param_str must be"),
           ('{\"p\": 1, \"phase\": \"TRAIN\"}', "p must be above 0 and below 1, got 1.0"))],
    ("BN", "bn_param { bn_mode: LEARN frozen: true }", "x", "y",
     "must have fields of one program: bn_mode are of caffe-segnet, frozen of PSPNet's Caffe"),
    ("BN", "bn_param { bn_mode: INFERENCE }", "x", "ab", "has no statistics: needs one top"),
    ("BN", "bn_param { momentum: 0.9 }", "x", "ab", "needs 1 tops, got 2"),
    ("Pooling", "pooling_param { kernel_size: 2 round_mode: FLOOR ceil_mode: true }", "x", "y",
     "round_mode and ceil_mode must say the same"),
    ("Pooling", "pooling_param { kernel_size: 2 pad: 2 round_mode: FLOOR }", "x", "y",
     "padding must be less than kernel_size 2, got 2"),
    ("Pooling", "pooling_param { kernel_size: 7 stride: 2 round_mode: FLOOR }", "x", "y",
     "must be at most its padded input"),
    ("SoftmaxWithLoss", "loss_param { weight_by_label_freqs: true class_weighting: 1 }", "zw", "y",
     "need 18 labels"),
    ("SoftmaxWithLoss", "softmax_param { axis: 0 } loss_param { weight_by_label_freqs: true "
     "class_weighting: 1 }", "ww", "y", "need 1 labels, got .2."),
    ("SigmoidCrossEntropyLoss", "", "xz", "y", "must have as many items and numbers"),
    ("EuclideanLoss", "", "xz", "y", "must have as many items and numbers"),
    ("HingeLoss", "", "xz", "y", "need 2 labels, got .2, 4, 3, 3."),
    ("SegAccuracy", "", "xz", "y", r"must be \(2, 1, 6, 6\), got \(2, 4, 3, 3\)"),
    ("PointwiseSpatialAttention", "", "xz", "y", r"its masks must be \(2, 121, 6, 6\)"),
    ("PointwiseSpatialAttention", "pointwise_spatial_attention_param { attention_mask_height: 3 }",
     "xx", "y", "needs both attention_mask_height and attention_mask_width"),
    ("PointwiseSpatialAttention", "pointwise_spatial_attention_param { attention_mask_height: 2 "
     "attention_mask_width: 3 }", "xx", "y", "must be odd and above 1, got .2, 3."),
    ("Convolution", "convolution_param { num_output: 1 kernel_h: 2 kernel_w: 3 weight_filler { "
     "type: 'bilinear' } }", "x", "y", "bilinear needs a 4-D blob of square kernels"),
    ("InnerProduct", "inner_product_param { num_output: 1 weight_filler { type: 'bilinear' } }",
     "x", "y", "bilinear needs a 4-D blob of square kernels, got .1, 144."),
]


@pytest.mark.parametrize(("kind", "fields", "bottoms", "tops", "message"), REFUSED)
def test_layer_is_refused(tmp_path, kind, fields, bottoms, tops, message):
    pattern = rf"net.prototxt: layer 'l' \({kind}\): .*{message}"
    with pytest.raises(UserError, match=pattern) as raised:
        build(tmp_path, layer(kind, fields, bottoms, tops), [(2, 4, 6, 6), (2, 4, 3, 3), (2,)])
    assert "\n" not in str(raised.value)


def test_class_weights_must_be_as_many_as_classes(tmp_path):
    text = layer("SoftmaxWithLoss", "loss_param { weight_by_label_freqs: true class_weighting: 1 }",
                 "xz")
    with pytest.raises(UserError, match="class_weighting must be given for each of 3 classes, got"):
        build(tmp_path, text, [(2, 3), (2,)])


@pytest.mark.parametrize("kind", ["HingeLoss", "SegAccuracy"])
def test_labels_beyond_the_classes_are_refused(tmp_path, kind):
    net = build(tmp_path, layer(kind, "", "xz"), [(2, 3, 1, 1), (2, 1, 1, 1)])
    with pytest.raises(UserError, match="labels must be 0 to 2, got 3"):
        net(x=torch.zeros(2, 3, 1, 1), z=torch.tensor([0, 3]).view(2, 1, 1, 1))
