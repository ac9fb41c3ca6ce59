"""Our networks as original files, and back."""

import errno
import os

import numpy as np
import pytest
import torch
from helpers.golden import golden_files, read_golden
from helpers.import_files import MINI, assert_same_network, drawn

from prototxt_import import (
    convert,
    export,
    load_net,
    load_solver,
    read_caffemodel,
    read_net,
    read_solver,
)
from prototxt_import.__main__ import main
from prototxt_import.conversion.describe import describe
from prototxt_import.conversion.miniature import MiniPSPNet, network_class
from pspnet_repro import PSPNet, ops
from pspnet_repro.errors import UserError
from pspnet_repro.model.caffe_names import caffe_names
from pspnet_repro.training.loss import guided_loss
from pspnet_repro.training.solver import CaffeSGD, parameter_groups, poly_rate
from pspnet_repro.weights import model_file

FILES = ["solver.prototxt", "train_val.prototxt", "net.prototxt", "w.caffemodel"]


def _export(net, folder, crop_size=89, **arguments):
    paths = folder / "net.prototxt", folder / "w.caffemodel"
    export(net, crop_size, *paths, **arguments)
    return paths


@pytest.mark.parametrize("name, classes, depth, crop_size", [
    ("pspnet50_ADE20K_473", 150, 50, 473), ("pspnet101_VOC2012_473", 21, 101, 473),
    ("pspnet101_cityscapes_713", 19, 101, 713)])
def test_deploy_net_is_the_released_one(shared, tmp_path, name, classes, depth, crop_size):
    """The whole message: every field of every layer, in order, also after writing and reading."""
    released = read_net(shared / "prototxt" / f"{name}.prototxt")
    with torch.device("meta"):
        net = PSPNet(classes, depth)
    ours = describe(net, crop_size)
    assert len(ours.layer) == len(released.layer) > 200
    for layer, wanted in zip(ours.layer, released.layer):
        assert layer == wanted
    assert ours == released


def test_written_deploy_net_is_the_released_one(shared, tmp_path):
    net = PSPNet(150, 50)
    prototxt, caffemodel = _export(net, tmp_path, 473)
    released = read_net(shared / "prototxt" / "pspnet50_ADE20K_473.prototxt")
    assert read_net(prototxt) == released
    layers = read_caffemodel(caffemodel)
    with torch.device("meta"):
        wanted = load_net(prototxt)
    for step in wanted.steps:
        if step.params:
            kind, blobs = layers[step.layer.name]
            assert kind == step.layer.type
            assert [blob.shape for blob in blobs] == [tuple(param.shape) for param in step.params]
    extra = {name for name, layer in layers.items() if layer.blobs} - set(wanted.params)
    assert extra == {"conv4_7", "conv4_7/bn", "conv6_1"}
    assert_same_network(convert(prototxt, caffemodel), net)


@pytest.mark.parametrize("path", golden_files("solver"))
def test_miniature_is_the_golden_one(path, tmp_path):
    """Names, types, shapes and bits of the caffemodel, automatic copies too; the training net."""
    arrays = read_golden(path)
    (tmp_path / "golden.prototxt").write_text(str(arrays["net"]))
    golden = path.with_suffix(".caffemodel")
    net = convert(tmp_path / "golden.prototxt", golden)
    guidance = "full" if "full" in path.stem else "eighth"
    (tmp_path / "out").mkdir()
    prototxt, caffemodel = _export(net, tmp_path / "out", training={
        "guidance": guidance, "batch_size": 2, "max_iter": 30})
    ours, wanted = read_caffemodel(caffemodel), read_caffemodel(golden)
    assert [(n, w.type) for n, w in ours.items()] == [(n, w.type) for n, w in wanted.items()]
    for name, layer in wanted.items():
        assert len(ours[name].blobs) == len(layer.blobs)
        for blob, other in zip(ours[name].blobs, layer.blobs):
            assert blob.shape == other.shape and blob.tobytes() == other.tobytes()
    ours = read_net(tmp_path / "out" / "train_val.prototxt")
    wanted = read_net(tmp_path / "golden.prototxt")
    assert ours.input == wanted.input and ours.input_shape == wanted.input_shape
    for layer, other in zip(ours.layer, wanted.layer, strict=True):
        for field in ("name", "type", "bottom", "top", "param", "bn_param", "pooling_param",
                      "interp_param", "eltwise_param", "loss_param", "loss_weight"):
            assert getattr(layer, field) == getattr(other, field), (layer.name, field)
    assert_same_network(convert(prototxt, caffemodel), net)
    assert_same_network(convert(tmp_path / "out" / "train_val.prototxt", caffemodel), net)


@pytest.mark.parametrize("settings", [
    {}, {"depth": 101, "bins": (1, 4), "variance": "biased"}, {"bins": (), "aux": False},
    {"bins": (3,), "pool": "max", "reduce": False, "variance": "torch"},
    {"stem": "classic", "stride_in": "3x3", "dropout": 0.35, "head_width": 5, "aux_width": 7},
    {"strides": (1, 2, 2, 1), "dilations": (1, 1, 1, 2), "crop_size": 177},
    {"strides": (2, 2, 2, 2), "dilations": (1, 1, 1, 1), "bins": (2, 1), "crop_size": 193,
     "aux": False},
    {"width": 0.1, "dropout": 0.0}, {"widths": (3, 5, 4, 24), "blocks": (2, 1, 3, 1)},
    {"backbone": "mini", "variance": "unbiased"}])
@pytest.mark.parametrize("prototxt", ["net.prototxt", "train_val.prototxt"])
def test_convert_inverts_export(tmp_path, settings, prototxt):
    settings = {**MINI, **settings}
    crop_size = settings.pop("crop_size", 89)
    net = drawn(network_class(settings)(4, **settings))
    _, caffemodel = _export(net, tmp_path, crop_size, training={"batch_size": 1})
    assert_same_network(convert(tmp_path / prototxt, caffemodel), net)


@pytest.mark.parametrize("guidance", ["eighth", "full"])
def test_exported_solver_takes_our_step(tmp_path, guidance):
    """CaffeSolver on the exported files and our network with CaffeSGD."""
    net = drawn(PSPNet(3, **MINI, dropout=0.0, variance="biased"))
    training = {"guidance": guidance, "batch_size": 2, "max_iter": 7, "iter_size": 2,
                "base_lr": 0.02, "aux_weight": 0.3, "weight_decay": 1e-3}
    _, caffemodel = _export(net, tmp_path, training=training)
    solver = load_solver(tmp_path / "solver.prototxt")
    solver.net.load_weights(caffemodel)
    images = torch.randn(2, 3, 89, 89) * 50
    labels = torch.randint(0, 3, (2, 89, 89))
    labels[0, :20] = 255
    said = solver.step(data=images, label=labels[:, None].float())
    net.train()
    ours = CaffeSGD(parameter_groups(net), 0.02, 0.9, 1e-3, 2)
    for _ in range(2):
        loss, aux_loss = (guided_loss(logits, labels, guidance, 8) for logits in net(images))
        ours.backward(loss + 0.3 * aux_loss)
    ours.step()
    assert said["loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert said["loss_aux"] == pytest.approx(aux_loss.item(), rel=1e-5)
    for layer, weight in (("conv1_1_3x3_s2", net.backbone.stem[0].conv.weight),
                          ("conv6", net.head.score.weight)):
        torch.testing.assert_close(solver.net.params[layer][0], weight, rtol=1e-4, atol=1e-5)
    written = read_solver(tmp_path / "solver.prototxt")
    assert (written.max_iter, written.lr_policy, written.net) == (7, "poly", "train_val.prototxt")


@pytest.mark.skipif(ops.USE_REFERENCE, reason="the reference has other orders of sums")
@pytest.mark.parametrize("pool, stem, stride_in",
                         [("ave", "deep", "1x1"), ("max", "classic", "3x3")])
def test_original_arithmetic_takes_the_step_of_caffe_solver(tmp_path, pool, stem, stride_in):
    """A network with the original's arithmetic and CaffeNet of its export: the same bits."""
    net = drawn(PSPNet(3, **{**MINI, "stem": stem}, pool=pool, stride_in=stride_in, dropout=0.0,
                       variance="biased", head="literal", arithmetic="original"))
    training = {"batch_size": 2, "max_iter": 7, "iter_size": 2, "base_lr": 1e-4}
    _, caffemodel = _export(net, tmp_path, training=training)
    solver = load_solver(tmp_path / "solver.prototxt")
    solver.net.load_weights(caffemodel)
    ours = CaffeSGD(parameter_groups(net.train()), 1e-4, iter_size=2)
    ours.set_rate(poly_rate(1e-4, 0, 7, 0.9))
    images, labels = torch.randn(2, 3, 89, 89) * 50, torch.randint(0, 3, (2, 89, 89))
    said = solver.step(data=images, label=labels[:, None].float())
    for _ in range(2):
        loss, aux_loss = (guided_loss(logits, labels, "eighth", 8, arithmetic="original")
                          for logits in net(images))
        ours.backward(loss + 0.4 * aux_loss)
    ours.step()
    assert (said["loss"], said["loss_aux"]) == (loss.item(), aux_loss.item())
    for path, layer in caffe_names(net).items():
        module = net.get_submodule(path)
        for name, theirs in zip(("weight", "bias", "running_mean", "running_var"),
                                solver.net.params[layer]):
            assert torch.equal(getattr(module, name).flatten(), theirs.flatten()), (layer, name)


@pytest.mark.parametrize("crop_size, words", [
    (90, r"crop sizes must be 8 \* k \+ 1 pixels, got 90"),
    (97, "crop_size 97 gives a map of 13 pixels, which 2 bins do not divide"),
    (105, "crop_size 105 gives a map of 14 pixels, which 3 bins do not divide"),
    (33, "bins must be at most the 5 pixels")])
def test_export_rejects_crops(tmp_path, crop_size, words):
    with pytest.raises(UserError, match=words):
        _export(PSPNet(3, **MINI), tmp_path, crop_size)
    assert not list(tmp_path.iterdir())


def test_export_rejects_what_the_files_cannot_hold(tmp_path):
    net = PSPNet(3, **MINI)
    with pytest.raises(UserError, match="weight must be float32, is torch.float64"):
        _export(PSPNet(3, **MINI).double(), tmp_path)
    with pytest.raises(UserError, match="dropout 0.123456789012 has more digits"):
        _export(PSPNet(3, **MINI, dropout=0.123456789012), tmp_path)
    with pytest.raises(UserError, match="must have different names"):
        export(net, 89, tmp_path / "a", tmp_path / "a")
    strided = PSPNet(3, **MINI, strides=(1, 2, 2, 2), dilations=(1, 1, 1, 1), bins=(1,))
    with pytest.raises(UserError, match="needs stride 1 in stage 5"):
        _export(strided, tmp_path, 193, training={})
    for settings, training, name in (({"spatial_dropout": True}, {}, "spatial_dropout"),
                                     ({}, {"decay_bn": True}, "decay_bn"),
                                     ({}, {"rate_in_momentum": False}, "rate_in_momentum")):
        with pytest.raises(UserError, match=f"one value of {name}, this network"):
            _export(PSPNet(3, **MINI, **settings), tmp_path, training=training)
    net.head.score.bias.data[1] = float("nan")
    with pytest.raises(UserError, match="the network: head.score.bias is not finite"):
        _export(net, tmp_path)
    assert not list(tmp_path.iterdir())


def test_export_leaves_all_files_or_none(tmp_path, monkeypatch):
    net = PSPNet(3, **MINI)
    (tmp_path / "w.caffemodel").mkdir()
    with pytest.raises(UserError, match="w.caffemodel: cannot be written: is a folder"):
        _export(net, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["w.caffemodel"]
    (tmp_path / "w.caffemodel").rmdir()
    for failing in range(4):
        written = []

        def fsync(_, failing=failing, written=written):
            written.append(1)
            if len(written) > failing:
                raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "fsync", fsync)
        with pytest.raises(UserError, match="cannot be written: .*No space left on device"):
            _export(net, tmp_path, training={})
        assert not list(tmp_path.iterdir())
    monkeypatch.undo()
    _export(net, tmp_path, training={})
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)


def test_export_command(tmp_path, capsys):
    net = drawn(PSPNet(3, **MINI))
    weights = tmp_path / "net.safetensors"
    model_file.save_model(weights, net, training={"crop_size": 89, "batch_size": 3, "max_iter": 11})
    out = tmp_path / "out"
    names = [str(out / name) for name in ("net.prototxt", "w.caffemodel")]
    assert main(["export", str(weights), "-o", *names, "--train"]) == 0
    assert sorted(capsys.readouterr().out.split()) == sorted(str(out / name) for name in FILES)
    assert list(read_net(names[0]).input_dim) == [1, 3, 89, 89]
    assert list(read_net(out / "train_val.prototxt").input_shape[0].dim) == [3, 3, 89, 89]
    assert read_solver(out / "solver.prototxt").max_iter == 11
    again = tmp_path / "again.pt"
    assert main(["convert", *names, "-o", str(again)]) == 0
    assert_same_network(model_file.load_model(again), net)
    capsys.readouterr()
    assert main(["export", str(again), "-o", *names]) == 0
    assert list(read_net(names[0]).input_dim) == [1, 3, 89, 89]
    assert main(["export", str(again), "-o", *names, "--crop-size", "97"]) == 2
    error = capsys.readouterr().err
    assert "2 bins do not divide" in error and error.count("\n") == 1


@pytest.mark.parametrize("crop_size", [
    -7, -1, 0, 1, 9, 88, 26777, 100000000, 100000001, 10 ** 30 + 1])
def test_export_command_refuses_a_crop(tmp_path, capsys, crop_size):
    weights, names = tmp_path / "net.pt", [str(tmp_path / name) for name in FILES[2:]]
    model_file.save_model(weights, PSPNet(3, **MINI), crop_size=89)
    assert main(["export", str(weights), "-o", *names, "--crop-size", str(crop_size)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: --crop-size: ") and said.count("\n") == 1
    assert str(crop_size) in said and [path.name for path in tmp_path.iterdir()] == ["net.pt"]


@pytest.mark.parametrize("outputs, why", [
    (["q.prototxt", "net.pt"], "is also read"), (["link.pt", "w"], "is also read"),
    (["q.prototxt", "hard.pt"], "is also read"), (["../{}/net.pt", "w"], "is also read"),
    (["a", "a"], "is written twice"), (["a", "./b/../a"], "is written twice"),
    (["a", "solver.prototxt"], "is written twice"),
    (["train_val.prototxt", "w"], "is written twice"), (["", "w"], "must name a file, got '.'"),
    (["a", "/"], "must name a file, got '/'")])
def test_export_command_keeps_its_input(tmp_path, capsys, monkeypatch, outputs, why):
    monkeypatch.chdir(tmp_path)
    model_file.save_model(tmp_path / "net.pt", PSPNet(3, **MINI), crop_size=89)
    (tmp_path / "link.pt").symlink_to("net.pt")
    (tmp_path / "hard.pt").hardlink_to(tmp_path / "net.pt")
    (tmp_path / "b").mkdir()
    before = (tmp_path / "net.pt").read_bytes()
    outputs = [name.format(tmp_path.name) for name in outputs]
    assert main(["export", "net.pt", "-o", *outputs, "--train"]) == 2
    said = capsys.readouterr().err
    assert why in said and said.count("\n") == 1
    assert (tmp_path / "net.pt").read_bytes() == before
    assert not (tmp_path / "solver.prototxt").exists()


def test_convert_command_keeps_its_input(tmp_path, capsys):
    prototxt, caffemodel = _export(PSPNet(3, **MINI), tmp_path)
    weights = caffemodel.rename(tmp_path / "w.pt")
    before = weights.read_bytes()
    assert main(["convert", str(prototxt), str(weights), "-o", str(weights)]) == 2
    said = capsys.readouterr().err
    assert f"{weights} is also read" in said and said.count("\n") == 1
    assert weights.read_bytes() == before


def test_exported_file_is_of_the_original_layout(tmp_path):
    """A layer by hand: field numbers and types of the binary format."""
    net = drawn(MiniPSPNet(3, stem_width=1, bins=(), aux=False, head_width=1))
    _, caffemodel = _export(net, tmp_path)
    data = caffemodel.read_bytes()
    values = net.backbone.conv1.conv.weight.detach().numpy().astype("<f4").tobytes()
    # blobs = 7: data = 5 packed, shape = 7 with dims 1, 3, 3, 3 = 1 packed.
    blob = b"\x2a" + bytes([len(values)]) + values + b"\x3a\x06\x0a\x04\x01\x03\x03\x03"
    head = b"\x0a\x05conv1\x12\x0bConvolution"
    assert head in data and blob in data
    assert data.index(blob) - data.index(head) < 200
    assert np.frombuffer(values, "<f4").shape == (27,)
