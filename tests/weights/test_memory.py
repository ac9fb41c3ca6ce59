"""How many networks are in memory while one is loaded and exported."""

import os
import subprocess
import sys

import pytest
import torch
from helpers.networks import random_net
from helpers.paths import ROOT
from helpers.port_files import port_state

from pspnet_repro import PSPNet
from pspnet_repro.errors import UserError
from pspnet_repro.files import write_bytes
from pspnet_repro.weights import model_file, plain_file, semseg
from pspnet_repro.weights.adopt import adopt
from pspnet_repro.weights.onnx import OnnxFile
from pspnet_repro.weights.torch_export import TorchExportFile

MEASURE = """
import sys
import onnx, onnxruntime, torch.export
import prototxt_import.commands.work.export
from experiments.peak_memory import peak_bytes
from pspnet_repro.__main__ import main
before = peak_bytes()
code = main(sys.argv[1:])
print(peak_bytes() - before)
sys.exit(code)
"""


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A file of a network of 0.5 GiB, a third of it in one convolution, and its bytes."""
    path = tmp_path_factory.mktemp("wide") / "wide.safetensors"
    net = PSPNet(10, blocks=(1, 1, 1, 1), widths=(64, 256, 512, 1536), head_width=640).eval()
    model_file.save_model(path, net)
    return path, sum(tensor.nbytes for tensor in net.state_dict().values())


@pytest.mark.parametrize("option, ending", [("--onnx", "onnx"), ("--torch-export", "pt2"),
                                            ("--output", "prototxt")])
def test_an_export_needs_memory_for_less_than_two_networks(tmp_path, wide, option, ending):
    """Mapped files included."""
    path, size = wide
    files = [tmp_path / f"net.{ending}", *[tmp_path / "w.caffemodel"] * (option == "--output")]
    run = subprocess.run(
        [sys.executable, "-c", MEASURE, "export", path, option, *files, "--crop-size", "41"],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout.split()[-1]) < 2 * size


@pytest.mark.parametrize("kind", [OnnxFile, TorchExportFile])
def test_a_released_network_is_written_alike(tmp_path, kind):
    for release in (False, True):
        torch.manual_seed(0)
        net = random_net()
        write_bytes(tmp_path / f"{release}.pt2", kind(net, 97, release=release))
        convolutions = [unit.conv for branch, project in net.backbone.residuals()
                        for unit in (*branch, *filter(None, [project]))]
        assert all((convolution.weight is None) == release for convolution in convolutions)
    first, second = ((tmp_path / f"{release}.pt2").read_bytes() for release in (False, True))
    assert first == second


def test_tensors_of_several_mappings_are_the_files(tmp_path, monkeypatch):
    path, net = tmp_path / "w.safetensors", random_net()
    model_file.save_model(path, net)
    monkeypatch.setattr(plain_file, "_MAPPED", 1000)
    weights = model_file.read_model_file(path)["weights"]
    assert all(weights[name].equal(tensor) for name, tensor in net.state_dict().items())
    assert len({tensor.untyped_storage().data_ptr() for tensor in weights.values()}) > 10


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "w.safetensors"
    model_file.save_model(path, random_net())
    tensors = plain_file._tensors

    def replaced(*arguments):
        model_file.save_model(path, random_net())
        return tensors(*arguments)

    monkeypatch.setattr(plain_file, "_tensors", replaced)
    with pytest.raises(UserError, match=r"w\.safetensors: was changed while it was read"):
        model_file.load_model(path)


def test_a_ports_tensors_are_copied_where_they_share_memory():
    """The rest are taken over."""
    state = port_state("semseg", blocks=(1, 1, 1, 1))
    state["cls.1.weight"] = state["cls.1.bias"]
    state["layer4.0.bn1.bias"] = torch.rand(2, len(state["layer4.0.bn1.bias"]))[1]
    wanted = {name: tensor.clone() for name, tensor in state.items()}
    plan = semseg.plan("w.pth", state)
    weights = adopt("w.pth", state, plan, "semseg's PSPNet").model.state_dict()
    ours = {f"{theirs}.{kind}": f"{place}.{kind}" for place, theirs in plan.modules.items()
            for kind in ("weight", "bias", "running_mean", "running_var")}
    places = [tensor.untyped_storage() for tensor in weights.values()]
    assert len({place.data_ptr() for place in places}) == len(weights)
    assert all(place.nbytes() == tensor.nbytes
               for place, tensor in zip(places, weights.values(), strict=True))
    assert all(weights[ours[name]].equal(tensor) for name, tensor in wanted.items()
               if name in ours and not name.startswith("cls.0"))
    assert weights[ours["layer1.0.conv1.weight"]].data_ptr() == (
        state["layer1.0.conv1.weight"].data_ptr())
