"""Bad files given to convert: every kind is named in one line."""

import re
import warnings

import numpy as np
import pytest
from helpers.import_files import change_layer, small_network, write_files

from prototxt_import import convert
from prototxt_import.__main__ import main
from prototxt_import.conversion.written_net import written_net
from prototxt_import.format import caffe_pb2
from pspnet_repro.errors import UserError


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return small_network(tmp_path_factory.mktemp("files"))


def _without(name):
    return lambda text, weights: (text, {k: w for k, w in weights.items() if k != name})


def _with(name, blobs):
    return lambda text, weights: (text, {**weights, name: ("Convolution", blobs)})


def _nan(name):
    def change(text, weights):
        kind, (first, *rest) = weights[name]
        first = first.copy()
        first.flat[3] = np.nan
        return text, {**weights, name: (kind, [first, *rest])}
    return change


def _blobs(name, change):
    return lambda text, weights: (text, {**weights, name: (weights[name].type,
                                                           change(weights[name].blobs))})


@pytest.mark.parametrize("change, words", [
    (_without("conv3_2_3x3"), "w.caffemodel: lacks layers conv3_2_3x3$"),
    (_without("conv3_2_3x3/bn"), "lacks layers conv3_2_3x3/bn$"),
    (_without("conv6_1"), "lacks layers conv6_1$"),
    (_without("conv4_2"), "lacks layers conv4_2$"),
    (_with("conv7", [np.ones(3, np.float32)]), "has layers that .*net.prototxt has no place for: "
                                               "conv7$"),
    (_with("two\nlines", [np.ones(3, np.float32)]), r"no place for: 'two\\nlines'$"),
    (_blobs("conv2_1_3x3", lambda b: [b[0].transpose(0, 1, 3, 2)[:, :, :2]]),
     r"layer 'conv2_1_3x3', blob 0 must be \(8, 8, 3, 3\), is \(8, 8, 2, 3\)$"),
    (_blobs("conv2_1_3x3/bn", lambda b: [*b[:2], b[2].ravel(), b[3]]),
     r"layer 'conv2_1_3x3/bn', blob 2 must be \(1, 8, 1, 1\), is \(8,\)$"),
    (_blobs("conv6", lambda b: b[:1]), "layer 'conv6' must have 2 blobs, has 1$"),
    (_blobs("conv6_1", lambda b: [b[0][:2], b[1]]),
     r"layer 'conv6_1', blob 0 must be \(3, 32, 1, 1\), is \(2, 32, 1, 1\)$"),
    (_blobs("conv4_2", lambda b: [b[0][:, :, 0]]), r"layer 'conv4_2', blob 0 must be "
                                                   r"\(32, 128, 3, 3\), is \(32, 128, 3\)$"),
    (_blobs("conv4_2", lambda b: [np.ones(10 ** 7, np.float32)]),
     r"layer 'conv4_2', blob 0 must be \(32, 128, 3, 3\), is \(10000000,\)$"),
    (_blobs("conv4_2/bn", lambda b: [*b[:3], b[3] - 9]), "layer 'conv4_2/bn': its variances plus"),
    (_nan("conv3_1_1x1_proj"), "layer 'conv3_1_1x1_proj', blob 0 is not finite$"),
    (_nan("conv5_2/bn"), "layer 'conv5_2/bn', blob 0 is not finite$"),
    (_blobs("conv5_2/bn", lambda b: [*b[:3], b[3] - 9]), "layer 'conv5_2/bn': its variances plus"),
])
def test_convert_rejects_weights(files, tmp_path, change, words):
    _, text, weights = files
    paths = write_files(tmp_path, *change(text, weights))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(UserError, match=words) as caught:
            convert(*paths)
    assert "\n" not in str(caught.value)


def test_convert_lists_everything_that_is_wrong(files, tmp_path):
    _, text, weights = files
    weights = {("other" if name == "conv6" else name): w for name, w in weights.items()
               if name != "conv2_1_3x3"}
    paths = write_files(tmp_path, *_nan("conv5_2")(text, weights))
    with pytest.warns(UserWarning, match="NaN"), pytest.raises(UserError, match=(
            "lacks layers conv2_1_3x3, conv6; has layers that .* has no place for: other; layer "
            "'conv5_2', blob 0 is not finite$")):
        convert(*paths)


def test_convert_says_that_weights_are_of_another_network(files, tmp_path):
    _, text, weights = files
    weights = {name: layer for name, layer in weights.items() if layer.blobs}
    # The auxiliary branch is in the weights alone.
    share = f"of {len(weights) - 3} layers of .*net.prototxt"
    for keep, match in (([], f"0 {share} match"), (["conv6"], f"1 {share} matches")):
        others = {name if name in keep else f"other{k}": layer
                  for k, (name, layer) in enumerate(weights.items())}
        paths = write_files(tmp_path, text, others)
        with pytest.raises(UserError, match=f"w.caffemodel: fits another network: {match}; it lacks"
                           r" \S+, \S+, \S+ and \d+ more, and has other0, other1, other2 and \d+ "
                           "more$"):
            convert(*paths)


def _no_layer(name):
    return lambda text: "".join(part for part in re.split(r"(?m)^(?=layer \{)", text)
                                if f'  name: "{name}"\n' not in part)


def _append(extra):
    return lambda text: text + extra


@pytest.mark.parametrize("change, words", [
    (change_layer("conv2_1", "SUM", "MAX"), r"layer 'conv2_1' \(Eltwise\): must be the SUM of two"),
    (change_layer("conv2_1", 'bottom: "conv2_1_1x1_increase"', 'bottom: "conv2_1_3x3"'),
     r"layer 'conv2_1' \(Eltwise\): its bottoms must be alike"),
    (_no_layer("conv3_2_3x3/relu"), "layer 'conv3_2_3x3' .*must be followed by BN and ReLU"),
    (_no_layer("conv3_2_3x3/bn"), "layer 'conv3_2_3x3' .*must be followed by BN, or BatchNorm"),
    (change_layer("conv3_2_3x3/relu", 'type: "ReLU"',
                  'type: "ReLU" relu_param { negative_slope: 0.1 }'),
     r"layer 'conv3_2_3x3/relu' \(ReLU\): negative_slope must be 0"),
    (change_layer("conv3_2_3x3", "kernel_size: 3", "kernel_size: 3\n    group: 2"),
     "layer 'conv3_2_3x3' .*group must be 1"),
    (change_layer("conv5_1_3x3", "pad: 4\n    kernel_size: 3", "pad: 0\n    kernel_size: 1"),
     r"layer 'conv5_1_3x3' .*must have kernel, stride, padding, dilation \(3, 1, 4, 4\), has "
     r"\(1, 1, 0, 4\)"),
    (change_layer("pool1_3x3_s2", "pool: MAX", "pool: AVE"),
     r"layer 'pool1_3x3_s2' \(Pooling\): must be MAX 3x3 stride 2 padding 1"),
    (change_layer("conv1_2_3x3", "num_output: 8", "num_output: 9"), "the stem must have 8, 8, 16"),
    (change_layer("conv5_1_pool6", "kernel_size: 2\n    stride: 2",
                  "kernel_size: 5\n    stride: 5"),
     r"layer 'conv5_1_pool6' .*equal bins: kernel and stride the same divisor of 12, got 5 and 5"),
    (change_layer("conv5_1_pool6", "AVE", "MAX"), "layer 'conv5_1_concat' .*alike: AVE or MAX"),
    (change_layer("conv5_1_pool6_interp", "height: 12", "height: 11"), "conv5_1_concat"),
    (change_layer("conv6_interp", "zoom_factor: 8", "zoom_factor: 4"),
     r"layer 'conv6_interp' \(Interp\): must give the input's 89x89 pixels, gives 45x45"),
    (change_layer("conv3_2_3x3/bn", "bn_param {", "bn_param {\n    bn_mode: INFERENCE"),
     r"layer 'conv3_2_3x3/bn' \(BN\): must have fields of one program"),
    (_append('layer { name: "more" type: "BN" bottom: "conv3_2" top: "more" bn_param { bn_mode: '
             'INFERENCE } }'), r"layer 'more' \(BN\): is caffe-segnet's BN, which keeps no"),
    (_append('layer { name: "more" type: "Dropout" bottom: "conv3_2" top: "more" dropout_param { '
             'sample_weights_test: true } }'),
     r"layer 'more' \(Dropout\): sample_weights_test must"),
    (_append('layer { name: "prob" type: "Softmax" bottom: "conv6_interp" top: "prob" }'),
     r"layer 'prob' \(Softmax\): has no place in a PSPNet"),
    (_append('layer { name: "more" type: "Convolution" bottom: "conv3_2" top: "more" '
             'convolution_param { num_output: 4 kernel_size: 1 } }'),
     r"layer 'more' \(Convolution\): has no place in a PSPNet"),
    (_append('layer { name: "crf" type: "MultiStageMeanfield" bottom: "conv6" top: "crf" }'),
     r"layer 'crf' \(MultiStageMeanfield\): type 'MultiStageMeanfield' is not supported"),
    (lambda text: text.replace("input_dim: 3\n", "input_dim: 4\n"), "must be of shape"),
])
def test_convert_rejects_structures(files, tmp_path, change, words):
    _, text, weights = files
    paths = write_files(tmp_path, change(text), weights)
    with pytest.raises(UserError, match=words) as caught:
        convert(*paths)
    assert "net.prototxt" in str(caught.value) and "\n" not in str(caught.value)


def test_settings_that_programs_read_differently_are_refused(tmp_path):
    net = caffe_pb2.NetParameter(input=["data"])
    net.layer.add(name="p", type="Pooling", pooling_param={"kernel_size": 2, "round_mode": 1})
    path = tmp_path / "w.caffemodel"
    path.write_bytes(net.SerializeToString())
    with pytest.raises(UserError, match="layer 'p' .Pooling.: its field 13 is round_mode in BVLC's "
                                        "Caffe and ceil_mode in others: name the network's"):
        written_net(path)


@pytest.mark.parametrize("words, code, said", [
    (("net.prototxt",), 1, "net.prototxt: this is a prototxt: it holds no weights; they are in its "
     "caffemodel: pspnet convert net.prototxt W.caffemodel -o OUT.safetensors\n"),
    (("net.prototxt", "w.caffemodel", "w.caffemodel"), 2,
     "needs NET.prototxt and W.caffemodel, or one file, got 3 files"),
    (("net.prototxt", "w.caffemodel", "-o", "x.npz"), 2, "must end in .safetensors, .pt, .pth"),
    (("w.caffemodel", "net.prototxt"), 2, "w.caffemodel: this is a caffemodel, put the prototxt "
     "first: pspnet convert net.prototxt w.caffemodel\n"),
    (("w.caffemodel", "w.caffemodel"), 2, "first: pspnet convert NET.prototxt w.caffemodel\n"),
    (("solver.prototxt", "w.caffemodel"), 1,
     "solver.prototxt: is a solver, and must be a network: name its net, net.prototxt\n"),
    (("net.prototxt", "net.prototxt"), 1, "net.prototxt: this is a prototxt: it holds no weights"),
    (("net.prototxt", "none.caffemodel"), 1, "none.caffemodel: no such file"),
    (("--backbone", "w.caffemodel"), 1, "w.caffemodel: this is a caffemodel: convert it first"),
])
def test_convert_command_rejects(files, tmp_path, capsys, monkeypatch, words, code, said):
    _, text, weights = files
    write_files(tmp_path, text, weights)
    (tmp_path / "solver.prototxt").write_text('net: "net.prototxt"\nbase_lr: 0.1\n')
    monkeypatch.chdir(tmp_path)
    words = words if "-o" in words else (*words, "-o", "out.pt")
    assert main(["convert", *words]) == code
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not (tmp_path / "out.pt").exists()
