"""A row whose files are damaged, or whose process is killed at the wrong moment."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from helpers.full_disk import NoMount, small_disk
from helpers.harness import plan_rows, run_rows
from helpers.paths import ROOT

from experiments import run_row, run_table
from experiments.experiment import Experiment
from experiments.rows import BASELINE, FULL
from pspnet_repro.data import scenes
from pspnet_repro.data.images import png_bytes
from pspnet_repro.distributed import Processes
from pspnet_repro.errors import UserError
from pspnet_repro.files import write_bytes
from pspnet_repro.weights import model_file


def test_facts_of_a_training_come_before_its_weights(tiny, tmp_path, monkeypatch):
    profile, data, _ = tiny
    saved = model_file.save_model

    def stop(path, model, **about):
        if path.name == "weights.pt":
            raise RuntimeError("power cut")
        saved(path, model, **about)

    monkeypatch.setattr(model_file, "save_model", stop)
    with pytest.raises(RuntimeError, match="power cut"):
        run_rows(profile, data, tmp_path, FULL)
    facts, = tmp_path.rglob("trained.json")
    assert not (facts.parent / "weights.pt").exists()
    monkeypatch.undo()
    facts.write_text("{}")  # of a sitting that came to nothing
    out, = run_rows(profile, data, tmp_path, FULL)
    result = json.loads((out / "result.json").read_text())
    assert result["train_processes"] == 1 and result["train_peak_memory_mib"] > 0


def test_a_row_done_by_another_process_is_left(tiny, trained, monkeypatch, capsys):
    profile, data, folder = tiny
    experiment = Experiment(profile, data, folder / "runs")
    trainings, _ = plan_rows(experiment, FULL)
    monkeypatch.setattr(run_table, "_start", lambda *_: pytest.fail("nothing is left to do"))
    run_table.run_all(experiment, trainings, ["{}"], 1)
    assert "row b1236-ave-dr, seed 0: done by another process" in capsys.readouterr().out


def test_a_row_can_test_another_network_than_it_trained(tiny, trained, tmp_path):
    profile, data, _ = tiny
    shutil.copytree(trained[0].parent, tmp_path / trained[0].parent.name)
    same, other = run_rows(profile, data, tmp_path, "authors", "test-bottleneck-stride")
    same, other = (json.loads((out / "result.json").read_text()) for out in (same, other))
    assert other["test"].pop("network") == {"stride_in": "1x1"}
    assert other["test"] == same["test"] and other["settings"] == same["settings"]
    assert other["confusion"] != same["confusion"]


@pytest.mark.parametrize("name, content", [
    ("trained.json", "xx"), ("trained.json", "[]"), ("trained.json", '{"mean_iou": 0.99}'),
    ("trained.json", None)])
def test_damaged_facts_of_a_training_are_named_before_its_test(
        tiny, trained, tmp_path, name, content):
    profile, data, _ = tiny
    out = tmp_path / trained[0].parent.name
    shutil.copytree(trained[0].parent, out, ignore=shutil.ignore_patterns("test-*"))
    (out / name).unlink()
    if content is not None:
        (out / name).write_text(content)
    with pytest.raises(UserError, match="trained.json or weights.pt: missing or damaged; remove"):
        run_rows(profile, data, tmp_path, FULL)
    assert not list(out.rglob("counts.jsonl"))


def _without_labels(data, copy):
    """The folder `copy`, with the data but for the labels of the test images."""
    shutil.copytree(data, copy, ignore=shutil.ignore_patterns("runs"))
    for name in (data / "val.txt").read_text().split()[1::2]:
        write_bytes(copy / name, png_bytes(np.full((scenes.SIZE, scenes.SIZE), 255, np.uint8)))
    return copy


def test_a_test_without_labels_has_no_result(tiny, trained, tmp_path):
    profile, data, _ = tiny
    _without_labels(data, tmp_path / "data")
    shutil.copytree(trained[0].parent, tmp_path / "runs" / trained[0].parent.name,
                    ignore=shutil.ignore_patterns("test-*"))
    with pytest.raises(UserError, match="no pixel of the 3 test images is labelled"):
        run_rows(profile, tmp_path / "data", tmp_path / "runs", FULL)


def test_a_look_without_labels_has_no_accuracy(tiny, trained, tmp_path):
    profile, data, _ = tiny
    experiment = Experiment(profile, _without_labels(data, tmp_path / "data"), tmp_path)
    (training,), _ = plan_rows(experiment, FULL)
    _, look = run_row._watch(experiment, training, Processes())
    net = model_file.load_model(trained[0].parent / "weights.pt")
    assert json.dumps(look(net)) == '{"mean_iou": 0.0, "pixel_accuracy": null}'


@pytest.mark.slow
def test_a_full_disk_is_said_to_be_full(tiny, tmp_path):
    """What the row's process says of it is lost with console.txt."""
    _, data, _ = tiny
    try:
        with small_disk(tmp_path / "disk", 4):
            run = subprocess.run(
                [sys.executable, str(ROOT / "experiments" / "run_table.py"), "--rows", BASELINE,
                 "--data", str(data), "--runs", str(tmp_path / "disk" / "runs")],
                capture_output=True, text=True, check=False)
    except NoMount as error:
        pytest.skip(f"no disk can be mounted here: {error}")
    last = run.stderr.strip().splitlines()[-1]
    assert run.returncode == 1 and "Traceback" not in run.stderr
    assert last.startswith("error: row baseline, seed 0: ") and "No space left on device" in last
    assert last.endswith("the same command resumes")
