"""Files of weights that would fill the memory, or hold what no network can."""

import resource
import zipfile

import pytest
import torch
from helpers.commands import SMALL, run
from helpers.networks import MODEL
from helpers.refusals import refused

from pspnet_repro import PSPNet, load_model
from pspnet_repro.training.initial_weights import load_initial_weights
from pspnet_repro.weights import model_file, plain_file

NAME = "backbone.stem.0.conv.weight"


def content(**changes):
    """What save_model writes of a small network, with changes of its settings."""
    net = PSPNet(**MODEL).eval()
    return {"kind": "pspnet", "settings": {**net.settings, **changes},
            "weights": net.state_dict()}


def saved(path, tensor=None, **changes):
    """A file of a small network, perhaps with one tensor replaced."""
    plain = content(**changes)
    if tensor is not None:
        plain["weights"][NAME] = tensor
    torch.save(plain, path)
    return path


def rewritten(path, source, compression=zipfile.ZIP_STORED, change=lambda name, data: data):
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w", compression) as new:
        for record in old.infolist():
            new.writestr(record.filename, change(record.filename, old.read(record)))
    return path


def test_compressed_records_are_refused_unread(tmp_path):
    def zeros(name, data):
        return bytes(2 ** 28) if name.endswith("/data/0") else data

    source = saved(tmp_path / "source.pt")
    path = rewritten(tmp_path / "bomb.pt", source, zipfile.ZIP_DEFLATED, zeros)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(r"bomb.pt: .* is a compressed record of \d+ bytes", load_model, path)
    refused("bomb.pt: .* compressed", plain_file.load, path, path.read_bytes())
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 2 ** 16
    load_model(rewritten(tmp_path / "plain.pt", source))


@pytest.mark.parametrize("command", ["predict", "evaluate", "convert", "train", "export"])
def test_every_command_refuses_compressed_records(squares, tmp_path, capfd, command):
    bomb = rewritten(tmp_path / "bomb.pt", saved(tmp_path / "source.pt"), zipfile.ZIP_DEFLATED)
    out = tmp_path / "out"
    words = {
        "predict": (squares / "0.png", "-o", out, "--weights", bomb),
        "evaluate": ("--data", squares, "-o", out, "--weights", bomb),
        "convert": ("--backbone", bomb, "-o", tmp_path / "out.pt"),
        "train": ("--data", squares, "--classes", 4, *SMALL, "-o", out, "--initial-weights", bomb),
        "export": (bomb, "-o", tmp_path / "a.prototxt", tmp_path / "a.caffemodel")}
    code, _, said = run(capfd, command, *words[command])
    assert code == 1 and f"error: {bomb}: " in said and "compressed" in said
    assert not out.exists() and len(list(tmp_path.iterdir())) == 2


def test_tensors_larger_than_their_file_are_refused(tmp_path):
    shape = content()["weights"][NAME].shape
    path = saved(tmp_path / "w.pt", torch.zeros(1).expand(2 ** 30, *shape[1:]))
    refused("w.pt: .*: its tensors up to this one have .* they repeat numbers", load_model, path)

    plain = content()
    one = torch.zeros(max(tensor.numel() for tensor in plain["weights"].values()))
    plain["weights"] = {name: one[:tensor.numel()].view(tensor.shape)
                        for name, tensor in plain["weights"].items()}
    torch.save(plain, path)
    refused("w.pt: .* they repeat numbers", load_model, path)


def test_a_bytearray_is_refused(tmp_path):
    torch.save({"a": bytearray(8)}, tmp_path / "w.pt")
    refused("w.pt: .*bytearray", plain_file.load, tmp_path / "w.pt")


@pytest.mark.parametrize("changes, words", [
    ({"strides": (10 ** 9,) * 4}, "strides must be at most 8"),
    ({"dilations": (1, 1, 2, 10 ** 9)}, "dilations must be at most 64"),
    ({"bins": (1, 10 ** 9)}, "bins must be at most 128"),
    ({"classes": None}, "settings, classes: must be a whole number, got 'None'"),
    ({"widths": (10 ** 9,) * 4}, "widths must be at most"),
    ({"strides": (8, 8, 8, 8)}, "crop sizes must be 16384 . k .* its crop_size; give --crop-size")])
def test_settings_of_no_network_are_the_files_fault(squares, tmp_path, capfd, changes, words):
    path = saved(tmp_path / "w.pt", **changes)
    code, _, said = run(capfd, "predict", squares / "0.png", "-o", tmp_path / "o", "--weights",
                        path)
    line, = [line for line in said.splitlines() if line.startswith("error: ")]
    assert code == 1, line
    assert line.startswith(f"error: {path}: ")
    refused(words.replace("; give --crop-size", ""), _predictor, path)


def _predictor(path):
    from pspnet_repro import Predictor
    return Predictor(path)


@pytest.mark.parametrize("value", [1e300, float("nan"), float("-inf")])
def test_weights_that_are_not_finite_are_named(tmp_path, value):
    shape = content()["weights"][NAME].shape
    path = saved(tmp_path / "w.pt", torch.full(shape, value, dtype=torch.float64))
    refused(f"w.pt: {NAME} is not finite as torch.float32", load_model, path)
    refused(f"w.pt: {NAME} is not finite as torch.float32", load_initial_weights, PSPNet(**MODEL),
            path)
    assert model_file.read_model_file(path)["kind"] == "pspnet"
