"""Networks that mean nothing: each is refused in a line that names file and layer."""

import numpy as np
import pytest
import torch

from prototxt_import import load_net, write_caffemodel
from prototxt_import.__main__ import main
from pspnet_repro.errors import UserError

INPUT = ('layer { name: "in" type: "Input" top: "x" '
         'input_param { shape { dim: 2 dim: 4 dim: 6 dim: 6 } } }')


def _layer(kind, fields, name="l"):
    return f'layer {{ name: "{name}" type: "{kind}" {fields} }}'


def _load(tmp_path, *layers, **kwargs):
    path = tmp_path / "net.prototxt"
    path.write_text("\n".join((INPUT, *layers)))
    return load_net(path, **kwargs)


XY = 'bottom: "x" top: "y"'
FILLED = " inner_product_param { num_output: 2 weight_filler { %s } }"
REFUSED = [
    ("Embed", XY, "type 'Embed' is not supported"),
    ("ReLU", 'bottom: "z" top: "y"', "bottom 'z' is made by no layer$"),
    ("ReLU", 'bottom: "y" top: "y"', "bottom 'y' is made by no layer before it, only by 'l'"),
    ("Split", 'bottom: "x" top: "y" top: "y"', "top 'y' is there already"),
    ("Split", 'bottom: "x" top: "y" top: "x"', "top 'x' is there already"),
    ("ReLU", 'top: "y"', "needs 1 bottoms, got 0"),
    ("TanH", 'bottom: "x" top: "y" top: "z"', "needs 1 tops, got 2"),
    ("ReLU", XY + ' propagate_down: true propagate_down: true', "propagate_down must be given for"),
    ("ReLU", XY + ' loss_weight: 1 loss_weight: 1', "loss_weight must be given for each top"),
    ("ReLU", XY + ' loss_weight: nan', "loss_weight must be finite as float32, got nan"),
    ("Eltwise", 'bottom: "x" bottom: "x" top: "y" eltwise_param { coeff: 1 coeff: inf }',
     "coeff must be finite as float32, got inf"),
    ("ReLU", XY + ' param { }', "has 0 parameters, its param fields 1"),
    ("Convolution", XY + " convolution_param { kernel_size: 3 }", "num_output must be at least 1"),
    ("Convolution", XY + " convolution_param { num_output: 2 }", "needs kernel_size, or kernel_h"),
    ("Convolution", XY + " convolution_param { num_output: 2 kernel_h: 3 }", "needs kernel_size"),
    ("Convolution", XY + " convolution_param { num_output: 2 kernel_size: 3 kernel_h: 3 }",
     "must have kernel_size or kernel_h and kernel_w, got both"),
    ("Convolution", XY + " convolution_param { num_output: 2 kernel_size: 9 }",
     "its kernel covers 9 pixels, its padded input has 6"),
    ("Convolution", XY + " convolution_param { num_output: 2 kernel_size: 1 stride: 0 }",
     "stride must be 1 to"),
    ("Convolution", XY + " convolution_param { num_output: 3 kernel_size: 1 group: 2 }",
     "group must divide 4 inputs and 3 outputs, got 2"),
    ("Convolution", XY + " convolution_param { num_output: 3 kernel_size: 1 axis: 2 }",
     "axis must be 1, got 2"),
    ("Convolution", XY + ' convolution_param { num_output: 3 kernel_size: 1 '
                         'weight_filler { type: "cubic" } }',
     "filler must be one of constant, uniform, gaussian, xavier, msra, bilinear, "
     "positive_unitball, identity, got 'cubic'"),
    ("Deconvolution", XY + " convolution_param { num_output: 2 kernel_size: 1 pad: 4 }",
     "its top must have at least one pixel"),
    ("Pooling", XY + " pooling_param { pool: STOCHASTIC kernel_size: 2 }", "must be MAX or AVE"),
    ("Pooling", XY + " pooling_param { }", "kernel_size must be 1 to"),
    ("Pooling", XY + " pooling_param { kernel_size: 2 pad: 2 }", "padding must be less than"),
    ("Pooling", XY + " pooling_param { kernel_h: 2 }", "needs both kernel_h and kernel_w"),
    ("Pooling", XY + " pooling_param { global_pooling: true kernel_size: 2 }",
     "global_pooling must stand without a kernel size"),
    ("Pooling", XY + " pooling_param { global_pooling: true stride: 2 }", "global_pooling must"),
    ("SPP", XY + " spp_param { pyramid_height: 40 }", "pyramid_height must be 1 to 12, got 40"),
    ("Interp", XY, "needs shrink_factor, zoom_factor, or height and width"),
    ("Interp", XY + " interp_param { zoom_factor: 0 }", "zoom_factor must be at least 1, got 0"),
    ("Interp", XY + " interp_param { zoom_factor: 2 pad_beg: 1 }", "pad_begin must be at most 0"),
    ("Interp", XY + " interp_param { zoom_factor: 2 pad_beg: -9 }", "out_size must be at least 1"),
    ("Interp", XY + " interp_param { height: 100000000 width: 1 }", "must be at most 16777216"),
    ("BN", XY + " bn_param { eps: 0 }", "eps must be above 0"),
    ("BN", XY + " bn_param { momentum: 2 }", "momentum must be 0 to 1, got 2"),
    ("Dropout", XY + " phase: TRAIN dropout_param { dropout_ratio: 1 }",
     "dropout_ratio must be at least 0 and below 1, got 1"),
    ("Dropout", XY + " dropout_param { dropout_ratio: 1.5 }", "dropout_ratio must be at least 0"),
    ("Dropout", XY + " dropout_param { dropout_ratio: 1 sample_weights_test: true }",
     "dropout_ratio must be at least 0"),
    ("Eltwise", XY, "needs at least 2 bottoms, got 1"),
    ("Concat", XY + " concat_param { axis: 4 }", "axis must be an axis of .2, 4, 6, 6., got 4"),
    ("Slice", 'bottom: "x" top: "a" top: "b" top: "c"', "3 tops must divide axis 1 of"),
    ("Slice", 'bottom: "x" top: "a" top: "b" slice_param { slice_point: 4 }',
     "slice_point must rise within 0 to 4"),
    ("Reshape", XY + " reshape_param { shape { dim: 5 dim: -1 } }", "must divide the 288 elements"),
    ("Reshape", XY + " reshape_param { shape { dim: -1 dim: -1 } }", "dim must be -1 at most once"),
    ("Flatten", XY + " flatten_param { axis: 3 end_axis: 1 }", "axis must be at most end_axis 1"),
    ("Scale", XY + " scale_param { axis: 3 num_axes: 2 }", "num_axes must fit"),
    ("Bias", XY + " bias_param { axis: 1 channel_shared: false }",
     "channel_shared stands in place of axis and num_axes"),
    ("ArgMax", XY + " argmax_param { top_k: 5 axis: 1 }", "top_k must be 1 to 4, got 5"),
    ("SoftmaxWithLoss", 'bottom: "x" bottom: "x" top: "y"', "need 72 labels, got .2, 4, 6, 6."),
    ("InnerProduct", XY + " inner_product_param { num_output: 4000000 }",
     "parameters up to this layer must be at most 2147483648 bytes, got 2320000000"),
    ("Reshape", XY + " reshape_param { shape { %s } }" % ("dim: -1" + " dim: 1" * 40),
     "at most 32 axes"),
    ("InnerProduct", XY + FILLED % 'type: "uniform" min: -3e38 max: 3e38',
     "their difference a float32, got min -3"),
    ("InnerProduct", XY + FILLED % 'type: "uniform" min: 1 max: 0',
     "min must be at most its max"),
    ("InnerProduct", XY + FILLED % 'type: "uniform" min: nan',
     "filler's min must be finite as float32, got nan"),
    ("InnerProduct", XY + FILLED % 'value: nan',
     "filler's value must be finite as float32, got nan"),
    ("InnerProduct", XY + FILLED % 'value: 1e39',
     "filler's value must be finite as float32, got inf"),
    ("InnerProduct", XY + FILLED % 'type: "gaussian" mean: nan',
     "filler's mean must be finite as float32, got nan"),
    ("InnerProduct", XY + FILLED % 'type: "gaussian" std: -1',
     "filler's std must be at least 0, got -1"),
    ("ReLU", XY + " relu_param { negative_slope: nan }", "negative_slope must be finite as"),
    ("Power", XY + " power_param { power: nan }", "power must be finite as float32, got nan"),
    ("Power", XY + " power_param { scale: inf }", "scale must be finite as float32, got inf"),
    ("Power", XY + " power_param { shift: nan }", "shift must be finite as float32, got nan"),
    ("Interp", XY + " interp_param { zoom_factor: 100000 }", "at most 2147483647 elements"),
]


@pytest.mark.parametrize(("kind", "fields", "message"), REFUSED)
def test_layer_is_refused(tmp_path, kind, fields, message):
    pattern = rf"net.prototxt: layer 'l' \({kind}\): .*{message}"
    with pytest.raises(UserError, match=pattern) as raised:
        _load(tmp_path, _layer(kind, fields))
    assert "\n" not in str(raised.value)


def test_cycle_is_refused(tmp_path):
    with pytest.raises(UserError, match="layer 'a' .Eltwise.: bottom 'q' is made by no layer "
                                        "before it, only by 'b': a cycle"):
        _load(tmp_path, _layer("Eltwise", 'bottom: "x" bottom: "q" top: "p"', "a"),
              _layer("ReLU", 'bottom: "p" top: "q"', "b"))


@pytest.mark.parametrize("kind", ["Eltwise", "Concat"])
def test_bottoms_of_different_shapes_are_refused(tmp_path, kind):
    pool = _layer("Pooling", 'bottom: "x" top: "p" pooling_param { kernel_size: 2 stride: 2 }', "p")
    with pytest.raises(UserError, match="its bottoms must be alike"):
        _load(tmp_path, pool, _layer(kind, 'bottom: "x" bottom: "p" top: "y"'))


IP = 'bottom: "x" top: "%s" %s inner_product_param { num_output: %d bias_term: false %s }'


def test_layers_of_one_name_have_parameters_of_their_own(tmp_path):
    with pytest.warns(UserWarning, match="another layer with parameters has this name: here this "
                                         "one is 'l#2', with parameters of its own"):
        net = _load(tmp_path, _layer("InnerProduct", IP % ("a", "", 2, "")),
                    _layer("InnerProduct", IP % ("b", "", 3, "")))
    assert {name: tuple(p.shape) for name, (p,) in net.params.items()} == {
        "l": (2, 144), "l#2": (3, 144)}


@pytest.mark.parametrize(("first", "second", "message"), [
    ('name: "w"', 'name: "w"', r"shares 'w' of shape \(2, 144\), needs \(8, 36\)"),
    ('name: "w" lr_mult: 2', 'name: "w" lr_mult: 3 share_mode: PERMISSIVE',
     "shares 'w', whose lr_mult is 2.0, got 3.0")])
def test_shared_parameters_must_fit(tmp_path, first, second, message):
    with pytest.raises(UserError, match=message):
        _load(tmp_path, _layer("InnerProduct", IP % ("a", f"param {{ {first} }}", 2, ""), "a"),
              _layer("InnerProduct", IP % ("b", f"param {{ {second} }}", 8, "axis: 2"), "b"))


@pytest.mark.parametrize(("text", "message"), [
    ('name: "n"', "input: the network has none"),
    ('input: "x" input_dim: 1', "1 inputs need 4 input_dim, got 1"),
    ('input: "x" input: "x" input_shape { dim: 1 } input_shape { dim: 1 }', "names a blob twice"),
    ('input: "x" input_shape { dim: 1 } input_dim: 1', "input_shape or input_dim, got both"),
    ('input: "x" input_shape { dim: 0 }', "sizes of a blob must be at least 1, got .0,."),
    ('input: "x" input_shape { dim: 65536 dim: 65536 }', "at most 2147483647 elements"),
    (INPUT + INPUT, "'x'. are there twice"),
    ('layer { name: "d" type: "Input" top: "a" top: "b" }', "a shape for each of its 2 tops")])
def test_inputs_are_refused(tmp_path, text, message):
    path = tmp_path / "net.prototxt"
    path.write_text(text)
    with pytest.raises(UserError, match=f"net.prototxt: .*{message}"):
        load_net(path)


def test_calls_are_refused(tmp_path):
    net = _load(tmp_path, _layer("InnerProduct", IP % ("y", "", 2, "")))
    with pytest.raises(UserError, match="input: 'x' is missing"):
        net()
    with pytest.raises(UserError, match=r"input: 'z' is none of \['x'\]"):
        net(x=torch.zeros(2, 4, 6, 6), z=1)
    with pytest.raises(UserError, match=r"layer 'l' .*blob 0 to be \(2, 36\), it is \(2, 144\)"):
        net(x=torch.zeros(2, 1, 6, 6))
    # A refused call leaves the network as it was.
    assert net(x=torch.zeros(3, 4, 6, 6))["y"].shape == (3, 2)
    with pytest.raises(UserError, match='phase must be "TEST" or "TRAIN", got \'test\''):
        _load(tmp_path, phase="test")
    with pytest.raises(UserError, match="shapes name .'q'., inputs are .'x'."):
        _load(tmp_path, shapes={"q": (1,)})


def test_sizes_that_no_one_tells_are_refused(tmp_path, capsys):
    path = tmp_path / "net.prototxt"
    path.write_text('layer { name: "d" type: "Data" top: "x" top: "t" }' + _layer("ReLU", XY))
    assert main(["inspect", str(path)]) == 1
    assert capsys.readouterr().err == (
        f"error: {path}: the sizes of x, t are not in the file: give them with "
        "--shape x=N,C,H,W --shape t=N,C,H,W\n")
    net = load_net(path)
    with pytest.raises(UserError, match="input: 'x' is missing"):
        net(t=torch.zeros(1))
    assert net(x=torch.ones(1))["y"].item() == 1


def test_labels_beyond_the_classes_are_refused(tmp_path):
    net = _load(tmp_path, 'layer { name: "lab" type: "Input" top: "t" input_param { shape { dim: 2 '
                          'dim: 6 dim: 6 } } }',
                _layer("SoftmaxWithLoss", 'bottom: "x" bottom: "t" top: "y"'))
    labels = np.zeros((2, 6, 6))
    labels[1, 2, 3] = 255
    with pytest.raises(UserError, match=r"layer 'l' \(SoftmaxWithLoss\): labels must be 0 to 3, "
                                        "got 255"):
        net(x=torch.zeros(2, 4, 6, 6), t=labels)


W = np.zeros((2, 144), np.float32)


@pytest.mark.parametrize(("layers", "message"), [
    ({"l": ("InnerProduct", [W, W])}, "layer 'l' needs 1 blob, has 2"),
    ({"l": ("InnerProduct", [W.T])}, r"layer 'l', blob 0: needs shape \(2, 144\), has \(144, 2\)"),
    ({"other": ("InnerProduct", [W])}, "fits another network: 0 of 1 layer of .*prototxt match$")])
def test_weights_that_do_not_fit_are_refused(tmp_path, layers, message):
    write_caffemodel(tmp_path / "w.caffemodel", "n", layers)
    with pytest.raises(UserError, match=f"w.caffemodel: {message}"):
        _load(tmp_path, _layer("InnerProduct", IP % ("y", "", 2, "")),
              caffemodel=tmp_path / "w.caffemodel")


def test_layers_that_the_weights_lack_are_warned_of(tmp_path):
    write_caffemodel(tmp_path / "w.caffemodel", "n", {"l": ("ConvolutionData", [W[None, None] + 3]),
                                                      "aux": ("BNData", [W])})
    with pytest.warns(UserWarning, match="lacks 1 layer .* first 'm'"):
        net = _load(tmp_path, _layer("InnerProduct", IP % ("y", "", 2, "")),
                    _layer("InnerProduct", IP % ("z", "", 2, ""), "m"),
                    caffemodel=tmp_path / "w.caffemodel")
    assert net.params["l"][0].eq(3).all() and net.params["m"][0].eq(0).all()


@pytest.mark.parametrize("shape", [(1, 4, 1, 1), (1, 4), (4,), (1, 1, 1, 4)], ids=str)
def test_bn_blobs_of_older_shapes_are_read(tmp_path, shape):
    blobs = [np.arange(4, dtype=np.float32).reshape(shape) + k for k in range(4)]
    write_caffemodel(tmp_path / "w.caffemodel", "n", {"l": ("BNData", blobs)})
    net = _load(tmp_path, _layer("BN", XY), caffemodel=tmp_path / "w.caffemodel")
    assert [p.flatten().tolist() for p in net.params["l"]] == [[k, k + 1, k + 2, k + 3]
                                                               for k in range(4)]
    assert {tuple(p.shape) for p in net.params["l"]} == {(1, 4, 1, 1)}


def test_commands_print_one_line(tmp_path, capsys):
    path = tmp_path / "net.prototxt"
    path.write_text(INPUT + _layer("Embed", XY))
    assert main(["inspect", str(path)]) == 1
    said = capsys.readouterr().err
    assert said == (f"error: {path}: layer 'l' (Embed): type 'Embed' is not supported; "
                    "docs/caffe-files.md lists the types that are; remove such a layer\n")
    path.write_text(INPUT)
    weights = tmp_path / "w.caffemodel"
    write_caffemodel(weights, "n", {"a": ("X", [W])})
    for args, message in [(["run", str(path), str(weights)], "needs --output, --compare or both"),
                          (["run", str(path), str(weights), "-o", "a.npz"], "no input of images"),
                          (["run", str(path), str(weights), "--compare", str(weights)],
                           "not an .npz file of arrays")]:
        assert main(args) in (1, 2)
        said = capsys.readouterr().err
        assert message in said and said.count("\n") == 1
