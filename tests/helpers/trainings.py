"""Trainings of a small network on the images of the fixture `squares`."""

import json

import torch

from helpers.networks import MODEL
from pspnet_repro.data.pairs import list_digest, read_list
from pspnet_repro.evaluation import Protocol
from pspnet_repro.training.loop import TrainSettings, train
from pspnet_repro.training.validation import Validation
from pspnet_repro.weights import plain_file

PROTOCOL = Protocol(71, 57)


def train_settings(data, **changes):
    """Twelve steps of two crops."""
    return TrainSettings(**{"model": MODEL, "data": "test",
                            "list_sha256": list_digest(data / "train.txt"), "crop_size": 57,
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
