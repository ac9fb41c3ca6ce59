"""Systems of other papers: their files, the harness's changes to them, their training."""

import json

import numpy as np
import pytest
import torch
from helpers.harness import run_rows

from experiments.profiles import PROFILES
from experiments.systems.network import NAMES, Network, system_files
from prototxt_import import load_net


def _parameters(name, classes):
    network = Network(system_files(name, "published")[0], classes, None, True)
    with torch.device("meta"):
        net = network.for_training()
    assert net.shapes[network.image] == (network.batch_size, 3, 384, 384)
    assert net.shapes[network.scores] == (network.batch_size, classes, 384, 384)
    return sum(parameter.numel() for parameter in net.parameters())


@pytest.mark.parametrize("name, parameters", [("dilatednet", 134_917_847), ("fcn-8s", 141_562_917)])
def test_published_systems_have_the_benchmarks_parameters(name, parameters):
    """Those of the ADE20K benchmark's files, which have an output for void."""
    assert _parameters(name, 151) == parameters


def test_published_systems_have_the_data_sets_classes():
    # SegNet's lacks the weights of classes, which are the data's.
    assert _parameters("segnet", 150) == 29_529_558
    for name in ("fcn-8s", "dilatednet", "dilatednet-context"):
        file = system_files(name, "published")[0]
        with torch.device("meta"):
            as_written = load_net(file, phase="TRAIN")
        assert sum(p.numel() for p in as_written.parameters()) == _parameters(name, 150)
    # Seven 3x3 convolutions and a 1x1 one of as many channels as classes.
    assert (_parameters("dilatednet-context", 21) - _parameters("dilatednet", 21)
            == 21 * (21 * (7 * 9 + 1) + 8))


@pytest.mark.parametrize("name", [*NAMES, "dilatednet-context"])
def test_miniatures_fit_the_profile(name):
    profile = PROFILES["mini"]
    network = Network(system_files(name, "mini")[0], len(profile.classes), None)
    assert (network.crop_size, network.batch_size) == (profile.crop_size,
                                                       profile.train["batch_size"])


@pytest.fixture(scope="module")
def systems(tiny):
    """Folders of the tests of the three systems' trainings."""
    profile, data, folder = tiny
    return {name: run_rows(profile, data, folder / "systems", name)[0] for name in NAMES}


def test_systems_are_rows_as_others(tiny, systems):
    profile, _, folder = tiny
    for name, out in systems.items():
        result = json.loads((out / "result.json").read_text())
        assert result["row"] == name and result["settings"]["system"] == name
        assert result["settings"]["max_iter"] == profile.train["max_iter"]
        assert np.sum(result["confusion"]) == 3 * profile.crop_size ** 2
        curve = [json.loads(line) for line in
                 (out.parent / "curve.jsonl").read_text().splitlines()]
        assert [line["iteration"] for line in curve] == [1, 2]
        # Three images, all of the validation list: the last point is the test itself.
        assert curve[-1]["mean_iou"] == pytest.approx(result["mean_iou"], rel=1e-12)
        assert str(folder) not in (out / "result.json").read_text()
        assert not list(out.parent.glob("checkpoint*"))
