"""Files of torch.export against the networks that they were made of."""

import json

import pytest
import torch
from helpers.networks import random_net, same_argmax, tiny_net

from pspnet_repro.__main__ import main
from pspnet_repro.errors import UserError
from pspnet_repro.files import write_bytes
from pspnet_repro.weights import model_file, score_check
from pspnet_repro.weights.torch_export import FACTS, TorchExportFile


@pytest.mark.parametrize("settings", [{}, {"align_corners": False, "ceil_mode": False}],
                         ids=["caffe", "mmseg"])
@torch.no_grad()
def test_command_writes_the_networks_program(tmp_path, capsys, settings):
    """For any number of images."""
    torch.manual_seed(0)
    net, path = random_net(**settings), tmp_path / "net.pt2"
    model_file.save_model(tmp_path / "w.pt", net)
    command = ["export", str(tmp_path / "w.pt"), "--torch-export", str(path), "--crop-size"]
    assert main([*command, "97"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == str(path) and lines[0].startswith("torch ")
    facts = {FACTS: ""}
    program = torch.export.load(path, extra_files=facts)
    assert json.loads(facts[FACTS])["check"]["largest_error"] <= 1e-5
    assert json.loads(facts[FACTS])["settings"] == json.loads(json.dumps(dict(net.settings)))
    for images in (1, 3):
        x = torch.randn(images, 3, 97, 97) * 60
        scores, wanted = program.module()(x), net(x)
        assert (scores - wanted).abs().max() <= 1e-5 * wanted.abs().max()
        assert same_argmax(scores, wanted)


def test_a_size_of_no_crop_is_refused():
    with pytest.raises(UserError, match=r"crop sizes must be 8 \* k \+ 1 pixels, got 90"):
        TorchExportFile(tiny_net(), 90)


@pytest.mark.parametrize("settings", [{}, {"align_corners": False, "ceil_mode": False},
                                      {"bins": (), "aux": False}], ids=["caffe", "mmseg", "plain"])
@torch.no_grad()
def test_program_of_any_size_gives_the_networks_scores(tmp_path, settings):
    """And refuses what the network refuses."""
    torch.manual_seed(0)
    net, path = random_net(**settings), tmp_path / "net.pt2"
    write_bytes(path, TorchExportFile(net, 97, dynamic_size=True))
    program = torch.export.load(path).module()
    for size in ((97, 97), (145, 49), (41, 113), *[(100, 87)] * net.any_size):
        x = torch.randn(2, 3, *size) * 60
        scores, wanted = program(x), net(x)
        assert (scores - wanted).abs().max() <= 1e-5 * wanted.abs().max()
        assert same_argmax(scores, wanted)
    for size in ([(33, 97)] if net.pyramid.bins else []) + [(97, 98)] * (not net.any_size):
        with pytest.raises(ValueError):
            net.check_crop(*size)
        with pytest.raises(AssertionError, match="Guard failed: "):
            program(torch.zeros(1, 3, *size))


def test_other_scores_are_refused():
    wanted = torch.tensor([[2.0, 0.0], [1.0, 1.0]]).view(1, 2, 1, 2)
    check = score_check.compare("torch", wanted + 1e-6, wanted)
    assert (check.sizes, check.pixels, check.other_argmax) == (((1, 2),), 2, 0)
    tie, close = wanted.clone(), wanted.clone()
    tie[0, 1, 0, 0], close[0, 1, 0, 0] = 2.0, 2.0 - 5e-6
    more = torch.tensor([0.0, 1e-5]).view(1, 2, 1, 1)
    assert score_check.compare("torch", tie + more, tie).other_argmax == 1
    # Scores are near enough, but the argmax is another one.
    with pytest.raises(UserError, match="by .*e-06 of the largest, 1 of 2 pixels have another ar"):
        score_check.compare("torch", close + more, close)
    for scores in (wanted + 1e-4, wanted * float("nan")):
        with pytest.raises(UserError, match="scores in torch differ .* nothing is written"):
            score_check.compare("torch", scores, wanted)
