"""Training: resumed, killed, interrupted, refused; results repeat bit for bit."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers.networks import MODEL
from helpers.paths import ROOT, TESTS
from helpers.trainings import (
    assert_same_run,
    read_losses,
    run_training,
    run_until_saved,
    train_settings,
    wait_for_steps,
)

from pspnet_repro import PSPNet
from pspnet_repro.data.augment import Augmentation
from pspnet_repro.data.labels import ZERO_IS_VOID
from pspnet_repro.errors import UsageError, UserError
from pspnet_repro.training import loop
from pspnet_repro.weights import model_file, plain_file


def _train(data, output, workers=0, **changes):
    return run_training(data, output, changes, workers=workers)


def test_train_writes_what_it_says(uninterrupted):
    output = uninterrupted.parent
    assert sorted(p.name for p in output.iterdir()) == [
        ".lock", "log.txt", "losses.jsonl", "settings.json", "weights.pt"]
    losses = read_losses(output)
    assert [line["iteration"] for line in losses] == list(range(12))
    assert [line["lr"] for line in losses] == pytest.approx(
        [0.01 * (1 - k / 12) ** 0.9 for k in range(12)], rel=1e-6)
    model = model_file.load_model(uninterrupted)
    assert not model.training and model.settings["classes"] == 4
    assert 0 < model.backbone.stem[0].bn.running_mean.abs().max()


def test_zero_is_void_is_what_labels_of_plain_pairs_mean(squares, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(loop, "_train", lambda settings, pairs, *_: asked.extend(pairs))
    _train(squares, tmp_path, zero_is_void=True)
    assert asked and {pair.table for pair in asked} == {ZERO_IS_VOID}


def test_train_learns(squares, tmp_path):
    weights = _train(squares, tmp_path, max_iter=60, augmentation=Augmentation(
        scales=None, rotation=0, blur=False))
    losses = [line["loss"] for line in read_losses(weights.parent)]
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:10])


@pytest.mark.parametrize("workers", [0, 2])
def test_train_repeats_bitwise(squares, uninterrupted, tmp_path, workers):
    assert_same_run(_train(squares, tmp_path, workers), uninterrupted)


def test_train_differs_by_seed(squares, uninterrupted, tmp_path):
    other = plain_file.load(_train(squares, tmp_path, seed=1))
    assert other["initial_sha256"] != plain_file.load(uninterrupted)["initial_sha256"]


def test_finished_training_is_not_repeated(squares, uninterrupted):
    before = uninterrupted.stat().st_mtime_ns
    assert _train(squares, uninterrupted.parent) == uninterrupted
    assert uninterrupted.stat().st_mtime_ns == before


_CHILD = """
import sys
from pathlib import Path
from helpers.trainings import run_training
from pspnet_repro.errors import Interrupted
try:
    run_training(Path(sys.argv[1]), sys.argv[2], workers=1, checkpoint_seconds=0)
except Interrupted as stop:
    print(stop)
    sys.exit(130)
"""


def _start(data, output):
    return subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(data), str(output)], cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(TESTS)}, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, start_new_session=True)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM],
                         ids=lambda number: number.name)
def test_stopped_training_resumes_to_the_same_bits(squares, uninterrupted, tmp_path, number):
    process = _start(squares, tmp_path)
    wait_for_steps(process, tmp_path, 3)
    process.send_signal(number)
    said = process.communicate(timeout=120)[0]
    if number == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == 130, said
        assert "the same command resumes" in said and "Traceback" not in said
    assert not (tmp_path / "weights.pt").exists()
    assert plain_file.load(tmp_path / "checkpoint.pt")["iteration"] >= 2
    assert_same_run(_train(squares, tmp_path), uninterrupted)


def test_train_with_iter_size_resumes(squares, tmp_path):
    whole = _train(squares, tmp_path / "whole", iter_size=2, max_iter=3)
    run_until_saved(squares, tmp_path / "cut", {"iter_size": 2, "max_iter": 3}, iteration=2)
    assert_same_run(_train(squares, tmp_path / "cut", iter_size=2, max_iter=3), whole)


def test_train_rejects_other_settings(squares, uninterrupted):
    with pytest.raises(UserError, match="weights.pt: holds a training with base_lr = 0.01, not 0.02"
                                        "; it is finished: choose another --output, and sta"
                                        "rt .* --initial-weights .*weights.pt$"):
        _train(squares, uninterrupted.parent, base_lr=0.02)
    with pytest.raises(UserError, match="with model.width = 0.125, not 0.25; it .* --output$"):
        _train(squares, uninterrupted.parent, model={**MODEL, "width": 0.25})


def test_other_settings_can_start_from_a_checkpoint(squares, tmp_path):
    """As the refusal says, where there are no weights yet."""
    run_until_saved(squares, tmp_path / "old", {"max_iter": 3})
    state = tmp_path / "old" / "checkpoint.pt"
    with pytest.raises(UserError, match="checkpoint.pt: holds a training with max_iter = 3, not 2; "
                                        f".* --initial-weights {state}$"):
        _train(squares, tmp_path / "old", max_iter=2)
    weights = run_training(squares, tmp_path / "new", {"max_iter": 1, "base_lr": 0.0},
                           initial_weights=state)
    before, after = (plain_file.load(path)["weights"] for path in (state, weights))
    assert torch.equal(before["head.score.weight"], after["head.score.weight"])


def test_train_rejects_crops_that_the_net_cannot_take(squares, tmp_path):
    with pytest.raises(UserError, match=r"crop sizes must be 8 \* k \+ 1 pixels, got 60"):
        _train(squares, tmp_path, crop_size=60)
    with pytest.raises(UserError, match="depth must be one of 50, 101, 152, 269, got 18"):
        _train(squares, tmp_path, model={"classes": 4, "depth": 18})


def test_train_rejects_crops_smaller_than_the_bins(squares, tmp_path):
    with pytest.raises(UserError, match="bins must be at most the 5 pixels of a crop of 33's"):
        _train(squares, tmp_path, crop_size=33)


@pytest.mark.parametrize("base_lr, iteration, what", [
    (100.0, 5, "backbone.stem.0.conv.weight is not finite after"),
    (1e6, 2, "backbone.stage2.0.reduce.bn.running_var is not finite after"),
    (1e30, 1, "loss is nan at")])
def test_train_stops_where_it_diverges(squares, tmp_path, base_lr, iteration, what):
    """At the step itself: the checkpoint before it stays, the losses until it are no zeros."""
    with pytest.raises(UserError) as refusal:
        run_training(squares, tmp_path, {"base_lr": base_lr}, checkpoint_seconds=0)
    message = str(refusal.value)
    assert message.startswith(f"{what} iteration {iteration}: the training diverged at learning "
                              "rate ")
    assert f"Train in a new folder with a rate below {base_lr:g} (--base-lr)" in message
    assert message.count(".png") == 2
    assert not (tmp_path / "weights.pt").exists()
    assert f"failed: {message}" in (tmp_path / "log.txt").read_text()
    saved = plain_file.load(tmp_path / "checkpoint.pt")
    assert saved["iteration"] == iteration == len(read_losses(tmp_path))
    assert all(tensor.isfinite().all() for tensor in saved["weights"].values())
    assert all(1 < line["loss"] < 87.34 for line in read_losses(tmp_path))


def test_train_stops_at_weights_that_are_not_finite_after_the_last_step(squares, tmp_path):
    with pytest.raises(UserError, match="weight is not finite after iteration 0: "):
        _train(squares, tmp_path, base_lr=1e36, weight_decay=1e10, max_iter=1)
    assert not (tmp_path / "weights.pt").exists()


def test_train_takes_the_structure_of_its_initial_weights(squares, tmp_path):
    given = PSPNet(**{**MODEL, "classes": 7, "stride_in": "3x3", "bins": (1, 3), "pool": "max",
                      "dilations": (1, 1, 1, 1), "strides": (1, 2, 1, 1), "head_width": 5})
    model_file.save_model(tmp_path / "given.pt", given)
    weights = run_training(squares, tmp_path / "run", {"model": {"classes": 4}, "max_iter": 1},
                           initial_weights=tmp_path / "given.pt")
    net = model_file.load_model(weights)
    assert net.settings == {**given.settings, "classes": 4}
    with pytest.raises(UsageError, match="pool must be max, for which the weights of .*given.pt "
                                         "were made, got ave: leave it to the file, or start from "
                                         "other weights"):
        run_training(squares, tmp_path / "other",
                     {"model": {"classes": 4, "pool": "ave"}, "max_iter": 1},
                     initial_weights=tmp_path / "given.pt")
    assert not (tmp_path / "other").exists()


def test_settings_file_is_for_people(squares, tmp_path):
    settings = train_settings(squares, max_iter=9)
    (tmp_path / "settings.json").write_text(json.dumps(settings.to_json()))
    weights = _train(squares, tmp_path, max_iter=1)
    assert json.loads((tmp_path / "settings.json").read_text())["max_iter"] == 1
    assert plain_file.load(weights)["training"]["max_iter"] == 1


def test_lost_losses_are_reported(squares, uninterrupted, tmp_path):
    content = plain_file.load(uninterrupted)
    plain_file.save(tmp_path / "checkpoint.pt", {"weights": content["weights"]})
    with pytest.raises(UserError, match="checkpoint.pt: not a file of a training"):
        _train(squares, tmp_path)
    plain_file.save(tmp_path / "checkpoint.pt", {
        "weights": content["weights"], "training": train_settings(squares).to_json()})
    with pytest.raises(UserError, match="checkpoint.pt: does not fit this training: 'solver'"):
        _train(squares, tmp_path)
    run_until_saved(squares, tmp_path / "cut")
    losses = tmp_path / "cut" / "losses.jsonl"
    whole = losses.read_text()
    for damage, words in (("[]\n", "line 1: not the line of iteration 0; remove the folder"),
                          ('{"iteration": 1, "loss": 1}\n', "line 1: not the line of iteration 0"),
                          (whole[:-1], "holds 0 steps, but the checkpoint")):
        losses.write_text(damage)
        with pytest.raises(UserError, match=f"losses.jsonl.*{words}"):
            _train(squares, tmp_path / "cut")
    losses.unlink()
    with pytest.raises(UserError, match="losses.jsonl: holds 0 steps, but the checkpoint"):
        _train(squares, tmp_path / "cut")


def test_train_refuses_a_folder_in_use(squares, tmp_path):
    import fcntl
    with open(tmp_path / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another process is at work in this folder"):
            _train(squares, tmp_path)


def test_damaged_checkpoint_is_reported(squares, tmp_path):
    (tmp_path / "checkpoint.pt").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(UserError, match="checkpoint.pt: this is a zip archive that is damaged or"):
        _train(squares, tmp_path)


def test_failed_start_does_not_block_the_corrected_one(squares, tmp_path):
    for wrong, words in (({"base_lr": float("nan")}, "base_lr must be finite"),
                         ({"seed": -1}, "seed must be 0 to"),
                         ({"aux_weight": float("nan")}, "aux_weight must be finite"),
                         ({"model": {**MODEL, "classes": 300}}, "classes must be 1 to 254"),
                         ({"model": {**MODEL, "width": 1e9}}, "width must be at most 8"),
                         ({"model": {**MODEL, "stem_width": 10 ** 9}}, "stem_width must be 1")):
        with pytest.raises(UsageError, match=words) as caught:
            _train(squares, tmp_path, **wrong)
        assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
    assert _train(squares, tmp_path, max_iter=1).exists()


def test_finished_training_is_not_taken_for_another(squares, uninterrupted, tmp_path):
    (tmp_path / "weights.pt").write_bytes(uninterrupted.read_bytes()[:5000])
    with pytest.raises(UserError, match="weights.pt: this is a PyTorch file that is damaged or"):
        _train(squares, tmp_path)


def test_load_model_rejects_nan(tmp_path, uninterrupted):
    content = plain_file.load(uninterrupted)
    content["weights"]["head.score.bias"][1] = float("nan")
    plain_file.save(tmp_path / "nan.pt", content)
    with pytest.raises(UserError, match="nan.pt: head.score.bias is not finite"):
        model_file.load_model(tmp_path / "nan.pt")


def test_load_model_rejects_other_files(tmp_path, uninterrupted):
    with pytest.raises(UserError, match="none.pt: no such file"):
        model_file.load_model(tmp_path / "none.pt")
    plain_file.save(tmp_path / "other.pt", {"weights": {}})
    with pytest.raises(UserError, match="other.pt: not a PSPNet file: lacks settings"):
        model_file.load_model(tmp_path / "other.pt")
    content = plain_file.load(uninterrupted)
    content["settings"]["classes"] = 5
    plain_file.save(tmp_path / "wrong.pt", content)
    with pytest.raises(UserError, match="wrong.pt: weights and settings do not fit") as caught:
        model_file.load_model(tmp_path / "wrong.pt")
    assert "\n" not in str(caught.value)
