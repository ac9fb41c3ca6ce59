"""Names and folders that are hostile: one line, and the rest is done."""

import os
import signal
import subprocess
import sys
import time

import pytest
from helpers.commands import SIZES, run
from helpers.image_files import photograph, put
from helpers.networks import tiny_net
from helpers.paths import ROOT
from helpers.refusals import refused
from helpers.trainings import run_training, run_until_saved

from pspnet_repro import PSPNet
from pspnet_repro.errors import UserError
from pspnet_repro.weights import model_file, plain_file

LONG = "n" * 248 + ".png"


def test_a_name_too_long_for_results_does_not_stop_the_rest(tmp_path, capfd):
    weights = tmp_path / "w.pt"
    model_file.save_model(weights, tiny_net())
    for name in ("a.png", LONG, "z.png"):
        put(tmp_path / "in" / name, photograph(60, 80))
    code, out, said = run(capfd, "predict", tmp_path / "in", "-o", tmp_path / "out", "--weights",
                          weights, *SIZES)
    assert code == 1 and "6 pictures of 2 photographs" in out
    assert (tmp_path / "out" / "z.label.png").exists()
    assert "1 of 3 files could not be used: " in said and LONG[:50] in said.splitlines()[-1]


def test_a_kill_between_weights_and_the_checkpoints_removal_leaves_nothing(squares, tmp_path):
    weights = run_training(squares, tmp_path, {"max_iter": 1})
    (tmp_path / "checkpoint.pt").write_bytes(b"left")
    assert run_training(squares, tmp_path, {"max_iter": 1}) == weights
    assert not (tmp_path / "checkpoint.pt").exists()


def test_losses_of_a_finished_training_that_are_cut_are_refused(squares, tmp_path):
    run_training(squares, tmp_path, {"max_iter": 2})
    path = tmp_path / "losses.jsonl"
    path.write_bytes(path.read_bytes()[:150])
    refused("losses.jsonl: holds 1 step, but the finished training beside it has 2",
            run_training, squares, tmp_path, {"max_iter": 2})


def test_another_base_size_is_said(squares, tmp_path, capfd):
    """Tests alone have it, so a training resumes; one that is finished has what it has."""
    run_until_saved(squares, tmp_path, {"max_iter": 2}, facts={"base_size": 64})
    weights = run_training(squares, tmp_path, {"max_iter": 2}, facts={"base_size": 80})
    assert "checkpoint.pt was saved with base_size 64; tests, and weights.pt, have 80 from" in (
        capfd.readouterr().err)
    assert plain_file.load(weights)["base_size"] == 80
    with pytest.raises(UserError, match="weights.pt: is finished with base_size 80, got 64: give "):
        run_training(squares, tmp_path, {"max_iter": 2}, facts={"base_size": 64})


@pytest.mark.parametrize("part", ["weights", "momentum"])
def test_a_checkpoint_that_is_not_finite_is_named(squares, tmp_path, part):
    run_until_saved(squares, tmp_path)
    path = tmp_path / "checkpoint.pt"
    content = plain_file.load(path)
    tensors = (content["weights"].values() if part == "weights" else
               [state["momentum_buffer"] for state in content["solver"]["state"].values()])
    next(iter(tensors)).view(-1)[0] = float("nan")
    plain_file.save(path, content)
    refused("checkpoint.pt: does not fit this training: .* NaN or infinity: the file is damaged",
            run_training, squares, tmp_path)


def test_a_depth_that_is_none_is_refused_with_blocks_too():
    with pytest.raises(ValueError, match="depth must be one of"):
        PSPNet(4, -1, blocks=(1, 1, 1, 1))


PROGRAMS = {
    "module": ("-m", "pspnet_repro", "predict", "x.png", "-o", "o", "--weights", "none.pt"),
    "importer": ("-m", "prototxt_import", "run", "none.pt", "none.pt", "x.png", "-o", "o.npz"),
    "harness": ("experiments/run_table.py", "--dry-run", "--data", "none.pt"),
    "benchmark": ("-m", "experiments.bench.ops", "--none.pt")}


@pytest.mark.parametrize("words", PROGRAMS.values(), ids=PROGRAMS)
def test_an_interrupt_in_the_first_seconds_is_one_word(words):
    """From the first module of ours on, in whose imports the process is met at five moments."""
    for seconds in (0, 0.03, 0.1, 0.3, 0.9):
        process = subprocess.Popen(
            [sys.executable, "-v", *words], cwd=ROOT, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"})
        for line in process.stderr:
            if "import 'pspnet_repro.errors'" in line:
                break
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        # What -v tells of imports is none of the program's words.
        said = process.communicate(timeout=60)[1]
        assert "Traceback" not in said
        if process.returncode == 130:
            assert "stopped" in said.splitlines()
        else:
            assert process.returncode in (1, 2) and "none.pt" in said
