"""What the training of a system is asked for."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

from google.protobuf.json_format import MessageToDict

from prototxt_import.format.prototxt import read_solver
from prototxt_import.layers.table import LAYERS
from prototxt_import.solver_settings import NETS, UNFOLLOWED, check_settings
from pspnet_repro.data.augment import Augmentation

# Where no solver is named: that of the PSPNets, see TrainSettings.
RECIPE = {"base_lr": 0.01, "lr_policy": "poly", "power": 0.9, "momentum": 0.9,
          "weight_decay": 0.0001}


@dataclass(frozen=True)
class SystemSettings:
    """What a system's training depends on; fields without a comment are as TrainSettings has them.
    """

    rate_option: ClassVar[str] = "base_lr of its solver"

    system: str  # name of the row
    net_sha256: str  # of the prototxt of its network
    solver: dict  # its fields, see `solver_fields`
    classes: int  # of the data
    data: str
    list_sha256: str
    zero_is_void: bool
    crop_size: int
    batch_size: int
    iter_size: int
    max_iter: int
    augmentation: Augmentation
    seed: int
    threads: int
    initial_weights: str | None
    net: str = ""  # path of the prototxt; no part of what `to_json` gives
    ours: bool = False  # the network is of this folder, and gets the data's number of classes

    def to_json(self) -> dict:
        """Plain data, the same after a round trip through JSON, without a path."""
        plain = asdict(self)
        del plain["net"]
        return json.loads(json.dumps(plain))

    @classmethod
    def from_json(cls, plain: dict, net: str) -> "SystemSettings":
        """The settings that `to_json` gave, of the network in the file `net`."""
        return cls(**{**plain, "augmentation": Augmentation(**plain["augmentation"]), "net": net})

    @property
    def base_lr(self) -> float:
        return self.solver["base_lr"]

    @property
    def model(self) -> dict:
        """What makes the network: plain data."""
        return {"system": self.net, "classes": self.classes, "ours": self.ours}


def solver_fields(path: Path, max_iter: int | None) -> dict:
    """The fields of a solver's file on which a training depends, as plain data, with `max_iter`
    unless it is None. UserError where the file cannot be read, or a setting is missing or not
    supported."""
    param = read_solver(path, LAYERS)
    if max_iter is not None:
        param.max_iter = max_iter
    # The row has a network, a seed and snapshots of its own.
    for name in (*NETS, *UNFOLLOWED, "random_seed", "solver_mode", "snapshot_format"):
        param.ClearField(name)
    param.net = "its network"
    check_settings(param, path)
    param.ClearField("net")
    return MessageToDict(param, preserving_proto_field_name=True)
