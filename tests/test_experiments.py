"""The harness: rows, the report, resuming, mistakes."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from experiments import run_row, run_table
from experiments.profiles import PROFILES
from experiments.report import PAPER, class_means, read_result, table_lines
from experiments.rows import BASELINE, FULL, TABLES
from pspnet_repro import PSPNet
from pspnet_repro.data import scenes
from pspnet_repro.distributed import Processes
from pspnet_repro.errors import UserError

ROOT = Path(__file__).parents[1]


def test_rows_have_the_papers_figures():
    assert {row.name for row in TABLES["1"]} == set(PAPER["1"])
    assert PAPER["1"][BASELINE]["mean_iou"] == 37.23
    assert PAPER["1"][FULL] == {"label": "ResNet50+B1236+AVE+DR", "mean_iou": 41.68,
                                "pixel_accuracy": 80.04}


def test_paper_figures_stand_in_the_paper(shared):
    text = (shared / "paper" / "pspnet_paper.txt").read_text(encoding="utf-8")
    for row in PAPER["1"].values():
        assert f"{row['label']}\t{row['mean_iou']:.2f}\t{row['pixel_accuracy']:.2f}" in text


def test_mini_net_sees_less_than_half_its_crop():
    profile = PROFILES["mini"]
    net = PSPNet(len(profile.classes), 50, (), **profile.model)
    assert 2 * net.receptive_field() <= profile.train["crop_size"]


def test_paper_profile_has_the_papers_settings(tmp_path):
    (tmp_path / "train.txt").write_text("a b\n")
    profile = PROFILES["paper"]
    settings = run_row.row_settings(run_row.find_row(FULL), profile, tmp_path, 0)
    facts = {"crop_size": 473, "batch_size": 16, "max_iter": 150_000, "base_lr": 0.01,
             "power": 0.9, "momentum": 0.9, "weight_decay": 1e-4, "aux_weight": 0.4,
             "guidance": "eighth"}
    assert {name: getattr(settings, name) for name in facts} == facts
    assert dataclasses.asdict(settings.augmentation) == {
        "scales": (0.5, 2.0), "rotation": 10.0, "blur": True, "mirror": True}
    assert settings.model["classes"] == 150 and profile.base_size == 512


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The mini profile cut to six scenes and two steps, its rows run by the harness's own code."""
    folder = tmp_path_factory.mktemp("tiny")
    data = scenes.write_scenes(folder, train=4, val=3)
    profile = PROFILES["mini"]
    train = {**profile.train, "batch_size": 2, "max_iter": 2}
    return dataclasses.replace(profile, train=train), data, folder


def test_run_row_writes_provenance_and_is_not_repeated(tiny):
    profile, data, folder = tiny
    row = run_row.find_row(BASELINE)
    out = run_row.run_row(row, profile, data, folder / "runs", 0, progress=False)
    result = json.loads((out / "result.json").read_text())
    assert result["row"] == BASELINE and result["seed"] == 0
    assert len(result["initial_sha256"]) == 64 and result["receptive_field"] == 75
    assert {"commit", "python", "torch", "numpy", "opencv", "processor"} <= set(
        result["provenance"])
    assert np.sum(result["confusion"]) == 3 * scenes.SIZE ** 2
    assert result["mean_iou"] == pytest.approx(np.mean(list(result["iou"].values())))
    assert len(list((out / "predictions").glob("*.png"))) == 3
    text = (out / "result.json").read_text() + (out / "settings.json").read_text()
    assert str(folder) not in text, "a path of this machine"
    before = (out / "result.json").stat().st_mtime_ns
    assert run_row.run_row(row, profile, data, folder / "runs", 0, progress=False) == out
    assert (out / "result.json").stat().st_mtime_ns == before


def test_run_folder_changes_with_everything_that_matters(tiny, tmp_path):
    profile, data, _ = tiny
    row = run_row.find_row(BASELINE)
    folders = {run_row.run_folder(tmp_path, row, profile, data, 0)}
    folders.add(run_row.run_folder(tmp_path, row, profile, data, 1))
    folders.add(run_row.run_folder(tmp_path, run_row.find_row(FULL), profile, data, 0))
    for changes in ({"base_size": 200}, {"train": {**profile.train, "base_lr": 0.02}},
                    {"model": {**profile.model, "width": 0.25}}):
        other = dataclasses.replace(profile, **changes)
        folders.add(run_row.run_folder(tmp_path, row, other, data, 0))
    assert len(folders) == 6


@pytest.mark.slow
def test_run_table_prints_ours_beside_the_papers(tiny, tmp_path, monkeypatch, capsys):
    profile, data, folder = tiny
    monkeypatch.setitem(PROFILES, "mini", profile)

    def run_here(tasks, profile, data, runs, jobs, max_iter, device):
        for row, seed, out in tasks:
            assert run_row.run_row(row, profile, data, runs, seed, progress=False) == out

    monkeypatch.setattr(run_table, "run_all", run_here)
    arguments = ["--rows", f"{BASELINE},{FULL}", "--data", str(data), "--runs",
                 str(folder / "table"), "--output", str(tmp_path), "--seeds", "2"]
    assert run_table.main(arguments) == 0
    said = capsys.readouterr().out
    assert "4 of 4 runs to do. Without the pyramid the network sees 75 pixels of a 185" in said
    assert "| ResNet50-Baseline |" in said and "| 37.23 | 78.01 |" in said
    files = {p.name for p in tmp_path.iterdir()}
    assert files == {"table1.md", "table1.json", "table1.png", "table1-loss.png",
                     "table1-pictures.png"}
    results = json.loads((tmp_path / "table1.json").read_text())
    assert [r["seed"] for r in results[FULL]] == [0, 1]
    assert run_table.main(arguments) == 0
    assert "0 of 4 runs to do" in capsys.readouterr().out


def _result(seed, value):
    iou = {name: value for name in scenes.CLASSES}
    return {"seed": seed, "mean_iou": value, "pixel_accuracy": value, "iou": iou}


def test_table_lines_show_mean_and_spread():
    lines = table_lines("1", TABLES["1"][:2], {BASELINE: [_result(0, 0.4), _result(1, 0.5)]},
                        PROFILES["mini"])
    # Deviation of 40 and 50 over n - 1: 7.07.
    assert lines[2] == ("| ResNet50-Baseline | 45.00 ± 7.07 | 45.00 ± 7.07 | 45.00 ± 7.07 | "
                        "45.00 ± 7.07 | 37.23 | 78.01 |")
    assert lines[3].startswith("| ResNet50+B1+MAX | - | - | - | - | 39.94")


def test_class_means_split_by_context():
    iou = {name: float(k >= 6) for k, name in enumerate(scenes.CLASSES)}
    assert class_means({"iou": iou}, scenes.CONTEXTUAL) == (0.0, 100.0)


def test_select_rows():
    assert [row.name for row in run_table.select_rows("1", "b1-ave, baseline")] == [
        "baseline", "b1-ave"]
    with pytest.raises(UserError, match="table 1 has no row 'b2'; it has baseline, b1-max"):
        run_table.select_rows("1", "b2")


@pytest.mark.slow
@pytest.mark.parametrize("words, code, said", [
    (("--table", "9"), 2, "invalid choice"),
    (("--rows", "full"), 2, "error: --rows: table 1 has no row 'full'"),
    (("--profile", "camvid"), 2, "error: --data must name the data set's folder"),
    (("--profile", "camvid", "--data", "nowhere"), 1, "error: nowhere"),
    (("--seeds", "0"), 2, "error: --seeds and --jobs must be at least 1"),
])
def test_run_table_reports_mistakes(words, code, said):
    run = subprocess.run([sys.executable, str(ROOT / "experiments" / "run_table.py"), *words],
                         capture_output=True, text=True, check=False)
    assert run.returncode == code and said in run.stderr and "Traceback" not in run.stderr


def test_run_table_under_torchrun_rejects_jobs():
    with pytest.raises(UserError, match="--jobs must be left out under torchrun"):
        run_table.run_rows(run_table.parse_arguments(["--jobs", "2"]), Processes(0, 2))


@pytest.mark.slow
def test_run_table_reports_a_failed_row(tmp_path):
    (tmp_path / "train.txt").write_text("gone.png gone_label.png\n")
    (tmp_path / "val.txt").write_text("gone.png gone_label.png\n")
    run = subprocess.run(
        [sys.executable, str(ROOT / "experiments" / "run_table.py"), "--rows", BASELINE, "--data",
         str(tmp_path), "--runs", str(tmp_path / "runs")], capture_output=True, text=True,
        check=False)
    assert run.returncode == 1 and "Traceback" not in run.stderr
    assert run.stderr.strip().splitlines()[-1] == (
        f"error: row baseline, seed 0: error: {tmp_path}/gone.png: no such image")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
def test_stopped_run_table_keeps_every_rows_state(tiny, tmp_path, number):
    _, data, _ = tiny
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "experiments" / "run_table.py"), "--rows", BASELINE, "--data",
         str(data), "--runs", str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, start_new_session=True)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if any(path.stat().st_size for path in tmp_path.rglob("losses.jsonl")):
            break
        time.sleep(0.02)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does
    else:
        process.send_signal(number)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130 and "Traceback" not in said
    assert said.strip().splitlines()[-1] == "stopped; the same command goes on from there"
    run, = (tmp_path / "mini").iterdir()
    assert (run / "checkpoint.pt").exists() and not (run / "result.json").exists()
    assert "Traceback" not in (run / "console.txt").read_text()


@pytest.mark.slow
def test_rows_end_with_a_killed_run_table(tiny, tmp_path):
    _, data, _ = tiny
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "experiments" / "run_table.py"), "--rows", BASELINE, "--data",
         str(data), "--runs", str(tmp_path)], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if any(path.stat().st_size for path in tmp_path.rglob("losses.jsonl")):
            break
        time.sleep(0.02)
    process.kill()
    process.wait()
    while time.monotonic() < deadline and not list(tmp_path.rglob("checkpoint.pt")):
        time.sleep(0.05)
    run, = (tmp_path / "mini").iterdir()
    assert (run / "checkpoint.pt").exists(), "the row went on without its parent"


def test_damaged_result_is_reported(tmp_path):
    (tmp_path / "result.json").write_text('{"mean_iou": ')
    with pytest.raises(UserError, match="result.json: damaged; remove its folder"):
        read_result(tmp_path)
