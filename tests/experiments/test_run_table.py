"""The harness: rows, the report, resuming, mistakes."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.harness import plan_rows, run_rows
from helpers.paths import ROOT

from experiments import run_row, run_table
from experiments.cost.forecast import Forecast
from experiments.experiment import Experiment
from experiments.plan import Training
from experiments.profiles import PROFILES
from experiments.rows import BASELINE, FULL
from pspnet_repro import PSPNet
from pspnet_repro.data import scenes
from pspnet_repro.distributed import Processes
from pspnet_repro.errors import UsageError
from pspnet_repro.files import file_sha256
from pspnet_repro.outputs import Outputs
from pspnet_repro.weights import model_file


def test_mini_net_sees_less_than_half_its_crop():
    profile = PROFILES["mini"]
    net = PSPNet(len(profile.classes), bins=(), **profile.model, **profile.depths[50])
    assert 2 * net.receptive_field() <= profile.train["crop_size"]


def test_run_row_writes_provenance(tiny, trained):
    _, _, folder = tiny
    for name, out in zip((FULL, f"{FULL}-ms", "test-whole"), trained):
        result = json.loads((out / "result.json").read_text())
        assert result["row"] == name and result["seed"] == 0
        assert len(result["initial_sha256"]) == 64 and result["receptive_field"] == 75
        for kind in ("provenance", "train_provenance"):
            assert {"commit", "python", "torch", "numpy", "opencv", "processor"} <= set(
                result[kind])
        assert np.sum(result["confusion"]) == 3 * scenes.SIZE ** 2
        assert result["mean_iou"] == pytest.approx(np.mean(list(result["iou"].values())))
        assert len(list((out / "predictions").glob("*.png"))) == 3
        text = (out / "result.json").read_text() + (out.parent / "settings.json").read_text()
        assert str(folder) not in text, "a path of this machine"
    single, multi, whole = (json.loads((out / "result.json").read_text())["test"]
                            for out in trained)
    assert single["fused"] and single["scales"] == [1.0] and not single["whole_image"]
    assert len(multi["scales"]) == 6 and not multi["whole_image"]
    assert whole["scales"] == [1.0] and whole["whole_image"]
    assert len({out.parent for out in trained}) == 1 and len(set(trained)) == 3


def test_curve_has_a_point_at_the_last_step(trained):
    lines = [json.loads(line) for line in
             (trained[0].parent / "curve.jsonl").read_text().splitlines()]
    assert [line["iteration"] for line in lines] == [1, 2]
    # Three images, all of the validation list: the last point is the test itself.
    result = json.loads((trained[0] / "result.json").read_text())
    assert lines[1]["mean_iou"] == pytest.approx(result["mean_iou"], rel=1e-12)
    assert lines[1]["pixel_accuracy"] == pytest.approx(result["pixel_accuracy"], rel=1e-12)


def test_nothing_is_done_twice(tiny, trained):
    profile, data, folder = tiny
    before = {path: path.stat().st_mtime_ns for path in trained[0].parent.rglob("*")}
    assert run_rows(profile, data, folder / "runs", FULL) == trained[:1]
    assert {path: path.stat().st_mtime_ns for path in trained[0].parent.rglob("*")} == before


def test_rows_are_tested_by_another_protocol(tiny, trained):
    """Of the same training, in a folder of its own."""
    profile, data, folder = tiny
    out, = run_rows(dataclasses.replace(profile, preset="semseg"), data, folder / "runs", FULL)
    assert out.parent == trained[0].parent and out not in trained
    result, ours = (json.loads((path / "result.json").read_text()) for path in (out, trained[0]))
    assert result["protocol"] == "semseg" and result["test"]["resize"] == "opencv"
    assert "protocol" not in ours and "resize" not in ours["test"]


def test_an_interrupted_test_goes_on(tiny, trained, tmp_path, monkeypatch):
    profile, data, _ = tiny
    shutil.copytree(trained[0].parent, tmp_path / trained[0].parent.name)
    out = tmp_path / trained[0].parent.name / trained[0].name
    wanted = (out / "result.json").read_text()
    (out / "result.json").unlink()
    counts = (out / "counts.jsonl").read_text().splitlines(keepends=True)
    (out / "counts.jsonl").write_text("".join(counts[:2]) + counts[2][:20])
    written, write = [], Outputs.write
    monkeypatch.setattr(Outputs, "write", lambda self, contents: (
        written.extend(path.name for path in contents), write(self, contents)))
    run_rows(profile, data, tmp_path, FULL)
    assert [name[:6] for name in written] == ["00001-", "00002-", "result"]
    result = json.loads((out / "result.json").read_text())
    assert result["confusion"] == json.loads(wanted)["confusion"]


def test_a_training_survives_its_way_to_the_rows_process(tiny, tmp_path):
    profile, data, _ = tiny
    net = PSPNet(len(profile.classes), bins=(), **profile.model, **profile.depths[50])
    model_file.save_model(tmp_path / "backbone.pt", net.backbone)
    for backbones in ({}, {50: tmp_path / "backbone.pt"}):
        experiment = Experiment(profile, data, tmp_path, backbones)
        (training,), _ = plan_rows(experiment, FULL, f"{FULL}-ms", "test-whole")
        line = experiment.job(training, "cpu", 0)
        arrived = Training.from_json(json.loads(line)["training"])
        assert arrived.folder == training.folder and arrived.tests == training.tests
        assert arrived.settings.to_json() == training.settings.to_json()
        assert arrived.initial_weights == (backbones and str(backbones[50]) or None)
        assert line == experiment.job(arrived, "cpu", 0)


def test_initial_weights_by_file_are_part_of_the_run(tiny, tmp_path):
    profile, data, _ = tiny
    net = PSPNet(len(profile.classes), bins=(), **profile.model, **profile.depths[50])
    model_file.save_model(tmp_path / "backbone.safetensors", net.backbone)
    backbones = {50: tmp_path / "backbone.safetensors"}

    def folder(row, backbones=None):
        (training,), _ = plan_rows(Experiment(profile, data, tmp_path, backbones), row)
        return training.folder

    out, = run_rows(profile, data, tmp_path, BASELINE, backbones=backbones)
    result = json.loads((out / "result.json").read_text())
    assert result["settings"]["initial_weights"] == file_sha256(backbones[50])
    assert out.parent == folder(BASELINE, backbones)
    assert out.parent != folder(BASELINE)
    assert folder("depth-101", backbones) == folder("depth-101")


def test_run_table_prints_what_the_report_says(tiny, trained, monkeypatch, capsys, tmp_path):
    profile, data, _ = tiny
    monkeypatch.setitem(PROFILES, "mini", profile)
    done, asked = [], []

    def run_here(experiment, trainings, jobs, at_once):
        for training, job in zip(trainings, jobs):
            done.append(training.name)
            run_row.run_job(job, progress=False)

    def report(*arguments):
        asked.append(arguments)
        return ["the report's lines"]

    monkeypatch.setattr(run_table, "run_all", run_here)
    monkeypatch.setattr(run_table, "write_report", report)
    (tmp_path / "mini").mkdir()
    (tmp_path / "mini" / trained[0].parent.name).symlink_to(trained[0].parent)
    arguments = ["--table", "all", "--rows", f"{BASELINE},{FULL},{FULL}-ms", "--data", str(data),
                 "--runs", str(tmp_path), "--seeds", "1"]
    assert run_table.main(arguments) == 0
    said = capsys.readouterr().out
    assert "Table 1, 2, 3, 4, profile mini: 1 of 2 trainings to do. Without the pyramid a score "\
        "sees 75 pixels a side; crops have 185." in said and "the report's lines" in said
    assert "No --backbone for depth 50: random initial weights.\n" in said
    assert done == ["row baseline, seed 0"]
    (_, tables, folders, output), = asked
    assert output == tmp_path / "mini"
    assert {table: [row.name for row in rows] for table, rows in tables.items()} == {
        "1": [BASELINE, FULL], "2": [BASELINE], "3": [FULL, f"{FULL}-ms"],
        "4": [BASELINE, FULL], "5": []}
    assert [len(folders[name]) for name in (BASELINE, FULL, f"{FULL}-ms")] == [1, 1, 1]
    assert all((folder / "result.json").exists() for found in folders.values()
               for folder in found)
    assert run_table.main(arguments) == 0
    assert "0 of 2 trainings to do" in capsys.readouterr().out


def test_paper_is_estimated_before_it_starts(tiny, trained, monkeypatch, tmp_path):
    """Time and memory are told where there is something to do, and before that."""
    profile, data, _ = tiny
    assert PROFILES["paper"].estimate
    monkeypatch.setitem(PROFILES, "mini", dataclasses.replace(profile, estimate=True))
    events = []
    monkeypatch.setattr(Forecast, "lines", lambda *_, **__: [events.append("estimate") or ""])
    monkeypatch.setattr(run_table, "run_all", lambda *_: events.append("run"))
    monkeypatch.setattr(run_table, "write_report", lambda *_: [])
    (tmp_path / "mini").mkdir()
    (tmp_path / "mini" / trained[0].parent.name).symlink_to(trained[0].parent)
    for row, wanted in ((BASELINE, ["estimate", "run"]), (FULL, [])):
        events.clear()
        assert run_table.main(["--rows", row, "--data", str(data), "--runs", str(tmp_path)]) == 0
        assert events == wanted


def test_run_table_names_the_folder_of_a_damaged_result(tiny, trained, monkeypatch, capsys,
                                                        tmp_path):
    profile, data, _ = tiny
    monkeypatch.setitem(PROFILES, "mini", profile)
    shutil.copytree(trained[0].parent, tmp_path / "mini" / trained[0].parent.name)
    damaged, = (tmp_path / "mini").glob(f"*/{trained[0].name}/result.json")
    damaged.write_text(damaged.read_text()[:100])
    assert run_table.main(["--rows", FULL, "--data", str(data), "--runs", str(tmp_path)]) == 1
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and said[0].startswith(f"error: {damaged}: ")


@pytest.mark.slow
@pytest.mark.parametrize("words, code, said", [
    (("--table", "9"), 2, "invalid choice"),
    (("--rows", "full"), 2, "error: --rows: table 1 has no row 'full'; rows are baseline, b1-max"),
    (("--backbone", "18=w.pt"), 2,
     "must be DEPTH=FILE with DEPTH of 50, 101, 152, 269, or vgg16=FILE, got"),
    (("--backbone", "50=nowhere.pt"), 1,
     "error: --backbone: nowhere.pt: no such file; `pspnet convert --backbone` makes one"),
    (("--profile", "camvid"), 2, "error: --data must name the data set's folder"),
    (("--profile", "camvid", "--data", "nowhere"), 1, "error: nowhere"),
    (("--backbone", "50=a.pt", "--backbone", "50=b.pt"), 2, "--backbone: each depth once, got 50"),
    (("--table", "fidelity", "--protocol", "semseg"), 2,
     "error: --protocol is for the paper's tables: "),
    (("--output", __file__), 2, "--output must be a folder, got the file"),
    (("--runs", ""), 2, "argument --runs: must not be empty"),
    (("--seeds", "0"), 2, "argument --seeds: must be 1 to 1000, got 0"),
])
def test_run_table_reports_mistakes(words, code, said):
    run = subprocess.run([sys.executable, str(ROOT / "experiments" / "run_table.py"), *words],
                         capture_output=True, text=True, check=False)
    assert run.returncode == code and said in run.stderr and "Traceback" not in run.stderr


def test_run_table_under_torchrun_rejects_jobs():
    with pytest.raises(UsageError, match="--jobs must be left out under torchrun"):
        run_table.run_tables(run_table.parser().parse_args(["--jobs", "2"]), Processes(0, 2))


@pytest.mark.slow
def test_run_table_reports_a_failed_row(tiny, tmp_path):
    _, data, _ = tiny
    shutil.copytree(data, tmp_path, dirs_exist_ok=True)
    (tmp_path / "train.txt").write_text("gone.png gone_label.png\n")
    run = subprocess.run(
        [sys.executable, str(ROOT / "experiments" / "run_table.py"), "--rows", BASELINE, "--data",
         str(tmp_path), "--runs", str(tmp_path / "runs")], capture_output=True, text=True,
        check=False)
    assert run.returncode == 1 and "Traceback" not in run.stderr
    assert run.stderr.strip().splitlines()[-1].startswith(
        f"error: row baseline, seed 0: {tmp_path}/gone_label.png: no such label; paths in the ")
    # What the row wrote is kept; only what this call's process wrote is its failure.
    console, = (tmp_path / "runs").rglob(run_table.CONSOLE)
    training = SimpleNamespace(folder=console.parent, name="row x")
    end = console.stat().st_size
    assert str(run_table._failure(training, end, 1)) == "row x: exit 1"
    assert "gone_label.png: no such label" in str(run_table._failure(training, 0, 1))
    assert isinstance(run_table._failure(training, end, 2), UsageError)
    assert str(run_table._failure(training, 0, -9)).startswith("row x: killed by SIGKILL; the same")


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
    assert said.strip().splitlines()[-1] == "stopped; the same command resumes"
    run, = (tmp_path / "mini").iterdir()
    assert (run / "checkpoint.pt").exists() and not list(run.rglob("result.json"))
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
