"""Training: resumed, killed, interrupted, refused; results repeat bit for bit."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from pspnet_repro import PSPNet
from pspnet_repro.data.augment import Augmentation
from pspnet_repro.data.pairs import list_digest, read_list
from pspnet_repro.errors import UsageError, UserError
from pspnet_repro.files import write_atomically
from pspnet_repro.training.loop import train
from pspnet_repro.training.settings import TrainSettings
from pspnet_repro.weights import model_file, plain_file

ROOT = Path(__file__).parents[1]
MODEL = {"classes": 4, "width": 0.125, "stem": "classic", "stem_width": 8,
         "blocks": (1, 1, 1, 1)}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Eight small images whose labels follow their colours, and train.txt and val.txt."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    lines = []
    for k in range(8):
        label = np.kron(rng.integers(0, 4, (3, 3)), np.ones((24, 24))).astype(np.uint8)
        image = np.stack([60 * label, 255 - 60 * label, 90 + 20 * label], 2)
        cv2.imwrite(str(folder / f"{k}.png"), image)
        cv2.imwrite(str(folder / f"{k}_label.png"), label)
        lines.append(f"{k}.png {k}_label.png\n")
    (folder / "train.txt").write_text("".join(lines))
    (folder / "val.txt").write_text("".join(lines[:2]))
    return folder


def _settings(data, **changes):
    return TrainSettings(**{"model": MODEL, "data": "test",
                            "list_sha256": list_digest(data / "train.txt"), "crop_size": 57,
                            "batch_size": 2, "max_iter": 12, "threads": 1} | changes)


def _train(data, output, workers=0, **changes):
    return train(_settings(data, **changes), read_list(data / "train.txt"), output,
                 workers=workers, progress=False)


def _losses(output):
    return [json.loads(line) for line in (output / "losses.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def uninterrupted(data, tmp_path_factory):
    output = tmp_path_factory.mktemp("whole")
    return _train(data, output)


def _assert_same_run(weights, other):
    a, b = plain_file.load(weights), plain_file.load(other)
    assert a["settings"] == b["settings"] and a["initial_sha256"] == b["initial_sha256"]
    assert a["weights"].keys() == b["weights"].keys()
    for name, tensor in a["weights"].items():
        assert torch.equal(tensor, b["weights"][name]), name
    assert _losses(weights.parent) == _losses(other.parent)


def test_train_writes_what_it_says(uninterrupted):
    output = uninterrupted.parent
    assert sorted(p.name for p in output.iterdir()) == [
        ".lock", "log.txt", "losses.jsonl", "settings.json", "weights.pt"]
    losses = _losses(output)
    assert [line["iteration"] for line in losses] == list(range(12))
    assert [line["lr"] for line in losses] == pytest.approx(
        [0.01 * (1 - k / 12) ** 0.9 for k in range(12)], rel=1e-6)
    model = model_file.load_model(uninterrupted)
    assert not model.training and model.settings["classes"] == 4
    assert 0 < model.backbone.stem[0].bn.running_mean.abs().max()


def test_train_learns(data, tmp_path):
    weights = _train(data, tmp_path, max_iter=60, augmentation=Augmentation(
        scales=None, rotation=0, blur=False))
    losses = [line["loss"] for line in _losses(weights.parent)]
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:10])


@pytest.mark.parametrize("workers", [0, 2])
def test_train_repeats_bitwise(data, uninterrupted, tmp_path, workers):
    _assert_same_run(_train(data, tmp_path, workers), uninterrupted)


def test_train_differs_by_seed(data, uninterrupted, tmp_path):
    other = plain_file.load(_train(data, tmp_path, seed=1))
    assert other["initial_sha256"] != plain_file.load(uninterrupted)["initial_sha256"]


def test_finished_training_is_not_repeated(data, uninterrupted):
    before = uninterrupted.stat().st_mtime_ns
    assert _train(data, uninterrupted.parent) == uninterrupted
    assert uninterrupted.stat().st_mtime_ns == before


_CHILD = """
import sys
sys.path[:0] = [sys.argv[3], sys.argv[4]]
from pathlib import Path
from test_train import _settings, read_list, train
from pspnet_repro.errors import Interrupted
data = Path(sys.argv[1])
try:
    train(_settings(data), read_list(data / "train.txt"), sys.argv[2], workers=1,
          checkpoint_seconds=0, progress=False)
except Interrupted as stop:
    print(stop)
    sys.exit(130)
"""


def _start(data, output):
    return subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(data), str(output), str(ROOT), str(ROOT / "tests")],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)


def _wait_for_steps(process, output, steps):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if (output / "losses.jsonl").exists() and len(_losses(output)) >= steps:
            return
        time.sleep(0.002)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM],
                         ids=lambda number: number.name)
def test_stopped_training_resumes_to_the_same_bits(data, uninterrupted, tmp_path, number):
    process = _start(data, tmp_path)
    _wait_for_steps(process, tmp_path, 3)
    process.send_signal(number)
    said = process.communicate(timeout=120)[0]
    if number == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == 130, said
        assert "the same command resumes" in said and "Traceback" not in said
    assert not (tmp_path / "weights.pt").exists()
    assert plain_file.load(tmp_path / "checkpoint.pt")["iteration"] >= 2
    _assert_same_run(_train(data, tmp_path), uninterrupted)


def test_train_with_iter_size_resumes(data, tmp_path, monkeypatch):
    whole = _train(data, tmp_path / "whole", iter_size=2, max_iter=3)
    saved = model_file.save_model

    def stop_after_saving(path, model, **about):
        saved(path, model, **about)
        if about.get("iteration") == 2:
            raise RuntimeError("power cut")

    monkeypatch.setattr(model_file, "save_model", stop_after_saving)
    with pytest.raises(RuntimeError, match="power cut"):
        train(_settings(data, iter_size=2, max_iter=3), read_list(data / "train.txt"),
              tmp_path / "cut", checkpoint_seconds=0, progress=False)
    monkeypatch.undo()
    _assert_same_run(_train(data, tmp_path / "cut", iter_size=2, max_iter=3), whole)


def test_train_rejects_other_settings(data, uninterrupted):
    with pytest.raises(UserError, match="weights.pt: holds a training with base_lr = 0.01, not 0.02"
                                        "; it is finished: choose another --output, and sta"
                                        "rt .* --initial-weights .*weights.pt$"):
        _train(data, uninterrupted.parent, base_lr=0.02)
    with pytest.raises(UserError, match="with model.width = 0.125, not 0.25; it .* --output$"):
        _train(data, uninterrupted.parent, model={**MODEL, "width": 0.25})


def test_other_settings_can_start_from_a_checkpoint(data, tmp_path, monkeypatch):
    """As the refusal says, where there are no weights yet."""
    saved = model_file.save_model

    def stop_after_saving(path, model, **about):
        saved(path, model, **about)
        raise RuntimeError("power cut")

    monkeypatch.setattr(model_file, "save_model", stop_after_saving)
    with pytest.raises(RuntimeError, match="power cut"):
        train(_settings(data, max_iter=3), read_list(data / "train.txt"), tmp_path / "old",
              checkpoint_seconds=0, progress=False)
    monkeypatch.undo()
    state = tmp_path / "old" / "checkpoint.pt"
    with pytest.raises(UserError, match="checkpoint.pt: holds a training with max_iter = 3, not 2; "
                                        f".* --initial-weights {state}$"):
        _train(data, tmp_path / "old", max_iter=2)
    weights = train(_settings(data, max_iter=1, base_lr=0.0), read_list(data / "train.txt"),
                    tmp_path / "new", progress=False, initial_weights=state)
    before, after = (plain_file.load(path)["weights"] for path in (state, weights))
    assert torch.equal(before["head.score.weight"], after["head.score.weight"])


def test_train_rejects_crops_that_the_net_cannot_take(data, tmp_path):
    with pytest.raises(UserError, match=r"crop sizes must be 8 \* k \+ 1 pixels, got 60"):
        _train(data, tmp_path, crop_size=60)
    with pytest.raises(UserError, match="depth must be one of 50, 101, 152, 269, got 18"):
        _train(data, tmp_path, model={"classes": 4, "depth": 18})


def test_train_rejects_crops_smaller_than_the_bins(data, tmp_path):
    with pytest.raises(UserError, match="bins must be at most the 5 pixels of a crop of 33's"):
        _train(data, tmp_path, crop_size=33)


@pytest.mark.parametrize("base_lr, iteration, what", [
    (100.0, 5, "backbone.stem.0.conv.weight is not finite after"),
    (1e6, 2, "backbone.stage2.0.reduce.bn.running_var is not finite after"),
    (1e30, 1, "loss is nan at")])
def test_train_stops_where_it_diverges(data, tmp_path, base_lr, iteration, what):
    """At the step itself: the checkpoint before it stays, the losses until it are no zeros."""
    with pytest.raises(UserError) as refusal:
        train(_settings(data, base_lr=base_lr), read_list(data / "train.txt"), tmp_path,
              checkpoint_seconds=0, progress=False)
    message = str(refusal.value)
    assert message.startswith(f"{what} iteration {iteration}: the training diverged at learning "
                              "rate ")
    assert f"Train in a new folder with a rate below {base_lr:g} (--base-lr)" in message
    assert message.count(".png") == 2
    assert not (tmp_path / "weights.pt").exists()
    assert f"failed: {message}" in (tmp_path / "log.txt").read_text()
    saved = plain_file.load(tmp_path / "checkpoint.pt")
    assert saved["iteration"] == iteration == len(_losses(tmp_path))
    assert all(tensor.isfinite().all() for tensor in saved["weights"].values())
    assert all(1 < line["loss"] < 87.34 for line in _losses(tmp_path))


def test_train_stops_at_weights_that_are_not_finite_after_the_last_step(data, tmp_path):
    with pytest.raises(UserError, match="weight is not finite after iteration 0: "):
        _train(data, tmp_path, base_lr=1e36, weight_decay=1e10, max_iter=1)
    assert not (tmp_path / "weights.pt").exists()


def test_train_takes_the_structure_of_its_initial_weights(data, tmp_path):
    given = PSPNet(**{**MODEL, "classes": 7, "stride_in": "3x3", "bins": (1, 3), "pool": "max",
                      "dilations": (1, 1, 1, 1), "strides": (1, 2, 1, 1), "head_width": 5})
    model_file.save_model(tmp_path / "given.pt", given)
    weights = train(_settings(data, model={"classes": 4}, max_iter=1),
                    read_list(data / "train.txt"), tmp_path / "run", progress=False,
                    initial_weights=tmp_path / "given.pt")
    net = model_file.load_model(weights)
    assert net.settings == {**given.settings, "classes": 4}
    with pytest.raises(UsageError, match="pool must be max, for which the weights of .*given.pt "
                                         "were made, got ave: leave it to the file, or start from "
                                         "other weights"):
        train(_settings(data, model={"classes": 4, "pool": "ave"}, max_iter=1),
              read_list(data / "train.txt"), tmp_path / "other", progress=False,
              initial_weights=tmp_path / "given.pt")
    assert not (tmp_path / "other").exists()


def test_settings_file_is_for_people(data, tmp_path):
    (tmp_path / "settings.json").write_text(json.dumps(_settings(data, max_iter=9).to_json()))
    weights = _train(data, tmp_path, max_iter=1)
    assert json.loads((tmp_path / "settings.json").read_text())["max_iter"] == 1
    assert plain_file.load(weights)["training"]["max_iter"] == 1


def test_lost_losses_are_reported(data, uninterrupted, tmp_path, monkeypatch):
    content = plain_file.load(uninterrupted)
    plain_file.save(tmp_path / "checkpoint.pt", {"weights": content["weights"]})
    with pytest.raises(UserError, match="checkpoint.pt: not a file of a training"):
        _train(data, tmp_path)
    plain_file.save(tmp_path / "checkpoint.pt", {
        "weights": content["weights"], "training": _settings(data).to_json()})
    with pytest.raises(UserError, match="checkpoint.pt: does not fit this training: 'solver'"):
        _train(data, tmp_path)
    saved = model_file.save_model

    def stop_after_saving(path, model, **about):
        saved(path, model, **about)
        raise RuntimeError("power cut")

    monkeypatch.setattr(model_file, "save_model", stop_after_saving)
    with pytest.raises(RuntimeError, match="power cut"):
        train(_settings(data), read_list(data / "train.txt"), tmp_path / "cut",
              checkpoint_seconds=0, progress=False)
    losses = tmp_path / "cut" / "losses.jsonl"
    whole = losses.read_text()
    for damage, words in (("[]\n", "line 1: not the line of iteration 0; remove the folder"),
                          ('{"iteration": 1, "loss": 1}\n', "line 1: not the line of iteration 0"),
                          (whole[:-1], "holds 0 steps, but the checkpoint")):
        losses.write_text(damage)
        with pytest.raises(UserError, match=f"losses.jsonl.*{words}"):
            _train(data, tmp_path / "cut")
    losses.unlink()
    with pytest.raises(UserError, match="losses.jsonl: holds 0 steps, but the checkpoint"):
        _train(data, tmp_path / "cut")


def test_train_refuses_a_folder_in_use(data, tmp_path):
    import fcntl
    with open(tmp_path / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another process is at work in this folder"):
            _train(data, tmp_path)


def test_damaged_checkpoint_is_reported(data, tmp_path):
    (tmp_path / "checkpoint.pt").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(UserError, match="checkpoint.pt: this is a zip archive that is damaged or"):
        _train(data, tmp_path)


def test_checkpoint_keeps_the_old_file_when_writing_fails(tmp_path):
    path = tmp_path / "state.pt"
    plain_file.save(path, {"a": 1})

    def fail(file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match="state.pt: cannot be written: .*No space left"):
        write_atomically(path, fail)
    assert plain_file.load(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["state.pt"]


class _Evil:
    def __reduce__(self):
        return os.system, ("true",)


def test_checkpoint_does_not_run_code(tmp_path):
    torch.save({"weights": _Evil()}, tmp_path / "evil.pt")
    with pytest.raises(UserError,
                       match="evil.pt: this is a PyTorch file with objects of posix.sys"):
        plain_file.load(tmp_path / "evil.pt")


def test_failed_start_does_not_block_the_corrected_one(data, tmp_path):
    for wrong, words in (({"base_lr": float("nan")}, "base_lr must be finite"),
                         ({"seed": -1}, "seed must be 0 to"),
                         ({"aux_weight": float("nan")}, "aux_weight must be finite"),
                         ({"model": {**MODEL, "classes": 300}}, "classes must be 1 to 254"),
                         ({"model": {**MODEL, "width": 1e9}}, "width must be at most 8"),
                         ({"model": {**MODEL, "stem_width": 10 ** 9}}, "stem_width must be 1")):
        with pytest.raises(UsageError, match=words) as caught:
            _train(data, tmp_path, **wrong)
        assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == [".lock"]
    assert _train(data, tmp_path, max_iter=1).exists()


def test_finished_training_is_not_taken_for_another(data, uninterrupted, tmp_path):
    (tmp_path / "weights.pt").write_bytes(uninterrupted.read_bytes()[:5000])
    with pytest.raises(UserError, match="weights.pt: this is a PyTorch file that is damaged or"):
        _train(data, tmp_path)


def test_load_model_rejects_nan(tmp_path, uninterrupted):
    content = plain_file.load(uninterrupted)
    content["weights"]["head.score.bias"][1] = float("nan")
    plain_file.save(tmp_path / "nan.pt", content)
    with pytest.raises(UserError, match="nan.pt: head.score.bias is not finite"):
        model_file.load_model(tmp_path / "nan.pt")


def test_write_atomically_below_a_file(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        plain_file.save(tmp_path / "file" / "x.pt", {})


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


def _command(*words):
    return subprocess.run([sys.executable, "-m", "pspnet_repro", *map(str, words)], cwd=ROOT,
                          capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_commands_train_and_evaluate(data, tmp_path):
    net = ("--classes", 4, "--width", 0.125, "--stem", "classic", "--stem-width", 8, "--blocks",
           "1,1,1,1", "--bins", "1,2", "--crop-size", 57)
    done = _command("train", "--data", data, "--output", tmp_path / "run", *net, "--batch-size", 2,
                    "--max-iter", 2, "--threads", 1)
    assert done.returncode == 0, done.stderr
    weights = tmp_path / "run" / "weights.pt"
    assert done.stdout.strip() == str(weights)
    done = _command("evaluate", "--weights", weights, "--data", data, "--base-size", 72,
                    "--crop-size", 57, "--output", tmp_path / "test")
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "test" / "result.json").read_text())
    assert f"mean IoU {100 * figures['mean_iou']:.2f}" in done.stdout
    assert np.sum(figures["confusion"]) == 2 * 72 * 72


@pytest.mark.slow
@pytest.mark.parametrize("words, code, said", [
    ((), 2, "error: the following arguments are required: "),
    (("train",), 2, "are required: -o/--output\nsee pspnet train --help\n"),
    (("train", "--data", "none", "--output", "o", "--classes", "0"), 2, "must be 1 to 254, got 0"),
    (("train", "--data", "", "--output", "o", "--classes", "3"), 2, "must not be empty"),
    (("train", "--data", "none", "--output", "o", "--classes", "3"), 1,
     "error: none: no such data folder"),
    (("evaluate", "--weights", "none.pt", "--data", "none"), 1, "error: none.pt: no such file"),
])
def test_commands_report_mistakes(words, code, said):
    done = _command(*words)
    assert done.returncode == code and said in done.stderr and "Traceback" not in done.stderr
    if code == 1:
        assert len(done.stderr.strip().splitlines()) == 1
