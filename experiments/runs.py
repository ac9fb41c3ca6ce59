"""What a run is: its settings, and the folders that a digest of them names."""

import hashlib
import json
import math
from pathlib import Path

from experiments.rows import TABLES
from pspnet_repro.checkpoint import file_sha256
from pspnet_repro.data.lists import list_digest
from pspnet_repro.errors import UsageError
from pspnet_repro.evaluation import Protocol
from pspnet_repro.train import TrainSettings

ROWS = {row.name: row for table in TABLES.values() for row in table}


def find_row(name):
    """The Row of that name. Raises UsageError where no table has it."""
    if name not in ROWS:
        raise UsageError(f"no row {name!r}; rows are {', '.join(ROWS)}")
    return ROWS[name]


def row_depth(row):
    """The paper's depth of a row's backbone."""
    return row.model.get("depth", 50)


def row_settings(row, profile, data, seed, backbones=None):
    """TrainSettings of a row in a profile.

    Args:
        row, profile: a Row and a Profile.
        data: folder with train.txt.
        seed: of the run.
        backbones: {depth: file of initial weights}; depths without start from random weights.
    """
    weights = (backbones or {}).get(row_depth(row))
    row_model = {name: value for name, value in row.model.items() if name != "depth"}
    return TrainSettings(**{
        "data": profile.data, "list_sha256": list_digest(data / "train.txt"), "seed": seed,
        "zero_is_void": profile.zero_is_void, **profile.train, **row.train,
        "initial_weights": weights and file_sha256(weights),
        "model": {"classes": len(profile.classes), **profile.model,
                  **profile.depths[row_depth(row)], **row_model}})


def row_protocol(row, profile):
    """Protocol that a row is tested by in a profile."""
    crop_size = profile.train["crop_size"]
    test = dict(row.test)
    if "stride" in test:
        test["stride"] = math.ceil(test["stride"] * crop_size)
    return Protocol(profile.base_size, crop_size, **test)


def _digest(value):
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:10]


def training_folder(runs, row, profile, data, seed, backbones=None):
    """Where a training lives: the name ends with a digest of everything that affects it.

    It starts with the name of the first row that shares the training.
    """
    first = next(name for name, other in ROWS.items()
                 if (other.model, other.train) == (row.model, row.train))
    settings = row_settings(row, profile, data, seed, backbones)
    return Path(runs) / f"{first}-seed{seed}-{_digest(settings.to_json())}"


def test_folder(training, protocol, data):
    """Where a training's test lives, inside its folder; named by all that the test depends on."""
    about = [vars(protocol), list_digest(data / "val.txt")]
    return Path(training) / f"test-{_digest(about)}"
