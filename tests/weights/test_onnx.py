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

from pspnet_repro import PSPNet
from pspnet_repro.__main__ import main
from pspnet_repro.errors import UserError
from pspnet_repro.files import write_bytes
from pspnet_repro.weights import model_file, score_check
from pspnet_repro.weights.onnx import OnnxFile
from pspnet_repro.weights.onnx_graph import OPSET, NetworkGraph

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


def written(folder, net, *arguments, **options):
    """The path of an ONNX file, as its readers find it, and its Check."""
    path, file = folder / "written.onnx", OnnxFile(net, *arguments, **options)
    write_bytes(path, file)
    onnx.checker.check_model(path, full_check=True)
    return path, file.check


def session_of(path):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])


def scores_of(path, x):
    session = session_of(path)
    assert [value.name for value in session.get_inputs()] == ["input"]
    return torch.from_numpy(session.run(["scores"], {"input": x.numpy()})[0])


@pytest.mark.parametrize("name", SETTINGS)
@torch.no_grad()
def test_onnx_file_gives_the_networks_scores(tmp_path, name):
    """Also for maps of 13 pixels, which the bins do not divide, and any number of images."""
    torch.manual_seed(0)
    net = random_net(**SETTINGS[name])
    for size in (97, 113, *[100] * net.any_size):
        path, check = written(tmp_path, net, size)
        assert check.largest_error <= 1e-5
        for images in (1, 3):
            x = torch.randn(images, 3, size, size) * 60
            wanted = net(x)
            scores = scores_of(path, x)
            assert scores.shape == wanted.shape
            assert (scores - wanted).abs().max() <= 1e-5 * wanted.abs().max()
            assert same_argmax(scores, wanted)


@pytest.mark.parametrize("name", ["b1236-ave-dr", "b1236-max", "baseline", "mmseg", "stride-16"])
@torch.no_grad()
def test_onnx_file_of_any_size_gives_the_networks_scores(tmp_path, name):
    """Of sizes whose maps the bins divide or not, and refuses what the network refuses."""
    torch.manual_seed(0)
    net = random_net(**SETTINGS[name])
    path, check = written(tmp_path, net, 97, dynamic_size=True)
    assert check.sizes[0] == (97, 97) and len(check.sizes) == 2 and check.largest_error <= 1e-5
    session = session_of(path)
    for size in ((97, 97), (145, 49), (65, 113), (49, 257), *[(100, 87), (42, 50)] * net.any_size):
        x = torch.randn(2, 3, *size) * 60
        scores, wanted = torch.from_numpy(session.run(None, {"input": x.numpy()})[0]), net(x)
        assert scores.shape == wanted.shape
        assert (scores - wanted).abs().max() <= 1e-5 * wanted.abs().max()
        assert same_argmax(scores, wanted)
    for size in ([(9, 97)] if net.pyramid.bins else []) + [(97, 98)] * (not net.any_size):
        with pytest.raises(ValueError):
            net.check_crop(*size)
        with pytest.raises(Exception, match="Name:'(height|width)_must_be_at_least_"):
            session.run(None, {"input": np.zeros((1, 3, *size), np.float32)})


def test_onnx_file_of_any_size_prepares_images_and_gives_classes(tmp_path):
    torch.manual_seed(0)
    net = random_net(**SETTINGS["mmseg"])
    path, _ = written(tmp_path, net, 97, "rgb", "labels", dynamic_size=True)
    image = photograph(90, 131)
    labels, = session_of(path).run(["labels"], {"image": image.transpose(2, 0, 1)[None]})
    with torch.inference_mode():
        wanted = net(net.prepare(image))
    assert labels.shape == (1, 90, 131)
    assert same_argmax(torch.nn.functional.one_hot(torch.from_numpy(labels), 5).movedim(3, 1),
                       wanted)


def test_onnx_file_names_its_opset_and_has_no_other_operators(tmp_path):
    model = onnx.load(written(tmp_path, random_net(), 97)[0])
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", OPSET)]
    assert {node.domain for node in model.graph.node} == {""}
    assert {node.op_type for node in model.graph.node} == {
        "Add", "Concat", "Conv", "MatMul", "MaxPool", "ReduceMean", "Relu", "Slice"}
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"


@pytest.mark.parametrize("settings", [{}, SETTINGS["mmseg"]], ids=["caffe", "mmseg"])
@pytest.mark.parametrize("output", ["logits", "scores", "labels"])
def test_onnx_file_prepares_images_and_gives_classes(tmp_path, settings, output):
    torch.manual_seed(0)
    net, image = random_net(**settings), photograph(97, 97)
    path, check = written(tmp_path, net, 97, "rgb", output)
    session = session_of(path)
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
        OnnxFile(tiny_net(), 97, *kinds)


def test_labels_that_are_no_argmax_are_refused(tmp_path, monkeypatch):
    def wrong(graph, *outputs):
        model = right(graph, *outputs)
        model.graph.node[-1].op_type = "ArgMin"
        return model

    right = NetworkGraph.model
    monkeypatch.setattr(NetworkGraph, "model", wrong)
    with pytest.raises(UserError, match="labels in onnxruntime .* are not the argmax"):
        written(tmp_path, tiny_net(), 97, output_kind="labels")
    assert not list(tmp_path.iterdir())


def test_a_network_that_no_onnx_file_can_hold_is_refused():
    with torch.device("meta"):
        net = PSPNet(150, width=4).eval()
    with pytest.raises(UserError, match="at most 2 GiB, .* use --torch-export NET.pt2"):
        OnnxFile(net, 97)


def test_onnx_file_is_the_same_every_time(tmp_path):
    net = random_net()
    first = written(tmp_path, net, 97)[0].read_bytes()
    assert written(tmp_path, net, 97)[0].read_bytes() == first


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
        np.testing.assert_allclose(scores_of(path, x), net(x), rtol=0, atol=1e-4)
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
    (["--semseg", "net.pth", "--dynamic-size"],
     "--dynamic-size needs --onnx NET.onnx or --torch-export NET.pt2"),
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


@pytest.mark.parametrize("change", [1e-3, float("nan")])
def test_file_of_other_scores_is_refused(tmp_path, monkeypatch, change):
    right = score_check.ScoreCheck.__init__

    def wrong(check, *arguments):
        right(check, *arguments)
        check.wanted = [check.wanted[0] + change * torch.eye(4)[1].view(4, 1, 1)]

    monkeypatch.setattr(score_check.ScoreCheck, "__init__", wrong)
    with pytest.raises(UserError, match="differ from the network's by .* nothing is written"):
        written(tmp_path, tiny_net(), 97)
    assert not list(tmp_path.iterdir())
