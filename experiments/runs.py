"""What a run is: its settings, and the folders that a digest of them names."""

import dataclasses
import functools
import hashlib
import json
import math
from pathlib import Path

import torch

from pspnet_repro import PSPNet
from pspnet_repro.data.augment import Augmentation
from pspnet_repro.data.benchmarks import LAYOUTS
from pspnet_repro.data.datasets import DataSet
from pspnet_repro.errors import UsageError, UserError
from pspnet_repro.evaluation import Protocol
from pspnet_repro.training.initial_weights import model_with_structure
from pspnet_repro.training.loop import TrainSettings
from pspnet_repro.weights.source import weights_sha256

from .rows import PROFILE_SCALES, TABLES

ROWS = {row.name: row for table in TABLES.values() for row in table}
_weights_sha256 = functools.lru_cache(weights_sha256)


def data_set(profile, data):
    """The DataSet of a profile in the folder `data`: lists where it has them, or the benchmark's
    own layout."""
    if not data.is_dir():
        raise UserError(f"{data}: no such data folder")
    layout = LAYOUTS.get(profile.data)
    if layout is None or (data / "train.txt").exists():
        return DataSet(profile.data, data, table=layout and layout.listed)
    return DataSet(profile.data, data, layout)


def labelled_pairs(profile, data, split):
    """The Pairs of "train" or "val". Raises UserError where they have no labels."""
    pairs = data_set(profile, data).pairs(split)
    if pairs[0].label is None:
        raise UserError(f"{data}: {split}.txt must name an image and a label a line, got images "
                        "alone")
    return pairs


def find_row(name):
    """The Row of that name. Raises UsageError where no table has it."""
    if name not in ROWS:
        raise UsageError(f"no row {name!r}; rows are {', '.join(ROWS)}")
    return ROWS[name]


def row_depth(row):
    """The paper's depth of a row's backbone."""
    return row.model.get("depth", 50)


def row_settings(row, profile, list_sha256, seed, backbones=None):
    """TrainSettings of a row in a profile.

    Args:
        row, profile: a Row and a Profile.
        list_sha256: digest of the training list, see DataSet.digest.
        seed: of the run.
        backbones: {depth: file of initial weights}, whose structure the network takes; depths
            without start from random weights.
    Raises:
        UserError: see model_with_structure.
    """
    weights = (backbones or {}).get(row_depth(row))
    model = {"classes": len(profile.classes), **profile.model, **profile.depths[row_depth(row)],
             **{name: value for name, value in row.model.items() if name != "depth"}}
    train = {"augmentation": Augmentation(), **profile.train, **row.train}
    if "padding" in train:
        train["augmentation"] = dataclasses.replace(train["augmentation"],
                                                    padding=train.pop("padding"))
    return TrainSettings(**{
        "data": profile.data, "list_sha256": list_sha256, "seed": seed,
        "zero_is_void": profile.zero_is_void, **train,
        "initial_weights": weights and _weights_sha256(weights),
        "model": model_with_structure(model, weights) if weights else model})


def row_protocol(row, profile):
    """Protocol that a row is tested by in a profile."""
    crop_size = profile.train["crop_size"]
    test = dict(row.test)
    if test.get("scales") == PROFILE_SCALES:
        test["scales"] = profile.fidelity_scales
    if "stride" in test:
        test["stride"] = math.ceil(test["stride"] * crop_size)
    return Protocol(profile.base_size, crop_size, **test)


def receptive_field(profile, depth):
    """Pixels a side that a profile's network without the pyramid sees, see PSPNet."""
    with torch.device("meta"):
        return PSPNet(len(profile.classes), bins=(),
                      **{**profile.model, **profile.depths[depth]}).receptive_field()


def look_protocol(profile):
    """Protocol of the looks at a network during its training."""
    return Protocol(profile.base_size, profile.train["crop_size"])


def _digest(value):
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:10]


def training_folder(runs, row, settings):
    """Where a row's training with those TrainSettings lives: the name ends with a digest of them.

    It starts with the name of the first row that shares the training.
    """
    first = next(name for name, other in ROWS.items()
                 if (other.model, other.train) == (row.model, row.train))
    return Path(runs) / f"{first}-seed{settings.seed}-{_digest(settings.to_json())}"


def test_folder(training, protocol, list_sha256):
    """Where a training's test lives, inside its folder: named by protocol and the list's digest."""
    return Path(training) / f"test-{_digest([vars(protocol), list_sha256])}"
