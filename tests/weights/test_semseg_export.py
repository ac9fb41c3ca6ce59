"""Networks as files of semseg's program."""

import pytest
import torch
from helpers.image_files import photograph
from helpers.networks import MINI, random_net, same_argmax, tiny_net
from helpers.port_files import port_names, port_scores, port_state

from pspnet_repro.__main__ import main
from pspnet_repro.errors import UserError
from pspnet_repro.weights import model_file
from pspnet_repro.weights.convert import convert_file
from pspnet_repro.weights.semseg import state_for_semseg

SHAPE = {"blocks": (1, 1, 2, 1), "width": 4}
INPUT = {"input_order": "rgb", "input_mean": (123.675, 116.28, 103.53),
         "input_std": (58.395, 57.12, 57.375)}


def export(tmp_path, net):
    model_file.save_model(tmp_path / "w.pt", net)
    code = main(["export", str(tmp_path / "w.pt"), "--semseg", str(tmp_path / "s.pth")])
    return code, tmp_path / "s.pth"


def test_converting_and_exporting_gives_the_file_again(tmp_path, capsys):
    state = port_state("semseg", **SHAPE)
    torch.save({"state_dict": state}, tmp_path / "port.pth")
    code, path = export(tmp_path, convert_file(tmp_path / "port.pth").model)
    assert code == 0
    got = torch.load(path, weights_only=True)["state_dict"]
    assert {name: tuple(tensor.shape) for name, tensor in got.items()} == dict(
        port_names("semseg", **SHAPE))
    for name, tensor in got.items():
        counter = name.endswith("num_batches_tracked")
        assert torch.equal(tensor, torch.tensor(0) if counter else state[name]), name
    assert "computes the same of this input: rgb, minus (123.675," in capsys.readouterr().out


def test_exported_weights_give_our_scores_in_semsegs_network(tmp_path):
    torch.manual_seed(0)
    net = random_net(**{**MINI, **SHAPE, "width": 0.125}, stride_in="3x3", **INPUT)
    code, path = export(tmp_path, net)
    image = photograph(89, 97)
    got = port_scores("semseg", torch.load(path, weights_only=True)["state_dict"], image,
                      blocks=SHAPE["blocks"])[None]
    with torch.inference_mode():
        wanted = net(net.prepare(image))
    assert code == 0 and (got - wanted).abs().max() <= 1e-5 * wanted.abs().max()
    assert same_argmax(got, wanted)


@pytest.mark.parametrize("settings, message", [
    ({}, "stride_in must be '3x3', is '1x1'"),
    ({"aux": False}, "aux must be True, is False"),
    ({"bins": (1, 2)}, r"bins must be \(1, 2, 3, 6\), is \(1, 2\)"),
    ({"pool": "max"}, "pool must be 'ave', is 'max'"),
    ({"align_corners": False}, "align_corners must be True, is False"),
    ({"stem": "classic"}, "stem must be 'deep', is 'classic'"),
    ({"backbone": "mini", "stem_width": 8}, "backbone must be 'resnet', is 'mini'")])
def test_other_networks_are_no_networks_of_semseg(settings, message):
    with pytest.raises(UserError, match=f"not a network of semseg's program: .*{message}"):
        state_for_semseg(random_net(**settings))


def test_command_refuses_another_network_and_ending(tmp_path, capsys):
    code, path = export(tmp_path, tiny_net())
    assert code == 1 and not path.exists()
    assert "pspnet export --onnx NET.onnx takes every network" in capsys.readouterr().err
    assert main(["export", str(tmp_path / "w.pt"), "--semseg", str(tmp_path / "s.pt")]) == 2
    assert "--semseg must end in .pth, got" in capsys.readouterr().err
