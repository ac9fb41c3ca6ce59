"""Tests along a training of several processes: each tests its share, none hangs."""

import os
import signal
import time

import pytest
import torch
from helpers.trainings import read_points, run_training, small_validation

from pspnet_repro.data.pairs import read_list, read_pair
from pspnet_repro.errors import Interrupted
from pspnet_repro.training import validation
from pspnet_repro.weights import model_file, plain_file

pytestmark = pytest.mark.dist


def _of_seven(data, windows):
    return small_validation(data, windows=windows, pairs=read_list(data / "train.txt")[:7])


def _validate(rank, data, output, windows="centre", stopped=None, slow=0.0):
    """Train; process `stopped` gets a signal at its second validation image, and process 1 needs
    `slow` seconds per image."""
    torch.set_num_threads(1)
    read = []

    def read_and_stop(*arguments):
        read.append(1)
        time.sleep(slow * rank)
        if rank == stopped and len(read) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return read_pair(*arguments)

    validation.read_pair = read_and_stop
    try:
        return str(run_training(data, output, validation=_of_seven(data, windows)))
    except Interrupted as stop:
        return str(stop)
    finally:
        validation.read_pair = read_pair


@pytest.mark.parametrize("windows", ["centre", "sliding"])
def test_processes_share_a_validation(two, squares, tmp_path, windows):
    """Seven images: four for one process, three for the other, who is slow."""
    slow = 0.2 if windows == "centre" else 0.0
    weights = [str(tmp_path / "weights.pt")] * 2
    assert two.run(_validate, squares, tmp_path, windows, None, slow) == weights
    points = read_points(tmp_path)
    assert [(point["iteration"], point["images"], point["failed"]) for point in points] == [
        (5, 7, 0), (10, 7, 0), (12, 7, 0)]
    asked = _of_seven(squares, windows)
    net = model_file.load_model(tmp_path / "weights.pt").for_inference()
    matrix = asked.count(net, asked.pairs, lambda: None, pytest.fail)
    assert points[-1]["mean_iou"] == pytest.approx(matrix.mean_iou, abs=2e-3)


def test_a_signal_to_one_stops_the_validation_of_all(two, squares, tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    two.run(_validate, squares, whole)
    assert two.run(_validate, squares, cut, "centre", 1) == [
        "stopped after step 5 of 12, in its validation; the same command resumes"] * 2
    assert plain_file.load(cut / "checkpoint.pt")["iteration"] == 5 and not read_points(cut)
    two.run(_validate, squares, cut)
    assert (cut / "weights.pt").read_bytes() == (whole / "weights.pt").read_bytes()
    assert read_points(cut) == read_points(whole)
    assert (cut / "best.pt").read_bytes() == (whole / "best.pt").read_bytes()
