"""What a training says: lines of log.txt, and scalars for TensorBoard."""

import importlib.util
import re
import sys

import pytest
from helpers.trainings import (
    assert_same_run,
    read_losses,
    read_points,
    run_training,
    small_validation,
)

from pspnet_repro.__main__ import main
from pspnet_repro.errors import UsageError, UserError
from pspnet_repro.training import progress_log
from pspnet_repro.weights import model_file

needs_tensorboard = pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None,
                                       reason="tensorboard is not installed")
LINE = re.compile(r"\S+ \S+ step (\d+) of 12: loss (\S+) auxiliary loss (\S+) rate (\S+), "
                  r"\S+ s per step, \S+ images/s, \d+ s left")


class Clock:
    """A clock that moves by a second whenever it is asked for the time."""

    strftime, seconds = staticmethod(progress_log.time.strftime), 0.0

    def monotonic(self):
        self.seconds += 1
        return self.seconds


def _lines(output):
    return [found for found in map(LINE.fullmatch, (output / "log.txt").read_text().splitlines())
            if found]


def test_log_has_a_line_per_step_where_it_is_asked_for(squares, tmp_path):
    run_training(squares, tmp_path, log_seconds=0)
    lines = _lines(tmp_path)
    assert [int(line[1]) for line in lines] == list(range(1, 13))
    for line, step in zip(lines, read_losses(tmp_path), strict=True):
        assert line.groups()[1:] == (f"{step['loss']:.4f}", f"{step['loss_aux']:.4f}",
                                     f"{step['lr']:.4g}")


def test_log_has_lines_by_the_clock_and_at_the_end(squares, tmp_path, monkeypatch):
    monkeypatch.setattr(progress_log, "time", Clock())
    run_training(squares, tmp_path, log_seconds=5)
    lines = _lines(tmp_path)
    assert [int(line[1]) for line in lines] == [5, 10, 12]
    assert all("1.000 s per step, 2 images/s" in line[0] for line in lines)
    assert " 7 s left" in lines[0][0] and " 0 s left" in lines[2][0]


def test_a_validation_is_no_part_of_the_steps_time(squares, tmp_path, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress_log, "time", clock)
    monkeypatch.setattr(progress_log.ProgressLog, "show_test",
                        lambda *_: setattr(clock, "seconds", clock.seconds + 100))
    run_training(squares, tmp_path, validation=small_validation(squares, 6), log_seconds=0)
    assert float(_lines(tmp_path)[-1][0].rpartition(" s per step")[0].rpartition(" ")[2]) < 2


def test_tensorboard_that_is_not_installed_is_refused(squares, tmp_path, monkeypatch, capsys):
    """Before any work, with the command that installs it."""
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard.writer", raising=False)
    with pytest.raises(UsageError, match="--tensorboard needs the package tensorboard, .*pip insta"
                                         "ll tensorboard, or train without --tensorboard$"):
        run_training(squares, tmp_path / "run", tensorboard=True)
    assert main(["train", "--data", "none", "--output", str(tmp_path / "run"),
                 "--tensorboard"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def _scalars(folder):
    """{name: [(step, value)]} as TensorBoard shows them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {name: [(event.step, event.value) for event in events.Scalars(name)]
            for name in events.Tags()["scalars"]}


@needs_tensorboard
def test_tensorboard_shows_each_step_once(squares, uninterrupted, tmp_path, monkeypatch):
    """Killed after step 7, with the state of step 5."""
    options = {"validation": small_validation(squares), "tensorboard": True}
    saved = model_file.save_model
    monkeypatch.setattr(model_file, "save_model", lambda path, model, **facts: saved(
        path, model, **facts) if facts.get("iteration") == 5 else None)
    written = progress_log.Scalars.add

    def add(scalars, steps, values):
        written(scalars, steps, values)
        if steps == 7:
            scalars.close()
            raise RuntimeError("power cut")

    monkeypatch.setattr(progress_log.Scalars, "add", add)
    with pytest.raises(RuntimeError, match="power cut"):
        run_training(squares, tmp_path, **options, checkpoint_seconds=0)
    monkeypatch.undo()
    weights = run_training(squares, tmp_path, **options)
    assert_same_run(weights, uninterrupted)
    scalars = _scalars(tmp_path / "tensorboard")
    losses = read_losses(tmp_path)
    for name, key in (("loss/main", "loss"), ("loss/auxiliary", "loss_aux"),
                      ("learning_rate", "lr")):
        assert scalars[name] == [(line["iteration"] + 1, pytest.approx(line[key], rel=1e-6))
                                 for line in losses]
    for name in ("mean_iou", "pixel_accuracy", "mean_accuracy"):
        assert scalars[f"validation/{name}"] == [
            (point["iteration"], pytest.approx(point[name], rel=1e-6))
            for point in read_points(tmp_path)]


@needs_tensorboard
def test_tensorboard_keeps_a_file_of_its_folders_name(squares, tmp_path):
    (tmp_path / "tensorboard").write_text("mine")
    with pytest.raises(UserError, match="tensorboard: must be a folder"):
        run_training(squares, tmp_path, tensorboard=True)
    assert (tmp_path / "tensorboard").read_text() == "mine"
