"""Files of torch.export against the networks that they were made of."""

import json

import pytest
import torch
from helpers.networks import random_net, same_argmax, tiny_net

from pspnet_repro.__main__ import main
from pspnet_repro.errors import UserError
from pspnet_repro.weights import model_file, score_check
from pspnet_repro.weights.torch_export import FACTS, torch_export_bytes


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
        torch_export_bytes(tiny_net(), 90)


def test_other_scores_are_refused():
    wanted = torch.tensor([[2.0, 0.0], [1.0, 1.0]]).view(1, 2, 1, 2)
    check = score_check.compare("torch", wanted + 1e-6, wanted)
    assert (check.images, check.pixels, check.other_argmax) == (1, 2, 0)
    tie = wanted.clone()
    tie[0, 1, 0, 0] = 2.0
    assert score_check.compare("torch", tie + torch.tensor([0.0, 1e-6]).view(1, 2, 1, 1),
                               tie).other_argmax == 1
    for scores in (wanted + 1e-4, wanted * float("nan")):
        with pytest.raises(UserError, match="scores in torch differ .* nothing is written"):
            score_check.compare("torch", scores, wanted)
