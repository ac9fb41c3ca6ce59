"""Files of networks in both formats, and trainings that start from them."""

import json

import numpy as np
import pytest
import safetensors.torch
import torch
from helpers.golden import assert_same_bits
from helpers.networks import MODEL, filled
from helpers.trainings import run_training

from prototxt_import import write_caffemodel
from prototxt_import.__main__ import main as convert_main
from pspnet_repro import PSPNet
from pspnet_repro.__main__ import main
from pspnet_repro.errors import UserError
from pspnet_repro.files import file_sha256
from pspnet_repro.model.resnet import ResNet
from pspnet_repro.training.initial_weights import load_initial_weights
from pspnet_repro.weights import model_file, plain_file
from pspnet_repro.weights.convert import convert_file

BACKBONE = {"blocks": (1, 1, 1, 1), "stem": "classic", "stem_width": 8, "widths": (8, 16, 32, 64)}


@pytest.mark.parametrize("name", ["net.pt", "net.pth", "net.safetensors"])
def test_model_file_gives_the_network_back(tmp_path, name):
    net = filled(PSPNet(**MODEL))
    model_file.save_model(tmp_path / name, net, origin={"from": "here"})
    again = model_file.load_model(tmp_path / name)
    assert again.settings == net.settings and not again.training
    for key, tensor in net.state_dict().items():
        assert_same_bits(again.state_dict()[key], tensor.numpy())
    content = model_file.read_model_file(tmp_path / name)
    assert content["origin"] == {"from": "here"} and content["kind"] == "pspnet"


@pytest.mark.parametrize("name", ["net.pt", "net.safetensors"])
def test_a_network_gives_the_same_file_every_time(tmp_path, name):
    """Trainings are named by the digest of their initial weights' file."""
    net, files = filled(PSPNet(**MODEL)), set()
    for _ in range(8):
        model_file.save_model(tmp_path / name, net, origin={"from": "Überall"}, crop_size=185)
        files.add((tmp_path / name).read_bytes())
    assert len(files) == 1
    if name.endswith(".safetensors"):
        with safetensors.safe_open(tmp_path / name, "pt") as file:
            assert json.loads(file.metadata()["origin"]) == {"from": "Überall"}


def test_settings_may_be_short_forms(tmp_path):
    """As in files from before `settings` named every width."""
    net = filled(PSPNet(**MODEL))
    short = {**MODEL, "depth": 50, "stride_in": None, "initial_running_var": 0.0}
    plain_file.save(tmp_path / "a.pt", {"settings": short, "weights": net.state_dict()})
    assert model_file.load_model(tmp_path / "a.pt").settings == net.settings


def test_formats_are_told_by_content(tmp_path):
    net = filled(PSPNet(**MODEL))
    model_file.save_model(tmp_path / "a.safetensors", net)
    (tmp_path / "a.safetensors").rename(tmp_path / "a.pth")
    assert model_file.load_model(tmp_path / "a.pth").settings == net.settings


def test_backbone_file(tmp_path):
    backbone = filled(ResNet(**BACKBONE, pool_padding=0))
    model_file.save_model(tmp_path / "b.safetensors", backbone)
    again = model_file.load_backbone(tmp_path / "b.safetensors")
    assert again.settings == backbone.settings and again.pool.padding == 0
    assert_same_bits(again.stage5[0].spatial.conv.weight,
                     backbone.stage5[0].spatial.conv.weight.detach().numpy())
    with pytest.raises(UserError, match="must hold a PSPNet, holds one of kind 'backbone'"):
        model_file.load_model(tmp_path / "b.safetensors")


def test_model_file_rejects_what_is_none(tmp_path):
    path = tmp_path / "x.safetensors"
    safetensors.torch.save_file({"a": torch.zeros(2)}, path)
    with pytest.raises(UserError, match="x.safetensors: this is a safetensors state dict with "
                                        "names of another network, such as 'a': it cannot"):
        model_file.load_model(path)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(UserError, match="x.safetensors: not a readable checkpoint: damaged or cut"):
        model_file.load_model(path)
    write_caffemodel(tmp_path / "w.caffemodel", "net", {"a": ("X", [np.zeros(2)])})
    with pytest.raises(UserError, match="w.caffemodel: this is a caffemodel: convert it first: "
                                        "pspnet convert NET.prototxt .*w.caf"):
        model_file.load_model(tmp_path / "w.caffemodel")
    safetensors.torch.save_file({"a": torch.zeros(2)}, path, {"settings": "{"})
    with pytest.raises(UserError, match="x.safetensors: not a readable checkpoint"):
        model_file.load_model(path)


@pytest.mark.parametrize("change, words", [
    ({"classes": 10 ** 12}, "weights and settings do not fit: head.score.weight must be"),
    ({"blocks": [10 ** 9, 1, 1, 1]}, "blocks must be at most 1000"),
    ({"widths": [8, 16, 32, 10 ** 9]}, "widths must be at most 8 times"),
    ({"aux": False, "aux_width": None}, "has no place for auxiliary.conv.conv.weight"),
    ({"colour": "red"}, "unexpected keyword argument 'colour'"),
])
def test_model_file_rejects_settings_that_do_not_fit(tmp_path, change, words):
    net = PSPNet(**MODEL)
    settings = json.dumps({**net.settings, **change})
    safetensors.torch.save_file(net.state_dict(), tmp_path / "x.safetensors",
                                {"settings": settings})
    with pytest.raises(UserError, match=words):
        model_file.load_model(tmp_path / "x.safetensors")


def test_initial_weights_of_a_backbone(tmp_path):
    backbone = filled(ResNet(**BACKBONE, strides=(1, 2, 2, 2), dilations=(1, 1, 1, 1),
                             pool_padding=0))
    model_file.save_model(tmp_path / "b.pth", backbone)
    net = PSPNet(**MODEL)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    report = load_initial_weights(net, tmp_path / "b.pth")
    for name, tensor in net.state_dict().items():
        part, _, rest = name.partition(".")
        assert_same_bits(tensor, (backbone.state_dict()[rest] if part == "backbone" else
                                  before[name]).detach().numpy())
    assert report[0].endswith("b.pth loaded into backbone")
    assert report[1] == "starting afresh: auxiliary, head, pyramid"
    assert "note: the file's network has strides (1, 2, 2, 2), this one (1, 2, 1, 1)" in report
    assert "note: the file's network has pool_padding 0, this one 1" in report
    assert not any("stride_in" in line for line in report)


def test_initial_weights_of_a_network_with_other_classes(tmp_path):
    given = filled(PSPNet(**{**MODEL, "classes": 7}))
    model_file.save_model(tmp_path / "n.safetensors", given)
    net = PSPNet(**MODEL, aux=False)
    fresh = net.head.score.weight.detach().clone()
    report = load_initial_weights(net, tmp_path / "n.safetensors")
    assert report[1:] == ["starting afresh: head.score", "left out of the file: auxiliary"]
    assert torch.equal(net.head.score.weight, fresh)
    assert torch.equal(net.head.conv.conv.weight, given.head.conv.conv.weight)


@pytest.mark.parametrize("settings, words", [
    ({"stem_width": 16, "blocks": (1, 1, 2, 1)},
     r"stem_width is 16 there, 8 here; blocks is \(1, 1, 2, 1\) there, \(1, 1, 1, 1\) here$"),
    ({"bins": (1, 2, 3)}, r"bins is \(1, 2, 3\) there, \(1, 2, 3, 6\) here$"),
    ({"pool": "max"}, "pool is max there, ave here$"),
    ({"stride_in": "3x3"}, "stride_in is 3x3 there, 1x1 here$"),
    ({"head_width": 5}, r"head.conv.conv.weight must be .*; and 1 more$"),
])
def test_initial_weights_rejects_other_shapes(tmp_path, settings, words):
    model_file.save_model(tmp_path / "n.pt", PSPNet(**{**MODEL, **settings}))
    net = PSPNet(**MODEL)
    before = net.backbone.stem[0].conv.weight.detach().clone()
    with pytest.raises(UserError, match=f"n.pt: does not fit this network: .*{words}"):
        load_initial_weights(net, tmp_path / "n.pt")
    assert torch.equal(net.backbone.stem[0].conv.weight, before)


def test_initial_weights_rejects_nan(tmp_path):
    backbone = ResNet(**BACKBONE)
    backbone.stage3[0].reduce.bn.bias.data[2] = float("nan")
    model_file.save_model(tmp_path / "b.pt", backbone)
    with pytest.raises(UserError, match="b.pt: backbone.stage3.0.reduce.bn.bias is not finite"):
        load_initial_weights(PSPNet(**MODEL), tmp_path / "b.pt")


def test_train_starts_from_initial_weights(squares, tmp_path):
    backbone = filled(ResNet(**BACKBONE))
    for name in ("b", "other"):
        model_file.save_model(tmp_path / f"{name}.safetensors", backbone, name=name)
    path = tmp_path / "b.safetensors"

    def run(file):
        return run_training(squares, tmp_path / "run", {"max_iter": 1, "base_lr": 0.0},
                            initial_weights=file)

    weights = run(path)
    net = model_file.load_model(weights)
    # At rate 0 only running statistics move.
    assert torch.equal(net.backbone.stage5[0].spatial.conv.weight,
                       backbone.stage5[0].spatial.conv.weight)
    training = plain_file.load(weights)["training"]
    assert training["initial_weights"] == file_sha256(path)
    assert "loaded into backbone" in (tmp_path / "run" / "log.txt").read_text()
    assert run(path) == weights
    for other in (None, tmp_path / "other.safetensors"):
        with pytest.raises(UserError, match="holds a training with initial_weights = "):
            run(other)


@pytest.mark.slow
def test_commands_take_converted_files(squares, tmp_path, capsys):
    """Export, convert, evaluate, train on, export again: each by its command."""
    net = filled(PSPNet(**MODEL, bins=(1, 2)))
    model_file.save_model(tmp_path / "a.pt", net)
    files = [str(tmp_path / name) for name in ("n.prototxt", "w.caffemodel")]
    out = str(tmp_path / "b.safetensors")
    assert convert_main(["export", str(tmp_path / "a.pt"), "-o", *files, "--crop-size", "57"]) == 0
    assert convert_main(["convert", *files, "-o", out]) == 0
    figures = []
    for weights in (str(tmp_path / "a.pt"), out):
        assert main(["evaluate", "--weights", weights, "--data", str(squares), "--base-size", "72",
                     "--crop-size", "57", "--threads", "1", "--output", f"{weights}.test"]) == 0
        figures.append([line for line in capsys.readouterr().out.splitlines()
                        if line.startswith("mean ")])
    assert figures[0] == figures[1] and len(figures[0]) == 2
    run = tmp_path / "run"
    assert main(["train", "--data", str(squares), "--output", str(run), "--classes", "4", "--bins",
                 "1,2", "--stem", "classic", "--stem-width", "8", "--width", "0.125", "--blocks",
                 "1,1,1,1", "--crop-size", "57", "--batch-size", "2", "--max-iter", "1",
                 "--threads", "1", "--initial-weights", out]) == 0
    said = capsys.readouterr()
    assert "loaded into auxiliary, backbone, head, pyramid" in said.err
    trained = model_file.load_model(run / "weights.pt")
    change = (trained.backbone.stem[0].conv.weight - net.backbone.stem[0].conv.weight).abs().max()
    assert 0 < change < 0.1
    assert convert_main(["export", str(run / "weights.pt"), "-o", *files, "--train"]) == 0
    assert "max_iter: 1" in (tmp_path / "solver.prototxt").read_text()


@pytest.mark.parametrize("content, size", [
    ({"training": {"crop_size": 89}, "crop_size": 97}, 89), ({"crop_size": 97}, 97), ({}, None),
    ({"training": 5, "crop_size": 97}, 97), ({"training": {"crop_size": 10 ** 12}}, None),
    ({"crop_size": True}, None), ({"crop_size": "89"}, None), ({"crop_size": -1}, None)])
def test_crop_of_a_file_is_a_possible_one(content, size):
    assert model_file.crop_size_of(content) == size


def test_weights_of_one_format_may_be_named_as_the_other(tmp_path):
    plain_file.save(tmp_path / "x.pt", {"settings": {}, "weights": {"a": torch.ones(2)}})
    (tmp_path / "x.pt").rename(tmp_path / "x.safetensors")
    content = model_file.read_model_file(tmp_path / "x.safetensors")
    assert content["weights"]["a"].tolist() == [1, 1]


def test_a_file_is_read_once(tmp_path, monkeypatch, squares):
    path, reads, load = tmp_path / "n.pt", [], plain_file.load
    model_file.save_model(path, PSPNet(**MODEL))
    monkeypatch.setattr(plain_file, "load", lambda *file: reads.append(file) or load(*file))
    convert_file(path)
    assert reads == [(path,)]
    run_training(squares, tmp_path / "run", {"max_iter": 1}, initial_weights=path)
    assert reads.count((path,)) == 2
