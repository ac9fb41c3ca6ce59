"""The profile `paper`: its settings, its schedule, and that it starts."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.image_files import put
from helpers.paths import ROOT

from experiments.experiment import Experiment
from experiments.profiles import PROFILES
from experiments.rows import FULL, ROWS
from pspnet_repro import PSPNet
from pspnet_repro.training.solver import parameter_groups, poly_rate

PAPER = PROFILES["paper"]


@pytest.fixture(scope="module")
def ade20k(tmp_path_factory):
    """Random photographs and labels of ADE20K's sizes and values, in the layout of its archive."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for part, numbers in (("training", (1, 2, 3)), ("validation", (1,))):
        for k in numbers:
            folder, name = root / "ADEChallengeData2016", f"ADE_{part[:5]}_{k:08d}"
            put(folder / "images" / part / f"{name}.jpg", rng.integers(0, 256, (256, 341, 3)))
            put(folder / "annotations" / part / f"{name}.png",
                np.kron(rng.integers(0, 151, (4, 11)), np.ones((64, 31))))
    return root


def test_settings_are_the_papers(ade20k):
    settings = Experiment(PAPER, ade20k, ade20k / "runs").settings(ROWS[FULL], 0)
    facts = {"crop_size": 473, "batch_size": 16, "max_iter": 150_000, "base_lr": 0.01,
             "power": 0.9, "momentum": 0.9, "weight_decay": 1e-4, "aux_weight": 0.4,
             "guidance": "eighth", "rate_in_momentum": True, "decay_bn": False}
    assert {name: getattr(settings, name) for name in facts} == facts
    assert dataclasses.asdict(settings.augmentation) == {
        "scales": (0.5, 2.0), "rotation": 10.0, "blur": True, "mirror": True,
        "padding": "end"}
    assert settings.model["classes"] == 150 and PAPER.base_size == 512


# 0.01 * x^0.9 by hand. The original computes x = 1 - iteration / 150000 in float32, whose values
# just below 1 lie 2^-24 apart: of 1/150000 = 111.85 * 2^-24 it keeps 112 * 2^-24, with the
# logarithm -11.917033; exp(-10.725330) = 2.19810e-5. Half way, exp(-0.623832) = 0.535887.
@pytest.mark.parametrize("iteration, rate", [(0, 0.01), (75_000, 5.35887e-3),
                                             (149_999, 2.19810e-7)])
def test_learning_rate_follows_the_papers_schedule(iteration, rate):
    assert poly_rate(0.01, iteration, 150_000, 0.9) == pytest.approx(rate, rel=1e-5)


def test_new_layers_learn_ten_times_as_fast(ade20k):
    settings = Experiment(PAPER, ade20k, ade20k / "runs").settings(ROWS[FULL], 0)
    net = PSPNet(**{**settings.model, "width": 0.125, "stem_width": 8})
    multipliers = {id(parameter): (group["lr_mult"], group["decay_mult"])
                   for group in parameter_groups(net) for parameter in group["params"]}
    wanted = {"backbone.stem.0.conv.weight": (1, 1), "backbone.stem.0.bn.weight": (1, 0),
              "pyramid.reduce.0.conv.weight": (10, 1), "head.conv.bn.bias": (10, 0),
              "head.score.weight": (10, 1), "head.score.bias": (20, 1),
              "auxiliary.score.bias": (20, 1)}
    parameters = dict(net.named_parameters())
    assert {name: multipliers[id(parameters[name])] for name in wanted} == wanted


_SHORT = """
import dataclasses, sys
from pathlib import Path
from helpers.harness import run_rows
from experiments.profiles import PROFILES
from experiments.rows import FULL
paper = PROFILES["paper"]
train = paper.train | {"batch_size": 2, "max_iter": 2}
out, = run_rows(dataclasses.replace(paper, train=train), Path(sys.argv[1]), Path(sys.argv[2]), FULL)
print(out)
"""


@pytest.mark.slow
def test_two_iterations_of_pspnet50_at_473_with_batch_2(ade20k, tmp_path):
    run = subprocess.run([sys.executable, "-c", _SHORT, str(ade20k), str(tmp_path)],
                         env={**os.environ, "PYTHONPATH": str(ROOT / "tests")}, cwd=ROOT,
                         capture_output=True, text=True, check=True)
    out = Path(run.stdout.strip())
    losses = [json.loads(line) for line in (out.parent / "losses.jsonl").read_text().splitlines()]
    assert [line["iteration"] for line in losses] == [0, 1]
    # Before it has learned, a network of 150 classes is no better than guessing: ln 150 = 5.01.
    assert 4 < losses[0]["loss"] < 8 and 4 < losses[0]["loss_aux"] < 8
    result = json.loads((out / "result.json").read_text())
    assert np.sum(result["confusion"]) > 0.9 * 256 * 341  # one label in 151 is void
    assert result["settings"]["model"]["depth"] == 50 and result["test"]["crop_size"] == 473
    assert result["train_peak_memory_mib"] < 6 * 1024
