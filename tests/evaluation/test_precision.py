"""Testing in less than float32: switches, agreement, and the commands that take --precision."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from helpers.commands import SIZES, run
from helpers.image_files import photograph
from helpers.networks import random_net

from pspnet_repro import ops
from pspnet_repro.evaluation import Protocol
from pspnet_repro.evaluation.precision import Autocast, agreement, arithmetic, network_in
from pspnet_repro.evaluation.sliding import first_windows

PROTOCOL = Protocol(base_size=96, crop_size=89)


def switches():
    cudnn = torch.backends.cudnn
    return [torch.backends.cuda.matmul.fp32_precision, cudnn.conv.fp32_precision,
            cudnn.rnn.fp32_precision]


@pytest.mark.parametrize("precision, value", [("float32", "ieee"), ("bfloat16", "ieee"),
                                              ("tf32", "tf32")])
def test_arithmetic_sets_the_switches_of_tf32_and_puts_them_back(precision, value):
    before = switches()
    assert before[1] == "tf32", "torch no longer lets convolutions round by default"
    with pytest.raises(KeyError), arithmetic(precision):
        assert switches() == [value] * 3
        with arithmetic("float32"):
            assert switches() == ["ieee"] * 3
        assert switches() == [value] * 3
        raise KeyError
    assert switches() == before


@pytest.mark.parametrize("onednn", [True, False], ids=["onednn", "plain"])
@torch.no_grad()
def test_bfloat16_networks_give_float32_logits(onednn, monkeypatch):
    """Fused no farther from float32 than layer by layer, but for the luck of rounding."""
    if not onednn:
        monkeypatch.setattr("pspnet_repro.model.fused.onednn_fuses", lambda weight: False)
    net = random_net()
    x = 60 * torch.randn(2, 3, 89, 97)
    wanted = net.logits(x)

    def distance(precision, fused):
        logits = network_in(net, precision, fused).logits(x)
        assert logits.dtype == torch.float32
        return ((logits - wanted).norm() / wanted.norm()).item()

    fused, unfused = distance("bfloat16", True), distance("bfloat16", False)
    assert 1e-4 < unfused < 0.1 and 1e-4 < fused <= 1.5 * unfused
    assert distance("float32", True) <= 1e-5 and distance("float32", False) == 0
    cast = Autocast(net)
    assert torch.equal(cast(x), ops.interp2d(cast.logits(x), (89, 97)))


class Shifted(torch.nn.Module):
    """Logits (N, 2, 12, 12): a step at column `edge` of the map, plus 1 for every window before."""

    stride = 8

    def __init__(self, edge):
        super().__init__()
        self.edge = torch.nn.Parameter(torch.tensor(float(edge)))

    def logits(self, x):
        step = torch.arange(12.0).expand(len(x), 1, 12, 12) - self.edge
        return torch.cat([step, -step], 1)


def test_agreement_by_hand():
    """Edges at columns 4 and 6 of 12 are columns 32 and 48 of 89."""
    image = photograph(60, 96)
    found = agreement(Shifted(6), Shifted(4), "bfloat16", image, PROTOCOL, 9)
    # Two windows of 61 (the image's) rows; 16 columns of each differ, of which one is a tie.
    assert found["windows"] == 2
    assert found["same_argmax"] == pytest.approx(1 - 16 / 89, abs=1 / 89)
    assert found["largest_error"] == pytest.approx(2 / 7)
    same = agreement(Shifted(4), Shifted(4), "tf32", image, PROTOCOL, 1)
    assert same == {"same_argmax": 1.0, "largest_error": 0.0, "windows": 1}


def test_first_windows_are_those_of_the_scale_nearest_one():
    image = photograph(60, 96)
    many = dataclasses.replace(PROTOCOL, scales=(0.5, 1.0, 1.75))
    windows, areas = first_windows(image, many, 5)
    assert torch.equal(windows, first_windows(image, PROTOCOL, 5)[0])
    assert windows.shape == (2, 3, 89, 89) and len(first_windows(image, many, 1)[0]) == 1
    rows, cols = areas[0]
    assert np.arange(89)[rows].tolist() == list(range(61)) and np.arange(89)[cols].size == 89


@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_tf32_is_refused_on_cpus(photos, weights, tmp_path, capfd, command):
    words = {"evaluate": ["--data", photos], "predict": [photos / "0.png"]}[command]
    code, _, error = run(capfd, command, "--weights", weights, *words, "--precision", "tf32",
                         "--output", tmp_path / "out", *SIZES)
    assert code == 2 and "--precision tf32 needs --device cuda" in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("switch", [(), ("--no-fusion",)], ids=["fused", "unfused"])
def test_evaluate_in_bfloat16_measures_its_cost(
        photos, weights, tmp_path, capfd, switch):
    out = tmp_path / "out"
    command = ("evaluate", "--weights", weights, "--data", photos, *SIZES, "--output", out)
    before = switches()
    code, said, error = run(capfd, *command, "--precision", "bfloat16", *switch)
    assert code == 0, error
    assert "bfloat16 against float32 on the first image: same class on " in said
    figures = json.loads((out / "result.json").read_text())
    assert figures["precision"] == "bfloat16" and figures["fused"] == (not switch)
    measured = figures["agreement"]
    assert 0.9 < measured["same_argmax"] <= 1 and 1e-4 < measured["largest_error"] < 0.1
    lines = (out / "counts.jsonl").read_text().splitlines()
    assert json.loads(lines[0])["agreement"] == measured

    other = () if switch else ("--no-fusion",)
    for words, sentence in (((*switch,), "holds a test with precision = 'bfloat16', not 'float32'"),
                            (("--precision", "bfloat16", *other), f"with fused = {not switch}")):
        code, _, error = run(capfd, *command, *words)
        assert code == 1 and sentence in error
    # What a machine measured may differ from another's: no reason to start again.
    head = json.loads(lines[0]) | {"agreement": {"same_argmax": 0.5}}
    (out / "counts.jsonl").write_text("\n".join([json.dumps(head), *lines[1:4]]) + "\n")
    assert run(capfd, *command, "--precision", "bfloat16", *switch)[0] == 0
    assert (out / "counts.jsonl").read_text().splitlines() == lines
    assert switches() == before


def test_predict_in_bfloat16_measures_on_what_can_be_read(
        photos, weights, tmp_path, capfd):
    (photos / "a.png").write_bytes(b"no image")
    words = ("predict", "--weights", weights, photos / "a.png", photos / "1.png", "-o",
             tmp_path / "out", *SIZES)
    code, said, _ = run(capfd, *words, "--precision", "bfloat16")
    assert code == 1 and "bfloat16 against float32 on the first image" in said
    assert (tmp_path / "out" / "1.label.png").exists()
    assert "against float32" not in run(capfd, *words)[1]
