"""The estimate of time and memory: what is counted from shapes, and what is made of it."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.paths import ROOT

from experiments import plan
from experiments.cost import forecast, measure, shapes
from experiments.experiment import Experiment
from experiments.profiles import PROFILES
from experiments.rows import BASELINE, FULL, ROWS
from pspnet_repro.data import scenes
from pspnet_repro.data.images import png_bytes
from pspnet_repro.distributed import Processes
from pspnet_repro.evaluation import MULTI_SCALE, Protocol, predict_probabilities
from pspnet_repro.files import write_bytes

MINI, PAPER = PROFILES["mini"], PROFILES["paper"]


@pytest.fixture
def data(tmp_path):
    return scenes.write_scenes(tmp_path, train=4, val=3)


def _settings(profile, name, data):
    return Experiment(profile, data, data / "runs").settings(ROWS[name], 0)


def _key(profile, name, data):
    return shapes.network_key(_settings(profile, name, data).model)


@pytest.mark.parametrize("protocol", [
    Protocol(184, 185, MULTI_SCALE), Protocol(184, 89, flip=False), Protocol(184, 89, stride=89),
    Protocol(184, 185, whole_image=True)], ids=["multi-scale", "no-flip", "stride", "whole"])
def test_windows_are_those_that_a_test_passes_on(protocol):
    pixels = 0

    def net(crops):
        nonlocal pixels
        pixels += len(crops) * crops.shape[2] * crops.shape[3]
        return torch.zeros(len(crops), 2, *crops.shape[2:])

    about = vars(protocol) | {"scales": protocol.scales}
    predict_probabilities(net, np.zeros((100, 184, 3), np.uint8), classes=2, **about)
    assert shapes.windows_an_image(protocol, 100, 184) == pytest.approx(
        pixels / protocol.crop_size ** 2)


def test_step_work_grows_with_the_batch(data):
    key = _key(MINI, FULL, data)
    one, two = (shapes.step_work(key, 185, batch) for batch in (2, 4))
    assert one.weight_bytes == two.weight_bytes
    assert 1.9 < two.multiply_adds / one.multiply_adds <= 2.0
    assert 1.9 < two.kept_bytes / one.kept_bytes <= 2.01
    # A backward pass costs two forward passes, but for the first convolution's input.
    forward = shapes.window_work(key, 185) * 2
    assert 2.5 < one.multiply_adds / forward < 3.6


def test_networks_that_cost_the_same_are_measured_once(data):
    keys = {name: _key(MINI, name, data) for name in
            (BASELINE, "aux-0.3", FULL, "train-biased", "train-spatial-dropout", "depth-101")}
    assert keys[BASELINE] == keys["aux-0.3"] and len(set(keys.values())) == 3
    assert keys[FULL] == keys["train-biased"] == keys["train-spatial-dropout"]


def test_large_networks_are_measured_smaller(data):
    assert measure.measured_size(_key(MINI, "depth-269", data), 185, 8) == (185, 8)
    assert measure.measured_size(_key(PAPER, FULL, data), 473, 16) == (185, 2)


def test_rates_become_seconds_and_bytes(data):
    settings = _settings(MINI, FULL, data)
    step = shapes.step_work(shapes.network_key(settings.model), 185, 8)
    rates = measure.Rates(step_rate=1e-9, window_rate=2e-9, reading_seconds=0.5,
                           processor_share=0.5, base_bytes=1000, kept_factor=2.0, crop_size=185,
                           batch_size=8)
    assert rates.step_seconds(settings, 0) == pytest.approx(step.multiply_adds * 1e-9 + 4.0)
    assert rates.step_seconds(settings, 2) == pytest.approx(max(step.multiply_adds * 1e-9, 2.0))
    assert rates.peak_bytes(settings) == 1000 + 3 * step.weight_bytes + 2 * step.kept_bytes


def test_a_network_that_was_not_measured_gets_the_medians():
    one = measure.Rates(1.0, 2.0, 0.1, 0.5, 1000, 2.0, 185, 2)
    other = dataclasses.replace(one, step_rate=3.0)
    rates = measure.with_medians({"a": one, "b": other}, ["a", "b", "c"])
    assert rates == {"a": one, "b": other,
                     "c": dataclasses.replace(one, step_rate=2.0, measured=False)}


def test_wall_seconds_fills_what_is_free():
    assert forecast.wall_seconds([5, 4, 3, 2], 2) == 7
    assert forecast.wall_seconds([5, 4, 3, 2], 1) == 14


@pytest.mark.parametrize("seconds, words", [(40, "40 s"), (1500, "25 min"), (12600, "3.5 h"),
                                            (864000, "10 days")])
def test_duration(seconds, words):
    assert forecast.duration(seconds) == words


def test_plan_lines(data, monkeypatch):
    tables = plan.select_tables("3", f"{FULL},{FULL}-ms,depth-269")
    experiment = Experiment(MINI, data, data / "runs")
    trainings, _ = experiment.plan(tables, 1)
    plans = forecast.Forecast(experiment, Processes())
    assert plans.images == 3 and plans.look == 2
    assert {test.row: plans.windows(test) for training in trainings
            for test in training.tests.values()} == {FULL: 2, f"{FULL}-ms": 40, "depth-269": 2}
    ordered = plans.longest_first(trainings)
    assert [training.row for training in ordered] == ["depth-269", FULL]
    rates = {shapes.network_key(training.settings.model): measure.Rates(
        1e-10, 1e-10, 0.01, 0.5, 2 ** 28, 1.5, 185, 8) for training in trainings}
    monkeypatch.setattr(forecast, "measure_all", lambda jobs, at_once: rates)
    lines = plans.lines(trainings, ordered, device="cpu", workers=0, at_once=2)
    # 600 steps read 8 images in 10 ms each: 48 s; the arithmetic adds its multiply-adds.
    step, window = (shapes.step_work(shapes.network_key(trainings[0].settings.model), 185, 8),
                    shapes.window_work(shapes.network_key(trainings[0].settings.model), 185))
    windows = 3 * (2 + 40) + 8 * 3 * 2
    assert plans.cost(trainings[0], 0).seconds == pytest.approx(
        48 + 600 * step.multiply_adds * 1e-10 + windows * window * 1e-10)
    assert lines[2].startswith(f"{trainings[0].folder.name}: to do; ")
    assert lines[3] == f"    serves {FULL}, {FULL}-ms"
    assert lines[4].startswith("In all: 2 of 2 trainings to do, ")
    assert "of 2 of 2 networks, 1 thread each" in lines[5]
    assert plans.lines(trainings, [], device="cpu", workers=0, at_once=2)[-1] == (
        "In all: nothing to do.")
    shared = forecast.Forecast(experiment, Processes(0, 4))
    said = " ".join(shared.lines(trainings, ordered, device="cuda", workers=0, at_once=1))
    assert "GiB of the GPU's memory in each process." in said
    assert "crop 185 and batch 8 in place of 185 and 2" in said
    assert said.endswith("What processes tell each other is not in it.")


def test_looks_have_the_windows_of_their_images(tmp_path):
    write_bytes(tmp_path / "a.png", png_bytes(np.zeros((360, 480), np.uint8)))
    for split in ("train", "val"):
        (tmp_path / f"{split}.txt").write_text("a.png a.png\n")
    # 361x481 pixels: 3x4 windows of 185 every 124, and their mirror images.
    experiment = Experiment(PROFILES["camvid"], tmp_path, tmp_path / "runs")
    assert forecast.Forecast(experiment, Processes()).look == 24


@pytest.mark.slow
def test_dry_run_measures_and_leaves_nothing(data, tmp_path):
    run = subprocess.run(
        [sys.executable, str(ROOT / "experiments" / "run_table.py"), "--table", "3", "--rows",
         f"{FULL},{FULL}-ms", "--data", str(data), "--runs", str(tmp_path / "runs"), "--dry-run"],
        capture_output=True, text=True, check=True)
    assert "1 of 1 training to do" in run.stdout and "to do; " in run.stdout
    assert f"serves {FULL}, {FULL}-ms" in run.stdout
    assert "a test of 1 of 1 networks, 1 thread each" in run.stdout
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_measured_memory_is_that_of_a_training(data):
    """Against the peak of a process that does the same steps: a fifth is what allocators add."""
    settings = _settings(MINI, FULL, data)
    pairs = [[str(pair.image), str(pair.label), None]
             for pair in Experiment(MINI, data, data / "runs").pairs("train")]
    job = {"settings": settings.to_json(), "base_size": 184, "pairs": pairs, "device": "cpu"}
    found, = measure.measure_all({"net": job}, 1).values()
    code = ("import dataclasses, sys; from pathlib import Path; "
            "from helpers.harness import run_rows; from experiments.profiles import PROFILES; "
            "mini = PROFILES['mini']; mini = dataclasses.replace(mini, train=mini.train | "
            "{'max_iter': 2}); data = Path(sys.argv[2]); "
            "print(run_rows(mini, data, data / 'runs', sys.argv[1])[0])")
    run = subprocess.run([sys.executable, "-c", code, FULL, str(data)], cwd=ROOT,
                         env={**os.environ, "PYTHONPATH": str(ROOT / "tests")},
                         capture_output=True, text=True, check=True)
    trained = json.loads((Path(run.stdout.strip()).parent / "trained.json").read_text())
    assert found.peak_bytes(settings) / 2 ** 20 == pytest.approx(
        trained["train_peak_memory_mib"], rel=0.2)
