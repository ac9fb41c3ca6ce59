"""Losses and signals that are read after several steps, as on a GPU."""

import os
import signal

import pytest
import torch
from helpers.trainings import assert_same_run, read_losses, run_training

from pspnet_repro.errors import Interrupted, UserError
from pspnet_repro.training import loop
from pspnet_repro.weights import plain_file


@pytest.mark.parametrize("changes", [{"max_iter": 7}, {"max_iter": 7, "iter_size": 2}])
def test_a_training_that_reads_rarely_has_the_same_bits(squares, tmp_path, changes):
    one = run_training(squares, tmp_path / "one", changes)
    assert_same_run(run_training(squares, tmp_path / "many", changes, steps_unread=3), one)
    assert len(read_losses(tmp_path / "many")) == 7


def _at_step(monkeypatch, step, act):
    """Call act(losses) with those of a training's step number `step`, counted from 0."""
    average, calls = loop.average_backward, []

    def look(*arguments):
        parts = average(*arguments)
        calls.append(1)
        return act(parts) if len(calls) == step + 1 else parts

    monkeypatch.setattr(loop, "average_backward", look)


def test_a_loss_that_is_not_finite_leaves_the_checkpoint_before_it(
        squares, tmp_path, monkeypatch):
    """The weights behind it are finite: losses alone show that they are of no use."""
    _at_step(monkeypatch, 7, lambda parts: [
        [torch.full_like(part, torch.nan) for part in parts[0]]])
    with pytest.raises(UserError, match="^loss is nan at iteration 7: .* images of this step: "):
        run_training(squares, tmp_path, steps_unread=3, checkpoint_seconds=0)
    assert plain_file.load(tmp_path / "checkpoint.pt")["iteration"] == 6
    assert [line["iteration"] for line in read_losses(tmp_path)] == list(range(6))


def test_a_signal_is_seen_when_losses_are_read(squares, tmp_path, monkeypatch):
    def stop(parts):
        os.kill(os.getpid(), signal.SIGTERM)
        return parts

    _at_step(monkeypatch, 3, stop)
    with pytest.raises(Interrupted, match="stopped after step 6 of 12; the same command resumes"):
        run_training(squares, tmp_path, steps_unread=3)
    assert plain_file.load(tmp_path / "checkpoint.pt")["iteration"] == 6
    assert len(read_losses(tmp_path)) == 6
