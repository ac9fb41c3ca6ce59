"""Testing in less than float32: switches, and agreement."""

import dataclasses

import numpy as np
import pytest
import torch
from helpers.image_files import photograph
from helpers.networks import random_net
from helpers.precision import switches

from pspnet_repro import ops
from pspnet_repro.evaluation import Protocol
from pspnet_repro.evaluation.precision import Autocast, agreement, network_in, use_precision
from pspnet_repro.evaluation.sliding import first_windows
from pspnet_repro.model.image_input import CAFFE

PROTOCOL = Protocol(base_size=96, crop_size=89)


@pytest.mark.parametrize("precision, value", [("float32", "ieee"), ("bfloat16", "ieee"),
                                              ("tf32", "tf32")])
def test_arithmetic_sets_the_switches_of_tf32_and_puts_them_back(precision, value):
    before = switches()
    assert before[1] == "tf32", "torch no longer lets convolutions round by default"
    with pytest.raises(KeyError), use_precision(precision):
        assert switches() == [value] * 3
        with use_precision("float32"):
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

    stride, image_input, align_corners = 8, CAFFE, True

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


def test_float32_on_the_cpu_means_it_whatever_torch_was_told():
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    cpu = torch.backends.mkldnn.matmul
    try:
        assert cpu.fp32_precision == "bf16", "torch no longer lets matrix products round"
        for precision in ("float32", "tf32", "bfloat16"):
            with use_precision(precision):
                assert cpu.fp32_precision == "ieee"
        assert cpu.fp32_precision == "bf16"
    finally:
        torch.set_float32_matmul_precision(before)
