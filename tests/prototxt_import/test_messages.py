"""What is said of networks that lack something: types, phases, sizes, values."""

import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.caffe_layers import layer

from prototxt_import import load_net, write_caffemodel
from prototxt_import.__main__ import main
from pspnet_repro.errors import UserError

CONV = ('layer { name: "c" type: "Convolution" bottom: "data" top: "c" '
        'convolution_param { num_output: 4 kernel_size: 1 } }')
TRAIN_DATA = ('layer { name: "d" type: "Data" top: "data" top: "label" include { phase: TRAIN } '
              'data_param { batch_size: 10 source: "${LIST}" } transform_param { %s } }')


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "net.prototxt"
        path.write_text(text)
        return path
    return write


def _refusal(path, *args):
    with pytest.raises(UserError) as raised:
        load_net(path, *args)
    return str(raised.value)


def test_all_types_that_are_not_supported_are_named(write):
    text = 'input: "data" input_dim: 1 input_dim: 1 input_dim: 2 input_dim: 2\n'
    for name, kind in (("a", "Embed"), ("b", "Python"), ("c", "Embed")):
        text += (f'layer {{ name: "{name}" type: "{kind}" bottom: "data" top: "{name}" '
                 'embed_param { input_dim: 1 } some_param: 3 }\n')
    path = write(text + 'layer { name: "d" type: "Crop" bottom: "nothing" }')
    assert _refusal(path) == (
        f"{path}: layer 'a' (Embed) and 1 more: type 'Embed' is not supported; layer 'b' (Python): "
        "type 'Python' is not supported; docs/caffe-files.md lists the types that are; remove such "
        "a layer")
    python = layer("Python", 'python_param { module: "m" layer: "L" param_str: "{}" }')
    assert "layer 'l' (Python): type 'Python' (m.L) is not supported;" in _refusal(write(python))
    many = "".join(f'layer {{ name: "{k}" type: "T{k}" bottom: "data" }}' for k in range(20))
    assert "'T7' is not supported; and 12 other types; docs" in _refusal(write(many))


def test_layers_of_another_phase_are_named(write):
    path = write(TRAIN_DATA % "" + CONV)
    assert _refusal(path) == (
        f"{path}: input: the network has none: phase TEST leaves out layer 'd', which makes 'data':"
        " ask for phase TRAIN (--phase TRAIN)")
    path = write('input: "x" input_dim: 1 input_dim: 1 input_dim: 2 input_dim: 2\n'
                 + TRAIN_DATA % "" + CONV)
    assert _refusal(path) == (
        f"{path}: layer 'c' (Convolution): bottom 'data' is made by no layer: phase TEST leaves out"
        " layer 'd', which makes 'data': ask for phase TRAIN (--phase TRAIN)")
    assert _refusal(write(TRAIN_DATA.replace("TRAIN", "TEST") % "" + CONV), None, "TRAIN").endswith(
        "phase TRAIN leaves out layer 'd', which makes 'data': ask for phase TEST (--phase TEST)")


def test_layers_of_a_stage_are_asked_for(write):
    rule = 'include { stage: "%s" }'
    path = write(TRAIN_DATA.replace("include { phase: TRAIN }", rule % "train") % ""
                 + TRAIN_DATA.replace("include { phase: TRAIN }", rule % "val") % "" + CONV)
    assert _refusal(path).endswith("the network has none: only layers of stages make 'data', train,"
                                   " val: ask for a stage (--stage train)")
    assert list(load_net(path, stages=["val"]).partial_shapes) == ["data", "label"]


@pytest.mark.parametrize(("fields", "channels"), [
    ("crop_size: 8", None), ("crop_size: 8 mean_value: 1", None),
    ("crop_size: 8 mean_value: 1 mean_value: 2 mean_value: 3 mean_value: 4", 4),
    ("crop_size: 8 force_gray: true", 1), ("crop_size: 8 force_color: true", 3)])
def test_channels_of_a_database_are_open(write, fields, channels):
    net = load_net(write(TRAIN_DATA % fields + CONV), phase="TRAIN")
    assert net.partial_shapes == {"data": (10, channels, 8, 8), "label": (10,)}
    assert net.input_shapes["label"] == (10,)
    assert (net.steps is None) == (channels is None)
    assert net(data=torch.ones(1, channels or 7, 2, 2))["c"].shape == (1, 4, 2, 2)


def test_inspect_asks_for_sizes_and_takes_them(write, capsys):
    path = write(TRAIN_DATA % "crop_size: 8" + CONV)
    args = ["inspect", str(path), "--phase", "TRAIN"]
    assert main(args) == 1
    assert capsys.readouterr().err == (
        f"error: {path}: the sizes of data are not in the file: give them with "
        "--shape data=10,C,8,8\n")
    assert main([*args, "--shape", "data=2,3,5,6", "--shape", "label=2"]) == 0
    assert "2x4x5x6" in capsys.readouterr().out
    assert main([*args, "--shape", "image=2,3,5,6"]) == 1
    assert "shapes name ['image'], inputs are ['data', 'label']" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["data", "data=", "=1", "data=1,x", "data=0,1", "data=1.5"])
def test_inspect_refuses_shapes(write, capsys, text):
    with pytest.raises(SystemExit) as raised:
        main(["inspect", str(write(CONV)), "--shape", text])
    assert raised.value.code == 2
    assert "must be an input's name and its sizes, such as data=1,3" in capsys.readouterr().err


def test_templates_are_recognized(write):
    path = write(TRAIN_DATA % "" + "\n" + CONV.replace("4", "${LABELS}"))
    assert _refusal(path) == (
        f"{path}:2: is a template: replace ${{LIST}}, ${{LABELS}} by values: sed "
        "-e 's/${LIST}/VALUE/g' -e 's/${LABELS}/VALUE/g' TEMPLATE > NET.prototxt")


@pytest.mark.parametrize("kind", ["Python", "HDF5Data", "VideoData", "DataTransformer"])
def test_layers_of_data_are_inputs(write, kind):
    net = load_net(write(f'layer {{ name: "d" type: "{kind}" top: "data" python_param {{ a: 1 }} '
                         'transform_param { crop_size: 4 force_color: true } }' + CONV))
    assert "data" in net.partial_shapes
    assert net(data=torch.ones(1, 3, 2, 2))["c"].shape == (1, 4, 2, 2)


def test_size_of_dense_images_is_known(write):
    net = load_net(write('layer { name: "d" type: "DenseImageData" top: "data" top: "label" '
                         'dense_image_data_param { source: "list" batch_size: 3 new_height: 6 '
                         'new_width: 8 label_divide_factor: 1 } }' + CONV))
    assert net.input_shapes == {"data": (3, 3, 6, 8), "label": (3, 1, 6, 8)}


def test_input_without_a_shape_gives_way_to_input_layers(write):
    layer = ('layer { name: "in" type: "Input" top: "data" '
             'input_param { shape { dim: 1 dim: 3 dim: 2 dim: 2 } } }')
    net = load_net(write('input: "data" input: "other"\n' + layer + CONV))
    assert net.input_shapes == {"data": (1, 3, 2, 2)}
    net = load_net(write('input: "other" input_shape { dim: 5 }\n' + layer + CONV))
    assert net.input_shapes == {"other": (5,), "data": (1, 3, 2, 2)}
    assert "are there twice" in _refusal(write('input: "data" input_shape { dim: 5 }\n' + layer))


def test_crop_without_an_offset_says_what_is_assumed(write):
    text = """input: "x" input_shape { dim: 1 dim: 1 dim: 4 dim: 4 }
        input: "r" input_shape { dim: 1 dim: 1 dim: %d dim: 4 }
        layer { name: "a" type: "Crop" bottom: "x" bottom: "r" top: "a" %s }
        layer { name: "b" type: "Crop" bottom: "x" bottom: "r" top: "b" %s }"""
    with pytest.warns(UserWarning, match="layer 'a' and 1 more: Crop has no offset: it cuts from"):
        load_net(write(text % (2, "", "crop_param { }")))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_net(write(text % (4, "", "")))
        load_net(write(text % (2, *["crop_param { offset: 0 }"] * 2)))


def test_crop_without_an_offset_says_what_would_align_it(write):
    up = """input: "x" input_shape { dim: 1 dim: 1 dim: 4 dim: 4 }
        layer { name: "p" type: "Pooling" bottom: "x" top: "p"
                pooling_param { kernel_size: 2 stride: 2 } }
        layer { name: "u" type: "Deconvolution" bottom: "p" top: "u"
                convolution_param { num_output: 1 kernel_h: 4 kernel_w: 2 stride: 2 %s } }
        layer { name: "c" type: "Crop" bottom: "u" bottom: "x" top: "c" }"""
    with pytest.warns(UserWarning) as caught:
        load_net(write(up % ""))
    assert str(caught[0].message).endswith("would cut them at 1 and 0 in 'c'")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_net(write(up % "pad_h: 1"))


def test_fillers_are_not_asked_for_where_weights_are_given(write, tmp_path):
    size = 'input: "data" input_dim: 1 input_dim: 1 input_dim: 2 input_dim: 2\n'
    path = write(size + CONV.replace("num_output: 4",
                                     "num_output: 4 weight_filler { type: 'orthogonal' }"))
    assert "layer 'c' (Convolution): filler must be one of constant" in _refusal(path)
    weights = tmp_path / "w.caffemodel"
    arrays = [np.ones((4, 1, 1, 1), np.float32), np.zeros(4, np.float32)]
    write_caffemodel(weights, "n", {"c": ("Convolution", arrays)})
    assert load_net(path, weights).params["c"][0].eq(1).all()


def test_arithmetic_of_torch_and_of_caffe(write):
    size = "input_dim: 1 input_dim: 30 input_dim: 9 input_dim: 9"
    path = write(f'input: "data" {size}\n' + CONV.replace(
        "num_output: 4", "num_output: 4 weight_filler { type: 'msra' }"))
    net, same = load_net(path, arithmetic="torch"), load_net(path)
    same.load_state_dict(net.state_dict())
    x = torch.randn(1, 30, 9, 9)
    wanted, other = F.conv2d(x, *net.params["c"]), same(data=x)["c"]
    assert torch.equal(net(data=x)["c"], wanted) and not torch.equal(other, wanted)
    torch.testing.assert_close(other, wanted, rtol=1e-5, atol=1e-5)
    # The network before it changes nothing for the next.
    assert torch.equal(same(data=x)["c"], other)
    with pytest.raises(UserError, match="arithmetic must be one of original, torch, got 'fast'"):
        load_net(path, arithmetic="fast")
