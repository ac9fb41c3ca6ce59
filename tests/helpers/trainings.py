"""Trainings of a small network on the images of the fixture `squares`."""

import json
import time

import pytest
import torch

from helpers.networks import MODEL
from pspnet_repro.data.pairs import read_list
from pspnet_repro.evaluation import Protocol
from pspnet_repro.files import file_sha256
from pspnet_repro.training.loop import train
from pspnet_repro.training.settings import TrainSettings
from pspnet_repro.training.validation import Validation
from pspnet_repro.weights import model_file, plain_file

PROTOCOL = Protocol(71, 57)


def train_settings(data, **changes):
    """Twelve steps of two crops."""
    return TrainSettings(**{"model": MODEL, "data": "test",
                            "list_sha256": file_sha256(data / "train.txt"), "crop_size": 57,
                            "batch_size": 2, "max_iter": 12, "threads": 1} | changes)


def small_validation(data, interval=5, **changes):
    """The first two images, tested every `interval` steps."""
    return Validation(**{"interval": interval, "pairs": read_list(data / "val.txt"), "data": {
        "data": "test", "split": "val", "list_sha256": "0"}, "place": str(data),
        "protocol": PROTOCOL, "windows": "centre", **changes})


def run_training(data, output, changes=None, **options):
    """Train with changed settings and with options of `train`; the path of the weights."""
    return train(train_settings(data, **changes or {}), read_list(data / "train.txt"), output,
                 progress=False, **options)


def run_until_saved(data, output, changes=None, iteration=None, **options):
    """Train until a state is saved, the first or that of an iteration, where the power is cut."""
    saved = model_file.save_model

    def stop_after_saving(path, model, **facts):
        saved(path, model, **facts)
        if iteration in (None, facts.get("iteration")):
            raise RuntimeError("power cut")

    with pytest.MonkeyPatch.context() as patch, pytest.raises(RuntimeError, match="power cut"):
        patch.setattr(model_file, "save_model", stop_after_saving)
        run_training(data, output, changes, checkpoint_seconds=0, **options)


def wait_for_steps(process, output, steps):
    """Wait until a training has written so many losses, or its process has ended."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if (output / "losses.jsonl").exists() and len(read_losses(output)) >= steps:
            return
        time.sleep(0.002)


def careless_look(net):
    """Draws random numbers, and passes through the network."""
    assert not net.training
    torch.manual_seed(7)
    with torch.no_grad():
        score = net(torch.randn(1, 3, 57, 57) * 50)
    return {"mean_iou": score.mean().item()}


def read_losses(output):
    """The lines of losses.jsonl."""
    return read_lines(output / "losses.jsonl")


def read_points(output):
    """The lines of validation.jsonl."""
    return read_lines(output / "validation.jsonl")


def read_lines(path):
    """The objects of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def assert_same_run(weights, other):
    """Equal settings, losses and bits."""
    a, b = plain_file.load(weights), plain_file.load(other)
    assert a["settings"] == b["settings"] and a["initial_sha256"] == b["initial_sha256"]
    assert a["weights"].keys() == b["weights"].keys()
    for name, tensor in a["weights"].items():
        assert torch.equal(tensor, b["weights"][name]), name
    assert read_losses(weights.parent) == read_losses(other.parent)
