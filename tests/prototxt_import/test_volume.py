"""Convolution, Deconvolution and Pooling of blobs with one and three axes of pixels."""

import itertools

import numpy as np
import pytest
import torch
from helpers.caffe_layers import build, layer

from prototxt_import import load_net
from pspnet_repro.errors import UserError


def _windows(size, kernel, stride, pad, dilation, out):
    """((place in the top), (place in the bottom), (place in the kernel)) of all products."""
    for place in itertools.product(*map(range, out)):
        for inside in itertools.product(*map(range, kernel)):
            at = [o * s - p + i * d for o, s, p, i, d in zip(place, stride, pad, inside, dilation)]
            if all(0 <= a < n for a, n in zip(at, size)):
                yield place, tuple(at), inside


def _convolved(x, weight, bias, group, stride, pad, dilation, out):
    y = np.zeros((len(x), len(weight), *out)) + bias.reshape(-1, *[1] * len(out))
    inputs, outputs = weight.shape[1], len(weight) // group
    for place, at, inside in _windows(x.shape[2:], weight.shape[2:], stride, pad, dilation, out):
        for o in range(len(weight)):
            first = o // outputs * inputs
            y[(slice(None), o, *place)] += (x[(slice(None), slice(first, first + inputs), *at)]
                                            @ weight[(o, slice(None), *inside)])
    return y


CONVOLUTIONS = {
    "1 axis": ((2, 4, 9), "num_output: 6 kernel_size: 3 stride: 2 pad: 1 dilation: 2 group: 2",
               ([2], [1], [2]), [4]),
    "3 axes": ((2, 2, 4, 5, 6), "num_output: 3 kernel_size: 3 pad: 1", ([1] * 3, [1] * 3, [1] * 3),
               [4, 5, 6]),
    "each axis": ((1, 2, 5, 4, 6), "num_output: 2 kernel_size: 2 kernel_size: 3 kernel_size: 1 "
                  "stride: 1 stride: 2 stride: 3 pad: 0 pad: 1 pad: 2 dilation: 2",
                  ([1, 2, 3], [0, 1, 2], [2] * 3), [3, 1, 4]),
}


def _net(tmp_path, kind, fields, shape):
    net = build(tmp_path, layer(kind, f"convolution_param {{ {fields} weight_filler {{ type: "
                                "'msra' } bias_filler { type: 'gaussian' } }"), [shape])
    return net, [p.detach().numpy() for p in net.params["l"]]


@pytest.mark.parametrize(("shape", "fields", "window", "out"), CONVOLUTIONS.values(),
                         ids=CONVOLUTIONS)
def test_convolution_sums_windows(tmp_path, shape, fields, window, out):
    net, (weight, bias) = _net(tmp_path, "Convolution", fields, shape)
    x = torch.randn(shape, dtype=torch.float64)
    want = _convolved(x.numpy(), weight, bias, 2 if "group" in fields else 1, *window, out)
    assert net.shapes["y"] == want.shape
    torch.testing.assert_close(net(x=x)["y"].detach().numpy(), want)


@pytest.mark.parametrize(("shape", "fields", "window", "out"), CONVOLUTIONS.values(),
                         ids=CONVOLUTIONS)
def test_deconvolution_is_the_adjoint_of_convolution(tmp_path, shape, fields, window, out):
    """The sum of x * deconvolution(y) is that of convolution(x) * y."""
    group = 2 if "group" in fields else 1
    y = torch.randn(shape, dtype=torch.float64)
    net, (weight, bias) = _net(tmp_path, "Deconvolution", fields, shape)
    top = net(x=y)["y"].detach().numpy()
    x = np.random.RandomState(0).randn(*top.shape)
    back = _convolved(x, weight, np.zeros(len(weight)), group, *window, shape[2:])
    without = top - bias.reshape(-1, *[1] * len(out))
    np.testing.assert_allclose((x * without).sum(), (back * y.numpy()).sum(), rtol=1e-12)


def _pooled(x, mode, kernel, stride, pad, out):
    """As the loops of 3D-Caffe: means over the part of a window in the padded input."""
    y = np.full((*x.shape[:2], *out), -np.inf if mode == "MAX" else 0.0)
    for place, at, _ in _windows(x.shape[2:], kernel, stride, pad, [1] * len(out), out):
        here, value = (..., *place), x[(..., *at)]
        y[here] = np.maximum(y[here], value) if mode == "MAX" else y[here] + value
    if mode == "AVE":
        for place in itertools.product(*map(range, out)):
            sides = [min(o * s - p + k, n + p) - (o * s - p) for o, s, p, k, n in
                     zip(place, stride, pad, kernel, x.shape[2:])]
            y[(..., *place)] /= np.prod(sides)
    return y


POOLINGS = {
    "rounds up": ((2, 3, 5, 6, 7), "kernel_size: 3 stride: 2", ([3] * 3, [2] * 3, [0] * 3),
                  [2, 3, 3]),
    "padded": ((1, 2, 4, 5, 6), "kernel_size: 3 stride: 2 pad: 1", ([3] * 3, [2] * 3, [1] * 3),
               [3, 3, 4]),
    "last window in the padding": ((1, 2, 3, 3, 3), "kernel_size: 2 stride: 2 pad: 1",
                                   ([2] * 3, [2] * 3, [1] * 3), [2] * 3),
    "each axis": ((1, 1, 4, 5, 6), "kernel_size: 1 kernel_size: 2 kernel_size: 3 stride: 1 "
                  "stride: 2 stride: 2 pad: 0 pad: 1 pad: 0", ([1, 2, 3], [1, 2, 2], [0, 1, 0]),
                  [4, 3, 3]),
    "rounds down": ((1, 1, 5, 6, 7), "kernel_size: 2 stride: 2 round_mode: FLOOR",
                    ([2] * 3, [2] * 3, [0] * 3), [2, 3, 3]),
    "global": ((2, 2, 3, 2, 4), "global_pooling: true", ([3, 2, 4], [1] * 3, [0] * 3), [1] * 3),
    "1 axis": ((2, 3, 8), "kernel_size: 3 stride: 2 pad: 1", ([3], [2], [1]), [5]),
    "wider than its input": ((1, 2, 2, 4, 4), "kernel_size: 3 stride: 2",
                             ([3] * 3, [2] * 3, [0] * 3), [1, 2, 2]),
}


@pytest.mark.parametrize("mode", ["MAX", "AVE"])
@pytest.mark.parametrize(("shape", "fields", "window", "out"), POOLINGS.values(), ids=POOLINGS)
def test_pooling_of_windows(tmp_path, shape, fields, window, out, mode):
    net = build(tmp_path, layer("Pooling", f"pooling_param {{ pool: {mode} {fields} }}"), [shape])
    x = torch.randn(shape, dtype=torch.float64)
    want = _pooled(x.numpy(), mode, *window, out)
    assert net.shapes["y"] == want.shape
    torch.testing.assert_close(net(x=x)["y"].numpy(), want)


# (layer, the same for images or volumes of BVLC's Caffe), input
SAME = {
    "video-caffe's convolution": (
        layer("NdConvolution", "convolution_param { num_output: 2 kernel_shape { dim: 1 dim: 2 "
              "dim: 3 } stride_shape { dim: 1 dim: 2 dim: 1 } pad_shape { dim: 0 dim: 1 dim: 1 } "
              "weight_filler { value: 0.5 } }"),
        layer("Convolution", "convolution_param { num_output: 2 kernel_size: [1, 2, 3] stride: [1, "
              "2, 1] pad: [0, 1, 1] weight_filler { value: 0.5 } }"), (1, 2, 3, 4, 5)),
    "video-caffe's pooling": (
        layer("NdPooling", "pooling_param { kernel_shape { dim: 1 dim: 2 dim: 2 } stride_shape { "
              "dim: 1 dim: 2 dim: 2 } }"),
        layer("Pooling", "pooling_param { kernel_size: 1 kernel_size: 2 kernel_size: 2 stride: 1 "
              "stride: 2 stride: 2 }"), (1, 2, 3, 4, 5)),
    "3D-Caffe's pooling": (
        layer("PoolingND", "pooling_nd_param { pool: AVE kernel_size: 2 stride: 2 }"),
        layer("Pooling", "pooling_param { pool: AVE kernel_size: 2 stride: 2 }"), (1, 2, 3, 4, 5)),
    "3D-Caffe's pooling of images": (
        layer("PoolingND", "pooling_nd_param { pool: AVE kernel_size: 2 stride: 2 }"),
        layer("Pooling", "pooling_param { pool: AVE kernel_size: 2 stride: 2 }"), (1, 2, 4, 5)),
    "C3D's convolution": (
        layer("Convolution3D", "convolution_param { num_output: 2 kernel_size: 3 kernel_depth: 2 "
              "stride: 2 temporal_stride: 3 pad: 2 temporal_pad: 1 weight_filler { value: 0.5 } }"),
        layer("Convolution", "convolution_param { num_output: 2 kernel_size: [2, 3, 3] stride: [3, "
              "2, 2] pad: [1, 2, 2] weight_filler { value: 0.5 } }"), (1, 2, 3, 4, 5)),
    "C3D's pooling": (
        layer("Pooling3D", "pooling3d_param { kernel_size: 2 kernel_depth: 1 stride: 2 }"),
        layer("Pooling", "pooling_param { kernel_size: 1 kernel_size: 2 kernel_size: 2 stride: 1 "
              "stride: 2 stride: 2 }"), (1, 2, 3, 4, 5)),
    "shapes of images": (
        layer("NdPooling", "pooling_param { kernel_shape { dim: 2 dim: 3 } pad_shape { dim: 0 dim: "
              "1 } }"),
        layer("Pooling", "pooling_param { kernel_h: 2 kernel_w: 3 pad_h: 0 pad_w: 1 }"),
        (1, 2, 4, 5)),
}


@pytest.mark.parametrize(("text", "same", "shape"), SAME.values(), ids=SAME)
def test_layers_of_forks_are_these(tmp_path, text, same, shape):
    x = torch.randn(shape, dtype=torch.float64)
    got, want = (build(tmp_path, each, [shape])(x=x)["y"] for each in (text, same))
    assert torch.equal(got, want)


@pytest.mark.parametrize("text", [
    layer("Convolution", "convolution_param { num_output: 2 kernel_size: 2 stride: 2 pad: 1 "
          "weight_filler { type: 'msra' } }"),
    layer("Deconvolution", "convolution_param { num_output: 2 kernel_size: 3 stride: 2 pad: 1 "
          "weight_filler { type: 'msra' } }"),
    layer("Pooling", "pooling_param { kernel_size: 2 stride: 2 }"),
    layer("Pooling", "pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1 }")])
@pytest.mark.parametrize("shape", [(1, 2, 3, 4, 3), (2, 2, 5)])
def test_gradcheck(tmp_path, text, shape):
    net = build(tmp_path, text, [shape])
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)

    def function(x, *parameters):
        return torch.func.functional_call(net, dict(zip(names, parameters)), (), {"x": x})["y"]

    names = [name for name, _ in net.named_parameters()]
    assert torch.autograd.gradcheck(function, (x, *net.parameters()))


def _conv(fields):
    return layer("Convolution", f"convolution_param {{ num_output: 1 {fields} }}")


def _pool(fields, tops="y"):
    return layer("Pooling", f"pooling_param {{ {fields} }}", tops=tops)


def _c3d(fields):
    return layer("Pooling3D", f"pooling_param {{ {fields} }}")


REJECTED = [
    (_c3d("kernel_size: 2"), (1, 1, 3, 3, 3), "needs kernel_depth"),
    (_c3d("kernel_depth: 2"), (1, 1, 3, 3, 3), "needs kernel_size"),
    (_c3d("kernel_depth: 0 kernel_size: 2"), (1, 1, 3, 3, 3), "kernel_shape's dim must be 1 to"),
    (_c3d("kernel_depth: 2 kernel_size: 2 pad: 1"), (1, 1, 3, 3, 3), "pad must be 0, got"),
    (_c3d("kernel_depth: 2 kernel_size: 2"), (1, 1, 3, 3), r"must be 5-D \(N, C, frames, H, W\)"),
    (layer("Convolution3D", "convolution3d_param { num_output: 2 kernel_depth: 2 kernel_size: 2 "
           "group: 2 }"), (1, 2, 3, 3, 3), "group must be 1, got 2"),
    (_conv("kernel_size: 2 kernel_depth: 2"), (1, 1, 3, 3, 3), "kernel_depth is not for a bottom"),
    (_conv("kernel_size: 2 temporal_pad: 2"), (1, 1, 3, 3), "temporal_pad is not for Convol"),
    (_pool("kernel_size: 2 kernel_depth: 2"), (1, 1, 3, 3), "kernel_depth is not for Pooling of"),
    (layer("ConvolutionDepthwise", "convolution_param { num_output: 1 kernel_size: 2 stride_shape "
           "{ dim: 2 dim: 2 } }"), (1, 1, 3, 3), "stride_shape is not for ConvolutionDepthwise"),
    (_conv("kernel_size: 1"), (2, 3), r"must be \(N, C\) and 1 to 3 axes of pixels, got \(2, 3\)"),
    (_conv("kernel_size: [1, 2]"), (1, 1, 3, 3, 3), "kernel_size must be given once or 3 times, got"
                                                    " 2 times"),
    (_conv("stride: 2"), (1, 1, 3, 3, 3), "needs kernel_size"),
    (_conv("kernel_h: 2 kernel_w: 2"), (1, 1, 3, 3, 3), "kernel_h is not for a bottom with 5 axes"),
    (_conv("kernel_size: 2 hole: 2"), (1, 1, 3, 3, 3), "hole is not for a bottom with 5 axes"),
    (_conv("kernel_size: 4"), (1, 1, 3, 3, 3), r"kernel covers \[4, 4, 4\] pixels, its padded input"
                                               r" has \[3, 3, 3\]"),
    (_conv("kernel_size: 1 axis: 2"), (1, 1, 3, 3, 3), "axis must be 1, got 2"),
    (_conv("kernel_size: 1 group: 2"), (1, 1, 3, 3, 3), "group must divide 1 inputs"),
    (_pool("kernel_size: 2 stride: 0"), (1, 1, 3, 3, 3), "stride must be 1 to 1048575, got 0"),
    (_pool("kernel_size: 2 pad: 2"), (1, 1, 3, 3, 3), r"pad must be below the kernel's \[2"),
    (_pool("kernel_size: 1 stride: 4"), (1, 1, 3, 3, 3), "its windows must begin in its padded"),
    (_pool("kernel_size: 2", "yz"), (1, 1, 3, 3, 3), "needs 1 tops, got 2"),
    (_pool("kernel_size: 2 pool: STOCHASTIC"), (1, 1, 3, 3, 3), "pool must be MAX or AVE, got S"),
    (_pool("kernel_size: 2 kernel_size: 2"), (1, 1, 3, 3), "kernel_size is given twice"),
    (_pool("kernel_size: 2 kernel_size: 2 kernel_size: 2"), (1, 1, 3, 3),
     "kernel_shape is not for Pooling of images"),
    (_conv("kernel_size: 1 stride_shape { dim: 2 dim: 2 }"), (1, 1, 3, 3),
     "stride_shape is not for Convolution of images"),
    (_pool("global_pooling: true kernel_size: 2"), (1, 1, 3, 3, 3),
     "must stand without kernel_size"),
    (_pool("global_pooling: true stride_w: 2 pad: 1"), (1, 1, 3, 3, 3),
     "must stand without pad, stride_w"),
]


@pytest.mark.parametrize("kind", ["Convolution", "Deconvolution", "Pooling", "NdConvolution",
                                  "NdPooling", "PoolingND", "Convolution3D", "Pooling3D",
                                  "ConvolutionDepthwise", "DepthwiseConvolution"])
def test_a_layer_without_bottoms_is_refused(tmp_path, kind):
    (tmp_path / "net.prototxt").write_text(f"""
        layer {{ name: "data" type: "Input" top: "x" input_param {{ shape {{ dim: [1, 1, 3, 3] }} }}
        }} layer {{ name: "l" type: "{kind}" top: "y" }}""")
    with pytest.raises(UserError, match="needs (at least )?1 bottom"):
        load_net(tmp_path / "net.prototxt")


@pytest.mark.parametrize(("text", "shape", "match"), REJECTED)
def test_rejects(tmp_path, text, shape, match):
    with pytest.raises(UserError, match=match):
        build(tmp_path, text, [shape])


def test_a_network_of_c3d(tmp_path):
    """The first format, as the feature extractor of C3D has it."""
    (tmp_path / "net.prototxt").write_text("""
        layers { name: "data" type: VIDEO_DATA top: "data" top: "label" image_data_param {
          source: "list" use_image: true new_length: 16 batch_size: 1 crop_size: 112 } }
        layers { name: "conv1a" type: CONVOLUTION3D bottom: "data" top: "conv1a" blobs_lr: 1
          convolution_param { num_output: 4 kernel_size: 3 kernel_depth: 3 pad: 1 temporal_pad: 1 }
          }
        layers { name: "pool1" type: POOLING3D bottom: "conv1a" top: "pool1" pooling_param {
          pool: MAX kernel_size: 2 kernel_depth: 1 stride: 2 temporal_stride: 1 } }
        layers { name: "fc6" type: INNER_PRODUCT bottom: "pool1" top: "fc6" inner_product_param {
          num_output: 2 } }""")
    net = load_net(tmp_path / "net.prototxt", shapes={"data": (1, 3, 4, 9, 8)})
    net(data=torch.zeros(1, 3, 4, 9, 8))
    assert net.shapes["conv1a"] == (1, 4, 4, 9, 8) and net.shapes["pool1"] == (1, 4, 4, 5, 4)
    assert net.params["fc6"][0].shape == (2, 320)
