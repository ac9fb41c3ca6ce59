"""Layers that no golden layer file witnesses: values by hand, gradients numerically."""

import math
import warnings

import pytest
import torch
from helpers.caffe_layers import build, layer
from helpers.golden import golden_files, read_golden

X = [[-2.0, -1.0, 0.0, 1.0, 2.0, 4.0]]
# layer, x, y by hand
VALUES = {
    "relu": (layer("ReLU"), X, [[0, 0, 0, 1, 2, 4]]),
    "relu slope": (layer("ReLU", "relu_param { negative_slope: 0.25 }"), X,
                   [[-0.5, -0.25, 0, 1, 2, 4]]),
    "prelu shared": (layer("PReLU", "prelu_param { channel_shared: true filler { value: 0.5 } }"),
                     X, [[-1, -0.5, 0, 1, 2, 4]]),
    "sigmoid": (layer("Sigmoid"), [[0.0, math.log(3), -math.log(3)]], [[0.5, 0.75, 0.25]]),
    "tanh": (layer("TanH"), [[0.0, math.log(2)]], [[0, 0.6]]),
    "power": (layer("Power", "power_param { power: 2 scale: 0.5 shift: 1 }"), X,
              [[0, 0.25, 1, 2.25, 4, 9]]),
    "power 1": (layer("Power", "power_param { scale: -1 shift: 1 }"), X, [[3, 2, 1, 0, -1, -3]]),
    "power 0": (layer("Power", "power_param { power: 0 }"), X, [[1, 1, 1, 1, 1, 1]]),
    "bias": (layer("Bias", "bias_param { filler { value: 3 } }"), X, [[1, 2, 3, 4, 5, 7]]),
    "bias scalar": (layer("Bias", "bias_param { num_axes: 0 filler { value: 3 } }"), X,
                    [[1, 2, 3, 4, 5, 7]]),
    "scale": (layer("Scale", "scale_param { axis: 0 num_axes: -1 filler { value: 3 } "
                             "bias_term: true bias_filler { value: 1 } }"), X,
              [[-5, -2, 1, 4, 7, 13]]),
    "scale default": (layer("Scale"), X, X),
    "dropout": (layer("Dropout", "dropout_param { dropout_ratio: 0 }"), X, X),
    "split": (layer("Split"), X, X),
    "flatten": (layer("Flatten"), [[[1.0, 2], [3, 4]]], [[1, 2, 3, 4]]),
    "flatten end": (layer("Flatten", "flatten_param { axis: 0 end_axis: 1 }"),
                    [[[1.0, 2], [3, 4]]], [[1, 2], [3, 4]]),
    "reshape": (layer("Reshape", "reshape_param { shape { dim: 0 dim: -1 dim: 3 } }"), X,
                [[[-2, -1, 0], [1, 2, 4]]]),
    "reshape axis": (layer("Reshape", "reshape_param { shape { dim: 2 dim: -1 } axis: 1 "
                                      "num_axes: 1 }"), X, [[[-2, -1, 0], [1, 2, 4]]]),
    "reshape insert": (layer("Reshape", "reshape_param { shape { dim: 1 } axis: -1 num_axes: 0 }"),
                       X, [[[v] for v in X[0]]]),
    "argmax": (layer("ArgMax"), [[3.0, 1, 3, 2], [0, 0, 0, 0]], [[[2]], [[3]]]),
    "argmax pairs": (layer("ArgMax", "argmax_param { out_max_val: true top_k: 3 }"),
                     [[3.0, 1, 3, 2]], [[[2, 0, 3], [3, 3, 2]]]),
    "argmax axis": (layer("ArgMax", "argmax_param { axis: 1 top_k: 2 }"),
                    [[[1.0, 5], [2, 4], [0, 6]]], [[[1, 2], [0, 0]]]),
    "argmax values": (layer("ArgMax", "argmax_param { axis: -1 out_max_val: true }"),
                      [[[1.0, 5], [2, 4], [0, 6]]], [[[5], [4], [6]]]),
    "softmax axis": (layer("Softmax", "softmax_param { axis: 0 }"), [[0.0, 1], [math.log(3), 1]],
                     [[0.25, 0.5], [0.75, 0.5]]),
    "inner product": (layer("InnerProduct", "inner_product_param { num_output: 2 axis: -1 "
                            "weight_filler { value: 2 } bias_filler { value: 1 } }"),
                      [[[1.0, 2], [3, 4]]], [[[7, 7], [15, 15]]]),
    "pool indices": (layer("Pooling", "pooling_param { kernel_size: 2 stride: 2 }", tops="ym"),
                     [[[[1.0, 5, 2], [3, 4, 9]]]], [[[[5, 9]]]]),
}


@pytest.mark.parametrize(("text", "x", "y"), VALUES.values(), ids=VALUES)
def test_value_by_hand(tmp_path, text, x, y):
    x = torch.tensor(x, dtype=torch.float64)
    net = build(tmp_path, text, [x.shape])
    got = net(x=x)["y"]
    torch.testing.assert_close(got, torch.tensor(y, dtype=torch.float64))
    assert tuple(got.shape) == net.shapes["y"]


def test_pooling_gives_the_indices_of_maxima(tmp_path):
    text, x, _ = VALUES["pool indices"]
    net = build(tmp_path, text, [(1, 1, 2, 3)])
    assert net(x=torch.tensor(x))["m"].tolist() == [[[[1, 5]]]]


# layer, x, z, y by hand
TWO = {
    "product": (layer("Eltwise", "eltwise_param { operation: PROD }", "xz"),
                [[1.0, -2]], [[3.0, 4]], [[3, -8]]),
    "sum": (layer("Eltwise", "eltwise_param { coeff: 2 coeff: -1 }", "xz"),
            [[1.0, -2]], [[3.0, 4]], [[-1, -8]]),
    "concat": (layer("Concat", "concat_param { axis: 0 }", "xz"),
               [[1.0, 2]], [[3.0, 4]], [[1, 2], [3, 4]]),
    "concat dim": (layer("Concat", "concat_param { concat_dim: 1 }", "xz"),
                   [[1.0, 2]], [[3.0]], [[1, 2, 3]]),
    "scale": (layer("Scale", "scale_param { axis: 0 }", "xz"),
              [[1.0, 2], [3, 4]], [2.0, -1], [[2, 4], [-3, -4]]),
    "scale scalar": (layer("Scale", "", "xz"), [[1.0, 2]], 3.0, [[3, 6]]),
    "bias": (layer("Bias", "", "xz"), [[1.0, 2], [3, 4]], [2.0, -1], [[3, 1], [5, 3]]),
    "accuracy": (layer("Accuracy", "", "xz"), [[0.1, 0.9], [0.8, 0.2], [0.5, 0.5]], [1, 0, 0],
                 2 / 3),
    "accuracy top 2": (layer("Accuracy", "accuracy_param { top_k: 2 }", "xz"),
                       [[3.0, 2, 1], [3, 2, 1]], [1, 2], 0.5),
    "accuracy ignored": (layer("Accuracy", "accuracy_param { ignore_label: 255 }", "xz"),
                         [[0.1, 0.9], [0.8, 0.2], [0.8, 0.2]], [1, 255, 1], 0.5),
    "loss axis": (layer("SoftmaxWithLoss", "softmax_param { axis: 0 }", "xz"),
                  [[0.0, 0], [math.log(3), 0]], [0, 1], (math.log(4) + math.log(2)) / 2),
}


@pytest.mark.parametrize(("text", "x", "z", "y"), TWO.values(), ids=TWO)
def test_value_of_two_bottoms_by_hand(tmp_path, text, x, z, y):
    x, z = (torch.tensor(v, dtype=torch.float64) for v in (x, z))
    net = build(tmp_path, text, [x.shape, z.shape])
    got = net(x=x, z=z)["y"]
    torch.testing.assert_close(got, torch.tensor(y, dtype=torch.float64))


def test_accuracy_of_each_class(tmp_path):
    net = build(tmp_path, layer("Accuracy", "", "xz", "yc"), [(4, 3), (4,)])
    outputs = net(x=torch.eye(3)[[0, 1, 1, 0]], z=[0, 0, 1, 1])
    assert outputs["y"] == 0.5 and outputs["c"].tolist() == [0.5, 0.5, 0]


def test_eltwise_maximum_of_three_gives_ties_to_the_second(tmp_path):
    text = 'input: "a" input_shape { dim: 4 } ' + layer(
        "Eltwise", "eltwise_param { operation: MAX }", "xza")
    net = build(tmp_path, text, [(4,), (4,)])
    x, z, a = (torch.tensor(v, requires_grad=True, dtype=torch.float64)
               for v in ([1.0, 5, 2, 0], [1.0, 2, 2, 1], [1.0, 5, 3, 1]))
    y = net(x=x, z=z, a=a)["y"]
    y.sum().backward()
    assert y.tolist() == [1, 5, 3, 1]
    assert [v.grad.tolist() for v in (x, z, a)] == [[0, 1, 0, 0], [1, 0, 0, 1], [0, 0, 1, 0]]


@pytest.mark.parametrize(("fields", "parts"), [
    ("", [[[1.0], [4]], [[2], [5]], [[3], [6]]]),
    ("slice_param { axis: 0 slice_point: 1 }", [[[1.0, 2, 3]], [[4, 5, 6]]]),
    ("slice_param { slice_dim: 1 slice_point: 2 }", [[[1.0, 2], [4, 5]], [[3], [6]]])])
def test_slice(tmp_path, fields, parts):
    net = build(tmp_path, layer("Slice", fields, tops="abc"[:len(parts)]), [(2, 3)])
    outputs = net(x=torch.tensor([[1.0, 2, 3], [4, 5, 6]]))
    assert [part.tolist() for part in outputs.values()] == parts


def test_silence_consumes(tmp_path):
    net = build(tmp_path, layer("Split", tops="ab") + layer("Silence", "", "a", "").replace(
        '"l"', '"s"'), [(2, 3)])
    assert list(net(x=torch.zeros(2, 3))) == ["b"]


def test_dropout_scales_what_is_left(tmp_path):
    x = torch.ones(100, 100, dtype=torch.float64, requires_grad=True)
    text = layer("Dropout", "dropout_param { dropout_ratio: 0.2 }")
    y = build(tmp_path, text, [x.shape])(x=x)["y"]
    # The ratio is a float32.
    assert y.unique().tolist() == pytest.approx([0, 1.25])
    # 10,000 draws: four standard deviations are 0.016.
    assert (y == 0).double().mean().item() == pytest.approx(0.2, abs=0.016)
    y.sum().backward()
    assert torch.equal(x.grad, y)
    assert torch.equal(build(tmp_path, text, [x.shape], "TEST")(x=x)["y"], x)
    # In testing nothing is divided by 1 - ratio.
    text = layer("Dropout", "dropout_param { dropout_ratio: 1 }")
    assert torch.equal(build(tmp_path, text, [x.shape], "TEST")(x=x)["y"], x)


def test_batch_norm_in_training(tmp_path):
    net = build(tmp_path, layer("BatchNorm", "batch_norm_param { moving_average_fraction: 0.5 }"),
                [(2, 1, 1, 2)])
    x = torch.tensor([1.0, 3, 5, 7], dtype=torch.float64).view(2, 1, 1, 2)
    y = net(x=x)["y"]
    # Mean 4, biased variance 5, unbiased 20/3.
    torch.testing.assert_close(y, (x - 4) / math.sqrt(5 + 1e-5))
    net(x=x)
    assert [p.item() for p in net.params["l"]] == pytest.approx([6, 10, 1.5])
    # What was summed is divided by its weight.
    text = layer("BatchNorm", "batch_norm_param { use_global_stats: true }")
    fixed = build(tmp_path, text, [(2, 1, 1, 2)])
    fixed.load_state_dict(net.state_dict())
    torch.testing.assert_close(fixed(x=x)["y"], (x - 4) / math.sqrt(20 / 3 + 1e-5))


@pytest.mark.parametrize("frozen", ["", "frozen: true"])
@pytest.mark.parametrize("path", golden_files("sync_bn", "ranks1_*"))
@pytest.mark.filterwarnings("ignore:.*SyncBN ignores frozen")
def test_sync_bn_matches_golden(tmp_path, path, frozen):
    """The original's SyncBN does not read `frozen`."""
    arrays = read_golden(path)
    x = torch.from_numpy(arrays["x"][0]).double().requires_grad_()
    net = build(tmp_path, layer("SyncBN", f"bn_param {{ momentum: {float(arrays['momentum'])} "
                                          f"eps: {float(arrays['eps'])} {frozen} }}"), [x.shape])
    assert not any(tensor.any() for tensor in net.params["l"])  # frozen BN has a variance of 1
    names = ("slope", "bias", "running_mean", "running_var")
    with torch.no_grad():
        for tensor, name in zip(net.params["l"], names):
            tensor.copy_(torch.from_numpy(arrays[name]).view_as(tensor))
    y = net(x=x)["y"]
    y.backward(torch.from_numpy(arrays["dy"][0]).double())
    slope, bias, mean, var = net.params["l"]
    for got, name in ((y[None], "y"), (x.grad[None], "dx"), (slope.grad, "dslope"),
                      (bias.grad, "dbias"), (mean, "running_mean_out"), (var, "running_var_out")):
        wanted = torch.from_numpy(arrays[name]).double()
        # The files hold float64 results; eps and momentum pass through float32 in the prototxt.
        torch.testing.assert_close(got.detach().view_as(wanted), wanted, rtol=1e-6, atol=1e-6)


def test_bn_starts_at_zero_or_frozen_at_one(tmp_path):
    for frozen, variance in (("false", 0), ("true", 1)):
        net = build(tmp_path, layer("BN", f"bn_param {{ frozen: {frozen} }}"), [(1, 2, 1, 1)])
        assert [p.flatten().tolist() for p in net.params["l"]] == [[0, 0], [0, 0], [0, 0],
                                                                  [variance] * 2]


def test_sync_bn_warns_of_frozen(tmp_path):
    text = layer("SyncBN", "bn_param { frozen: true }")
    with pytest.warns(UserWarning, match="layer 'l': SyncBN ignores frozen: true.* \"BN\"$"):
        build(tmp_path, text, [(1, 2, 1, 1)])
    with pytest.warns(UserWarning, match="layer 'l' and 1 more: SyncBN ignores frozen"):
        build(tmp_path, text + text.replace('"l"', '"m"').replace('"x"', '"y"').replace(
            'top: "y"', 'top: "z"'), [(1, 2, 1, 1)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build(tmp_path, layer("SyncBN"), [(1, 2, 1, 1)])
        build(tmp_path, layer("BN", "bn_param { frozen: true }"), [(1, 2, 1, 1)])


GRADIENTS = {
    "relu": layer("ReLU", "relu_param { negative_slope: 0.3 }"), "sigmoid": layer("Sigmoid"),
    "tanh": layer("TanH"), "power": layer("Power", "power_param { power: 3 scale: 0.5 shift: 2 }"),
    "prelu": layer("PReLU"), "bias": layer("Bias"), "flatten": layer("Flatten"),
    "scale": layer("Scale", "scale_param { bias_term: true }"),
    "scale all": layer("Scale", "scale_param { num_axes: -1 }"),
    "reshape": layer("Reshape", "reshape_param { shape { dim: -1 } }"),
    "slice": layer("Slice", "slice_param { slice_point: 1 }", tops="ab"),
    "product": layer("Split", tops="ab") + layer(
        "Eltwise", "eltwise_param { operation: PROD }", "abx").replace('"l"', '"e"'),
    "softmax": layer("Softmax", "softmax_param { axis: 2 }"),
    "inner product": layer("InnerProduct", "inner_product_param { num_output: 3 transpose: true "
                           "weight_filler { type: 'xavier' } }"),
    "convolution": layer("Convolution", "convolution_param { num_output: 4 kernel_h: 3 kernel_w: 2 "
                         "pad_h: 1 stride_w: 2 dilation: 1 dilation: 2 group: 2 "
                         "weight_filler { type: 'msra' } }"),
    "deconvolution": layer("Deconvolution", "convolution_param { num_output: 2 kernel_size: 3 "
                           "stride: 2 pad: 1 dilation: 2 group: 2 "
                           "weight_filler { type: 'gaussian' } }"),
    "pooling": layer("Pooling", "pooling_param { kernel_size: 2 stride: 2 pad: 1 pool: AVE }"),
    "interp": layer("Interp", "interp_param { shrink_factor: 2 zoom_factor: 3 }"),
    "spp": layer("SPP", "spp_param { pyramid_height: 2 }"),
    "bn": layer("BN", "bn_param { slope_filler { value: 1.5 } }"),
    "batch norm": layer("BatchNorm", "batch_norm_param { update_global_stats: false }"),
}


@pytest.mark.parametrize("text", GRADIENTS.values(), ids=GRADIENTS)
def test_gradcheck(tmp_path, text):
    net = build(tmp_path, text, [(2, 4, 5, 4)])
    x = torch.randn(2, 4, 5, 4, dtype=torch.float64, requires_grad=True)
    learned = [p for p in net.parameters() if p.requires_grad]
    assert torch.autograd.gradcheck(lambda x, *_: tuple(net(x=x).values()), (x, *learned))


def test_gradcheck_of_every_loss(tmp_path):
    for mode in ("FULL", "VALID", "BATCH_SIZE", "NONE"):
        text = layer("SoftmaxWithLoss", "loss_weight: 0.4 loss_param { ignore_label: 255 "
                                        f"normalization: {mode} }}", "xz")
        net = build(tmp_path, text, [(2, 3, 2, 2), (2, 2, 2)])
        x = torch.randn(2, 3, 2, 2, dtype=torch.float64, requires_grad=True)
        z = torch.tensor([[[0, 1], [2, 255]], [[255, 2], [1, 0]]])

        def loss(x):
            net(x=x, z=z)
            return net.loss
        assert torch.autograd.gradcheck(loss, (x,))


def test_losses_are_weighted_sums(tmp_path):
    net = build(tmp_path, layer("Split", "loss_weight: 2 loss_weight: -1", tops="ab") + layer(
        "Power", "power_param { scale: 3 } loss_weight: 0.5", "a", "y").replace('"l"', '"p"'),
        [(2, 2)])
    x = torch.ones(2, 2, dtype=torch.float64, requires_grad=True)
    net(x=x)
    assert net.loss.item() == 4 * (2 - 1 + 1.5)
    net.loss.backward()
    assert x.grad.eq(2.5).all()


def test_propagate_down_stops_gradients(tmp_path):
    net = build(tmp_path, layer("Eltwise", "propagate_down: false propagate_down: true", "xz"),
                [(2, 2), (2, 2)])
    x, z = (torch.ones(2, 2, dtype=torch.float64, requires_grad=True) for _ in range(2))
    net(x=x, z=z)["y"].sum().backward()
    assert x.grad is None and z.grad.eq(1).all()


def test_layers_in_place_overwrite_their_blob(tmp_path):
    net = build(tmp_path, layer("Power", "power_param { shift: 1 }", "x", "x") + layer(
        "Power", "power_param { scale: 3 }", "x", "x").replace('"l"', '"m"'), [(1, 1)])
    x = torch.tensor([[2.0]], dtype=torch.float64)
    assert net(x=x)["x"].item() == 9 and net.blobs["x"].item() == 9 and x.item() == 2
