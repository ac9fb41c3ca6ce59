"""ONNX files in onnxruntime against the networks that they were made of."""

import json
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from helpers.image_files import photograph
from helpers.networks import ROWS, random_net, same_argmax, tiny_net

from pspnet_repro.__main__ import main
from pspnet_repro.errors import UserError
from pspnet_repro.weights import model_file
from pspnet_repro.weights import onnx as onnx_module
from pspnet_repro.weights.onnx import OPSET, check_scores, onnx_bytes

SETTINGS = {**{name: settings for name, (settings, _) in ROWS.items()},
            "mini": {"backbone": "mini", "stem_width": 8},
            "stride-3x3": {"stride_in": "3x3", "bins": (5, 1)},
            "stride-16": {"stem": "classic", "strides": (1, 2, 2, 1), "bins": (3,)},
            "original": {"arithmetic": "original", "head": "literal", "variance": "biased"},
            "mmseg": {"align_corners": False, "ceil_mode": False, "contract_dilation": True,
                      "input_order": "rgb", "input_std": (58.0, 57.0, 57.5)}}


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "weights.pt"
    model_file.save_model(path, tiny_net(), crop_size=97)
    return path


def scores_of(content, x):
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_inputs()] == ["input"]
    return torch.from_numpy(session.run(["scores"], {"input": x.numpy()})[0])


@pytest.mark.parametrize("name", SETTINGS)
@torch.no_grad()
def test_onnx_file_gives_the_networks_scores(name):
    """Also for maps of 13 pixels, which the bins do not divide, and any number of images."""
    torch.manual_seed(0)
    net = random_net(**SETTINGS[name])
    for size in (97, 113, *[100] * net.any_size):
        content, check = onnx_bytes(net, size)
        assert check.largest_error <= 1e-5
        for images in (1, 3):
            x = torch.randn(images, 3, size, size) * 60
            wanted = net(x)
            scores = scores_of(content, x)
            assert scores.shape == wanted.shape
            assert (scores - wanted).abs().max() <= 1e-5 * wanted.abs().max()
            assert same_argmax(scores, wanted)


def test_onnx_file_names_its_opset_and_has_no_other_operators():
    model = onnx.load_from_string(onnx_bytes(random_net(), 97)[0])
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", OPSET)]
    assert {node.domain for node in model.graph.node} == {""}
    assert {node.op_type for node in model.graph.node} == {
        "Add", "Concat", "Conv", "MatMul", "MaxPool", "ReduceMean", "Relu", "Slice"}
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"


@pytest.mark.parametrize("settings", [{}, SETTINGS["mmseg"]], ids=["caffe", "mmseg"])
@pytest.mark.parametrize("output", ["logits", "scores", "labels"])
def test_onnx_file_prepares_images_and_gives_classes(settings, output):
    torch.manual_seed(0)
    net, image = random_net(**settings), photograph(97, 97)
    content, check = onnx_bytes(net, 97, "rgb", output)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_outputs()] == [output]
    got = torch.from_numpy(session.run(None, {"image": image.transpose(2, 0, 1)[None]})[0])
    with torch.inference_mode():
        x = net.prepare(image)
        wanted = net.logits(x) if output == "logits" else net(x)
    assert check.largest_error <= 1e-5
    if output == "labels":
        assert got.shape == (1, 97, 97) and got.dtype == torch.int64
        assert same_argmax(torch.nn.functional.one_hot(got, 5).movedim(3, 1), wanted)
    else:
        assert got.shape == wanted.shape
        assert (got - wanted).abs().max() <= 1e-5 * wanted.abs().max()


@pytest.mark.parametrize("kinds, message", [
    (("bgr", "scores"), "input_kind must be one of prepared, rgb, got 'bgr'"),
    (("rgb", "argmax"), "output_kind must be one of logits, scores, labels, got 'argmax'")])
def test_another_kind_is_refused(kinds, message):
    with pytest.raises(ValueError, match=message):
        onnx_bytes(tiny_net(), 97, *kinds)


def test_labels_that_are_no_argmax_are_refused():
    net = tiny_net()
    graph = onnx_module._Graph(net, 97, "prepared", "labels")
    graph.nodes[-1].op_type = "ArgMin"
    with pytest.raises(UserError, match="labels in onnxruntime .* are not the argmax"):
        check_scores(graph.model("scores", "labels").SerializeToString(), net, 97)


def test_onnx_file_is_the_same_every_time():
    net = random_net()
    assert onnx_bytes(net, 97) == onnx_bytes(net, 97)


def test_command_writes_a_checked_file(tmp_path, weights, capsys):
    path = tmp_path / "net.onnx"
    assert main(["export", str(weights), "--onnx", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == str(path) and lines[0].startswith("onnxruntime ")
    metadata = {entry.key: json.loads(entry.value) for entry in onnx.load(path).metadata_props}
    assert metadata["check"]["largest_error"] <= 1e-5
    assert metadata["check"]["pixels"] == 2 * 97 * 97
    net = model_file.load_model(weights)
    assert metadata["settings"] == json.loads(json.dumps(dict(net.settings)))
    assert (metadata["input_order"], metadata["input_mean"]) == ("bgr", [103.939, 116.779, 123.68])
    x = net.prepare(photograph(97, 97))
    with torch.inference_mode():
        np.testing.assert_allclose(scores_of(path.read_bytes(), x), net(x), rtol=0, atol=1e-4)
    # It is ours, so it is replaced; another's is not.
    assert main(["export", str(weights), "--onnx", str(path), "--crop-size", "89", "--onnx-input",
                 "rgb", "--onnx-output", "labels"]) == 0
    graph = onnx.load(path).graph
    assert (graph.input[0].name, graph.output[0].name) == ("image", "labels")
    path.write_text("mine")
    assert main(["export", str(weights), "--onnx", str(path)]) == 1
    assert path.read_text() == "mine"


def test_command_writes_onnx_beside_caffes_files(tmp_path, weights, capsys):
    names = "n.prototxt", "w.caffemodel", "n.onnx"
    net, caffemodel, path = (str(tmp_path / name) for name in names)
    command = ["export", str(weights), "-o", net, caffemodel, "--onnx", path, "--crop-size"]
    assert main([*command, "97"]) == 2  # the map has 13 pixels, which 2 bins do not divide
    assert not (tmp_path / "n.onnx").exists() and "--crop-size: " in capsys.readouterr().err
    assert main([*command, "89"]) == 0
    assert all((tmp_path / name).is_file() for name in names)


@pytest.mark.parametrize("words, message", [
    ([], "needs a file to write: --output or one of --onnx, "),
    (["--onnx", "net.pb"], "--onnx must end in .onnx, got net.pb"),
    (["--semseg", "net.pth", "--onnx-output", "labels"],
     "--onnx-input and --onnx-output need --onnx NET.onnx"),
    (["--onnx", "net.onnx", "--train"], "--train needs --output NET.prototxt W.caffemodel"),
    (["--onnx", "net.onnx", "--crop-size", "90"],
     "--crop-size: crop sizes must be 8 * k + 1 pixels, got 90")])
def test_command_refuses_wrong_words(tmp_path, weights, capsys, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(weights), *words]) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["weights.pt"]


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_missing_package_is_named(tmp_path, weights, capsys, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    assert main(["export", str(weights), "--onnx", str(tmp_path / "net.onnx")]) == 1
    error = capsys.readouterr().err
    assert f"ONNX needs {package}: pip install -r requirements-onnx.txt" in error
    assert not (tmp_path / "net.onnx").exists()


def test_file_of_other_scores_is_refused():
    net = tiny_net()
    content, _ = onnx_bytes(net, 97)
    with torch.no_grad():
        net.head.score.bias[1] += 1e-3
    with pytest.raises(UserError, match="differ from the network's by .* nothing is written"):
        check_scores(content, net, 97)
    with torch.no_grad():
        net.head.score.bias[1] = float("nan")
    with pytest.raises(UserError, match="differ from the network's by nan"):
        check_scores(content, net, 97)
