"""Tests along a training of several processes: each tests its share, none hangs."""

import os
import signal
import time

import pytest
import torch
from test_distributed import two  # noqa: F401 (a fixture)
from test_train import data  # noqa: F401 (a fixture)
from test_validation import _asked, _points, _train

from pspnet_repro.data.pairs import read_list, read_pair
from pspnet_repro.errors import Interrupted
from pspnet_repro.training import validation
from pspnet_repro.weights import model_file, plain_file

pytestmark = pytest.mark.dist


def _validate(rank, data, output, windows="centre", stopped=None, slow=0.0):  # noqa: F811
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
        return str(_train(data, output, _asked(data, 5, windows=windows,
                                               pairs=read_list(data / "train.txt")[:7])))
    except Interrupted as stop:
        return str(stop)
    finally:
        validation.read_pair = read_pair


@pytest.mark.parametrize("windows", ["centre", "sliding"])
def test_processes_share_a_validation(two, data, tmp_path, windows):  # noqa: F811
    """Seven images: four for one process, three for the other, who is slow."""
    slow = 0.2 if windows == "centre" else 0.0
    weights = [str(tmp_path / "weights.pt")] * 2
    assert two.run(_validate, data, tmp_path, windows, None, slow) == weights
    points = _points(tmp_path)
    assert [(point["iteration"], point["images"], point["failed"]) for point in points] == [
        (5, 7, 0), (10, 7, 0), (12, 7, 0)]
    asked = _asked(data, 5, windows=windows, pairs=read_list(data / "train.txt")[:7])
    net = model_file.load_model(tmp_path / "weights.pt").for_inference()
    matrix = asked.count(net, asked.pairs, lambda: None, pytest.fail)
    assert points[-1]["mean_iou"] == pytest.approx(matrix.mean_iou, abs=2e-3)


def test_a_signal_to_one_stops_the_validation_of_all(two, data, tmp_path):  # noqa: F811
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    two.run(_validate, data, whole)
    assert two.run(_validate, data, cut, "centre", 1) == [
        "stopped after step 5 of 12, in its validation; the same command resumes"] * 2
    assert plain_file.load(cut / "checkpoint.pt")["iteration"] == 5 and not _points(cut)
    two.run(_validate, data, cut)
    assert (cut / "weights.pt").read_bytes() == (whole / "weights.pt").read_bytes()
    assert _points(cut) == _points(whole)
    assert (cut / "best.pt").read_bytes() == (whole / "best.pt").read_bytes()
