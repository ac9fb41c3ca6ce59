"""Layers and fields of Intel's, NVIDIA's and Synopsys' Caffe."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.caffe_layers import build, layer

from prototxt_import import load_net
from pspnet_repro.errors import UserError

PLANE = torch.arange(1.0, 26).view(1, 1, 5, 5)


def _pool(fields, tops="y"):
    return layer("Pooling", f"pooling_param {{ {fields} }}", tops=tops)


def test_fields_that_change_no_value_are_dropped_with_a_warning(tmp_path):
    (tmp_path / "net.prototxt").write_text(
        'engine: "MKLDNN" compile_net_state { kept_bn_layers: "x" } default_forward_type: FLOAT16 '
        'mem_param { optimize_train: true } input: "x" input_shape { dim: 1 dim: 1 dim: 3 dim: 3 } '
        + layer("Convolution", "forward_type: FLOAT engine: 'MKLDNN' convolution_param { engine: "
                "MKLDNN num_output: 1 kernel_size: 3 cudnn_convolution_algo_seeker: FINDEX "
                "weight_filler { value: 1 } }"))
    with pytest.warns(UserWarning, match="engine, compile_net_state, default_forward_type, "
                                         "mem_param, forward_type, cudnn_convolution_algo_seeker: "
                                         "not followed, as all is computed in float32 and by one"):
        net = load_net(tmp_path / "net.prototxt")
    assert net(x=torch.ones(1, 1, 3, 3))["y"].item() == 9


# layer, x, y by hand
VALUES = {
    "relu 6": (layer("ReLU", "relu_param { relu6: true negative_slope: 0.5 }"),
               [[-2.0, 3, 7]], [[-1, 3, 6]]),
    "relu bounds": (layer("ReLU", "relu_param { maximum: 4 minimum: 2 }"), [[-2.0, 3, 7]],
                    [[2, 3, 4]]),
    "hard swish": (layer("HardSwish"), [[-4.0, -1, 0, 1, 4]], [[0, -1 / 3, 0, 2 / 3, 4]]),
    "hard sigmoid": (layer("HardSigmoid", "hard_sigmoid_param { alpha: 0.25 beta: 0.5 }"),
                     [[-3.0, 1, 3]], [[0, 0.75, 1]]),
    "selu": (layer("SeLu", "selu_param { alpha: 3 lambda: 2 }"), [[-1.0, 0, 1]],
             [[6 * math.exp(-1) - 6, 0, 2]]),
    "selu dropout": (layer("SeLuDropout"), [[-1.0, 2]], [[-1, 2]]),
    "mish": (layer("Mish"), [[0.0, 1]], [[0, math.tanh(math.log(1 + math.e))]]),
    "not scaled": (layer("Dropout", "dropout_param { dropout_ratio: 0.25 scale_train: false }"),
                   [[4.0, 8]], [[3, 6]]),
    "repeated": (layer("Upsample", "upsample_param { scale: 2 }"), [[[[1.0, 2]]]],
                 [[[[1, 1, 2, 2], [1, 1, 2, 2]]]]),
    "inside": (_pool("pool: AVE_EXC_PAD kernel_size: 2 pad: 1 stride: 2"), [[[[1.0, 2], [3, 4]]]],
               [[[[1, 2], [3, 4]]]]),
    "inside, older": (_pool("pool: AVE_TF kernel_size: 2 pad: 1 stride: 2"),
                      [[[[1.0, 2], [3, 4]]]], [[[[1, 2], [3, 4]]]]),
    "resize": (layer("ResizeBilinear", "resize_bilinear_param { align_corners: true output_height: "
                     "1 output_width: 3 data_format: 'NCHW' }"), [[[[1.0, 3], [5, 7]]]],
               [[[[1, 2, 3]]]]),
}


@pytest.mark.parametrize(("text", "x", "y"), VALUES.values(), ids=VALUES)
def test_value_by_hand(tmp_path, text, x, y):
    got = build(tmp_path, text, [np.shape(x)], "TEST")(x=torch.tensor(x).double())["y"]
    torch.testing.assert_close(got, torch.tensor(y).double())


def test_dropout_that_is_not_scaled_keeps_values_in_training(tmp_path):
    net = build(tmp_path, layer("Dropout", "dropout_param { scale_train: false }"), [(40, 40)])
    assert set(net(x=torch.ones(40, 40))["y"].flatten().tolist()) == {0, 1}


# fields, pad (left, right, above, below), sides of the top
SIDES = {"beside": ("pad_r: 1 pad_b: 2 pad_l: 0", (0, 1, 0, 2), (3, 2)),
         "alike": ("pad_l: 1 pad_r: 1 pad_t: 1 pad_b: 1", (1, 1, 1, 1), (3, 3)),
         "same": ("pad_type: 1", (1, 1, 1, 1), (3, 3)),
         "same and pad": ("pad_type: 1 pad_h: 1 pad_w: 0", (1, 1, 1, 1), (3, 3))}


@pytest.mark.parametrize(("fields", "pad", "sides"), SIDES.values(), ids=SIDES)
def test_convolution_pads_each_side(tmp_path, fields, pad, sides):
    net = build(tmp_path, layer("Convolution", "convolution_param { num_output: 2 kernel_h: 3 "
                                f"kernel_w: 3 stride_h: 2 stride_w: 2 {fields} "
                                "weight_filler { type: 'msra' } }"), [(1, 1, 5, 5)])
    y = net(x=PLANE)["y"]
    torch.testing.assert_close(
        y, F.conv2d(F.pad(PLANE.double(), pad), *net.params["l"], stride=2))
    assert y.shape == (1, 2, *sides)


@pytest.mark.parametrize("ceil", ["true", "false"])
@pytest.mark.parametrize("pool", ["MAX", "AVE", "AVE_EXC_PAD"])
@pytest.mark.parametrize("sides", [(0, 1, 0, 1), (1, 1, 1, 1), (2, 0, 0, 2), (0, 5, 1, 4)])
def test_pooling_pads_each_side(tmp_path, sides, pool, ceil):
    left, right, above, below = sides
    net = build(tmp_path, _pool(f"pool: {pool} kernel_h: 3 kernel_w: 3 stride_h: 2 stride_w: 2 "
                                f"ceil_mode: {ceil} pad_l: {left} pad_r: {right} pad_t: {above} "
                                f"pad_b: {below}"), [(1, 1, 6, 5)])
    x = torch.randn(1, 1, 6, 5, dtype=torch.float64)
    round_up = ceil == "true"
    rows, columns = (min((side + a + b - 3 + round_up) // 2, (side + a - 1) // 2) + 1
                     for side, a, b in ((6, above, below), (5, left, right)))
    wanted = torch.zeros(rows, columns, dtype=torch.float64)
    for i in range(rows):
        for j in range(columns):
            top, start = 2 * i - above, 2 * j - left
            window = x[0, 0, max(top, 0):top + 3, max(start, 0):start + 3]
            whole = (min(top + 3, 6 + below) - top) * (min(start + 3, 5 + right) - start)
            wanted[i, j] = (window.max() if pool == "MAX" else
                            window.sum() / (whole if pool == "AVE" else window.numel()))
    torch.testing.assert_close(net(x=x)["y"][0, 0], wanted)


@pytest.mark.parametrize(("fields", "pad"), [
    # TensorFlow's SAME adds a row below and a column at the right.
    ("kernel_size: 3 pad_type: 1", (0, 1, 0, 1)),
    ("kernel_size: 2 pad_t: 1 pad_l: 1 ceil_mode: false", (1, 0, 1, 0))])
def test_padded_pooling_gives_indices_of_the_image(tmp_path, fields, pad):
    net = build(tmp_path, _pool(f"stride: 2 {fields}", "ab"), [(1, 1, 6, 6)])
    x = torch.randn(1, 1, 6, 6, dtype=torch.float64)
    tops = net(x=x)
    values = F.max_pool2d(F.pad(x, pad, value=-99), int(fields[13]), 2)
    assert torch.equal(tops["a"], values)
    assert torch.equal(x.flatten()[tops["b"].flatten().long()], values.flatten())
    assert tops["b"].shape == (1, 1, 3, 3)


NVIDIAS = layer("BatchNorm", "batch_norm_param { moving_average_fraction: 0.75 scale_bias: true "
                "scale_filler { value: 2 } bias_filler { value: 1 } }")


def test_nvidias_batch_norm_follows_its_batches(tmp_path):
    net = build(tmp_path, NVIDIAS, [(8, 3, 2, 2)])
    assert [tuple(p.shape) for p in net.params["l"]] == [(3,), (3,), (1,), (3,), (3,)]
    batches = [torch.randn(8, 3, 2, 2, dtype=torch.float64) for _ in range(4)]
    for x in batches:
        torch.testing.assert_close(
            net(x=x)["y"], 2 * F.batch_norm(x, None, None, training=True, eps=1e-5) + 1)
    means = [x.mean((0, 2, 3)) for x in batches]
    variances = [x.var((0, 2, 3), correction=0) for x in batches]
    # The first two are taken as they are.
    for got, values in zip(net.params["l"], (means, variances)):
        wanted = 0.75 * (0.75 * values[1] + 0.25 * values[2]) + 0.25 * values[3]
        torch.testing.assert_close(got.data, wanted)
    assert net.params["l"][2] == 0
    assert [p.requires_grad for p in net.params["l"]] == [False] * 3 + [True] * 2


@pytest.mark.parametrize("weight", [0, 2])
@pytest.mark.parametrize("stats", ["", "use_global_stats: false"])
def test_nvidias_batch_norm_in_testing(tmp_path, weight, stats):
    text = NVIDIAS.replace("scale_bias", f"{stats} scale_bias")
    net = build(tmp_path, text, [(8, 3, 2, 2)], "TEST")
    mean, variance = torch.randn(3).double(), torch.rand(3).double() + 1
    for p, value in zip(net.params["l"], (mean, variance, torch.tensor([float(weight)]))):
        p.data.copy_(value)
    x = torch.randn(8, 3, 2, 2, dtype=torch.float64)
    torch.testing.assert_close(net(x=x)["y"], 1 + 2 * F.batch_norm(
        x, mean / (weight or 1), variance / (weight or 1), eps=1e-5))


def test_nvidias_batch_norm_without_scale_has_three_blobs(tmp_path):
    net = build(tmp_path, NVIDIAS.split("scale_filler")[0].replace("true", "false") + "} }",
                [(8, 3)])
    x = torch.randn(8, 3, dtype=torch.float64)
    torch.testing.assert_close(net(x=x)["y"], F.batch_norm(x, None, None, training=True, eps=1e-5))
    assert len(net.params["l"]) == 3


def test_intels_batch_norm_is_as_with_caffes_engine(tmp_path):
    text = layer("BatchNorm", "batch_norm_param { filler { value: 0 } bias_filler { value: 3 } }")
    with pytest.warns(UserWarning, match="BatchNorm has fields of Intel's own engines"):
        net = build(tmp_path, text, [(8, 3)])
    x = torch.randn(8, 3, dtype=torch.float64)
    torch.testing.assert_close(net(x=x)["y"], F.batch_norm(x, None, None, training=True, eps=1e-5))


@pytest.mark.parametrize(("everywhere", "fields"), [("bn_stats_batch_size: 4 ", ""), (
    "", "batch_norm_param { stats_batch_size: 4 }")])
def test_statistics_of_parts_of_a_batch_are_refused(tmp_path, everywhere, fields):
    text = everywhere + layer("BatchNorm", fields)
    for shape, phase in (((4, 3), "TRAIN"), ((8, 3), "TEST")):
        build(tmp_path, text, [shape], phase)
    with pytest.raises(UserError, match="statistics of each 4 images of a batch are not supported: "
                                        "give batches of at most 4, got 8"):
        build(tmp_path, text, [(8, 3)])


def test_scale_takes_a_number_for_each_channel(tmp_path):
    net = build(tmp_path, layer("Scale", "scale_param { axis: 0 }", "xz"),
                [(2, 3, 4, 5), (2, 3, 1, 1)])
    x, z = torch.randn(2, 3, 4, 5).double(), torch.randn(2, 3, 1, 1).double()
    assert torch.equal(net(x=x, z=z)["y"], x * z)
    with pytest.raises(UserError, match="must have the sizes of .* from axis 0, or 1, got"):
        build(tmp_path, layer("Scale", "scale_param { axis: 0 }", "xz"), [(2, 3, 4), (2, 2, 1)])


MEASURES = [
    ("SegmentationAccuracy", "", "TRAIN"), ("ELTWISE_ACCURACY", "", "TEST"),
    ("Python", "python_param { module: 'm' layer: 'MeanIoU' }", "TRAIN"),
    ("Python", "python_param { module: 'm' layer: 'FocalLoss' } loss_weight: 1", "TEST"),
    ("FocalLoss", "", "TEST"), ("MAE", "", "TEST"), ("PixelError", "", "TEST")]


@pytest.mark.parametrize(("kind", "fields", "phase"), MEASURES)
def test_layers_that_only_measure_are_left_out(tmp_path, kind, fields, phase):
    text = layer("ReLU", tops="z") + layer(kind, fields, "zx").replace('"l"', '"m"')
    with pytest.warns(UserWarning, match=r"layer 'm' \(.*\) is left out: type .* is not supported, "
                                         "and no layer reads y"):
        assert list(build(tmp_path, text, [(1, 2)], phase)(x=[[1.0, 2]])) == ["z"]


@pytest.mark.parametrize(("kind", "fields", "phase"), [
    ("FocalLoss", "", "TRAIN"), ("MAE", "", "TRAIN"), ("DenseCRF", "", "TEST"),
    ("SegmentationAccuracy", "loss_weight: 1", "TRAIN")])
def test_layers_that_do_more_are_refused(tmp_path, kind, fields, phase):
    with pytest.raises(UserError, match=f"type '{kind}' is not supported") as refused:
        build(tmp_path, layer(kind, fields), [(1, 2)], phase)
    assert ("ask for phase TEST, which leaves such losses out" in str(refused.value)) == (
        phase == "TRAIN")


def test_selus_dropout_keeps_mean_and_variance(tmp_path):
    torch.manual_seed(0)
    x = torch.randn(1, 200000)
    y = build(tmp_path, layer("SeLuDropout", "selu_dropout_param { dropout_ratio: 0.2 }"),
              [x.shape])(x=x)["y"]
    # a and b of the paper, of q = 0.8 and the limit -1.75809934.
    a = (0.8 + 1.75809934 ** 2 * 0.8 * 0.2) ** -0.5
    b = a * 0.2 * 1.75809934
    dropped = (y - (a * -1.75809934 + b)).abs() < 1e-5
    torch.testing.assert_close(y[~dropped], (a * x + b)[~dropped])
    assert abs(dropped.float().mean() - 0.2) < 0.01
    assert abs(y.mean()) < 0.02 and abs(y.var() - 1) < 0.02


def test_metric_that_another_layer_reads_is_refused(tmp_path):
    text = layer("MyAccuracy") + layer("ReLU", bottoms="y", tops="z").replace('"l"', '"m"')
    with pytest.raises(UserError, match="type 'MyAccuracy' is not supported"):
        build(tmp_path, text, [(1, 2)])


GRADIENTS = {
    "relu": layer("ReLU", "relu_param { maximum: 0.7 minimum: -0.1 negative_slope: 0.5 }"),
    "hard swish": layer("HardSwish"), "mish": layer("Mish"),
    "selu": layer("SeLu", "selu_param { lambda: 2 }"),
    "hard sigmoid": layer("HardSigmoid", "hard_sigmoid_param { alpha: 0.5 beta: 0.5 }"),
    "nvidias": NVIDIAS,
    "sides": layer("Convolution", "convolution_param { num_output: 2 kernel_size: 2 pad_r: 1 "
                   "weight_filler { type: 'msra' } }"),
    "max": _pool("kernel_size: 3 stride: 2 pad_type: 1"),
    "repeated": layer("Upsample", "upsample_param { scale: 3 }"),
    "inside": _pool("pool: AVE_EXC_PAD kernel_size: 3 stride: 2 pad_l: 1 pad_b: 2"),
    "resize": layer("ResizeBilinear", "resize_bilinear_param { align_corners: true output_height: "
                    "7 output_width: 3 data_format: 'NCHW' }"),
}


@pytest.mark.parametrize("text", GRADIENTS.values(), ids=GRADIENTS)
def test_gradcheck(tmp_path, text):
    net = build(tmp_path, text, [(2, 3, 5, 4)])
    x = torch.randn(2, 3, 5, 4, dtype=torch.float64, requires_grad=True)
    learned = [p for p in net.parameters() if p.requires_grad]
    assert torch.autograd.gradcheck(lambda x, *_: net(x=x)["y"], (x, *learned))


# Of inputs x (2, 4, 6, 6), z (2, 4, 6, 5), w (2).
REFUSED = [
    ("HardSigmoid", "", "x", "needs alpha and beta, which the forks that have it start"),
    ("Upsample", "", "x", "with one bottom must have scale alone; caffe-segnet's needs a mask"),
    ("Upsample", "upsample_param { scale: 2 pad_out_h: true }", "x", "must have scale alone"),
    ("SeLuDropout", "selu_dropout_param { alpha: -1 }", "x", "alpha must be -1.75809934"),
    ("SeLuDropout", "selu_dropout_param { dropout_ratio: 1 }", "x", "dropout_ratio must be at lea"),
    ("SeLu", "selu_param { alpha: nan }", "x", "alpha must be finite"),
    ("ReLU", "relu_param { relu6: true minimum: 6 }", "x", "minimum must be below 6.0, got 6.0"),
    ("ReLU", "relu_param { maximum: inf }", "x", "maximum must be finite"),
    ("Convolution", "convolution_param { num_output: 1 kernel_size: 3 pad: 1 pad_l: 1 }", "x",
     "must have pad, or pad_t, pad_b, pad_l and pad_r"),
    ("Convolution", "convolution_param { num_output: 1 kernel_size: 3 pad_type: 1 pad_l: 1 }", "x",
     "must have pad_type, or pad_t"),
    ("Convolution", "convolution_param { num_output: 1 kernel_size: 3 pad_type: 1 pad: 2 }", "x",
     r"pad must be 0 or, as pad_type 1 has it, \[1, 1\], got \(2, 2\)"),
    ("Convolution", "convolution_param { num_output: 1 kernel_size: 3 pad_type: 2 }", "x",
     "pad_type must be 0 or 1, got 2"),
    ("Convolution", "convolution_param { num_output: 1 kernel_size: 3 pad_type: 1 dilation: 2 }",
     "x", "pad_type must stand without dilation"),
    ("Convolution", "convolution_param { num_output: 1 kernel_size: 3 pad_r: 2147483648 }", "x",
     "pad_t, pad_b, pad_l and pad_r must be below"),
    ("Deconvolution", "convolution_param { num_output: 1 kernel_size: 3 pad_l: 1 }", "x",
     "pad_l of a Deconvolution is not supported: write pad, and a Crop layer behind it"),
    ("Pooling", "pooling_param { kernel_size: 3 pool: STOCHASTIC }", "x",
     "pool must be MAX or AVE, got STOCHASTIC"),
    ("SPP", "spp_param { pyramid_height: 1 pool: AVE_EXC_PAD }", "x", "got AVE_EXC_PAD"),
    ("ResizeBilinear", "resize_bilinear_param { output_height: 2 output_width: 2 }", "x",
     "must have align_corners: true and data_format"),
    ("BatchNorm", "batch_norm_param { scale_bias: true use_global_stats: true }", "x",
     "use_global_stats of NVIDIA's BatchNorm must not be true in training: remove it"),
    ("InfogainLoss", "", "xww", "scores .2, 4, 6, 6. need 72 labels"),
    ("MultinomialLogisticLoss", "", "wx", "scores .2,. need 2 labels, got"),
    ("ContrastiveLoss", "", "xzw", "its bottoms must be two alike"),
    ("ContrastiveLoss", "contrastive_loss_param { margin: nan }", "xxw", "margin must be finite"),
    ("L1Loss", "", "xz", "its bottoms must have as many items and numbers"),
]


@pytest.mark.parametrize(("kind", "fields", "bottoms", "message"), REFUSED)
def test_field_is_refused(tmp_path, kind, fields, bottoms, message):
    with pytest.raises(UserError, match=message):
        build(tmp_path, layer(kind, fields, bottoms), [(2, 4, 6, 6), (2, 4, 6, 5), (2,)])
