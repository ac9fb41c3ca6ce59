"""An experiment: a profile on its data, with what all of its trainings share."""

import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path

import torch

from pspnet_repro import PSPNet
from pspnet_repro.data.augment import Augmentation
from pspnet_repro.data.benchmarks import LAYOUTS
from pspnet_repro.data.data_set import DataSet
from pspnet_repro.defaults import VGG16
from pspnet_repro.errors import UserError
from pspnet_repro.evaluation import Protocol
from pspnet_repro.files import file_sha256
from pspnet_repro.model.settings import NetworkSettings
from pspnet_repro.training.initial_weights import (
    load_initial_weights,
    read_structure,
    with_structure,
)
from pspnet_repro.training.settings import TrainSettings

from .plan import Test, Training
from .profiles import Profile
from .rows import OTHER_PLACE, PROFILE_SCALES, ROWS, Row
from .systems.initial import load_vgg16
from .systems.network import Network, system_files
from .systems.settings import RECIPE, SystemSettings, solver_fields


class Experiment:
    """A profile on its data: lists, initial weights and the folder of its trainings.

    Everything is read once, when it is first asked for.

    Args:
        data: folder of the data: one with lists, or the benchmark's as its archive unpacks.
        runs: folder of the profile's trainings.
        backbones: {depth: file of initial weights, or Caffe's pair; VGG16: a file of it}; trainings
            of others start from random weights.
    Raises:
        UserError: no such data folder.
    """

    def __init__(self, profile: Profile, data: Path, runs: Path,
                 backbones: dict[int | str, Path | tuple[Path, Path]] | None = None):
        self.profile, self.runs, self.backbones = profile, Path(runs), backbones or {}
        if not data.is_dir():
            raise UserError(f"{data}: no such data folder")
        layout = LAYOUTS.get(profile.data)
        self.data = (DataSet(profile.data, data, table=layout and layout.listed)
                     if layout is None or (data / "train.txt").exists()
                     else DataSet(profile.data, data, layout))
        self.pairs = functools.cache(self._pairs)
        self.list_sha256 = functools.cache(self.data.digest)
        self._structure = functools.cache(self._read_structure)
        self._system = functools.cache(self._read_system)

    def _read_structure(self, depth):
        """What the initial weights of a depth decide, or None; they must fit its networks."""
        if depth not in self.backbones:
            return None
        structure = read_structure(self.backbones[depth])
        with torch.device("meta"):
            net = PSPNet(**with_structure(self._model(depth), structure))
        load_initial_weights(net, structure)
        return structure

    def _model(self, depth):
        return {"classes": len(self.profile.classes), **self.profile.model,
                **self.profile.depths[depth]}

    def fits(self, row: Row) -> bool:
        """Whether the initial weights leave a row the structure that it is about."""
        structure = None if row.system is not None else self._structure(row.backbone)
        return structure is None or all(
            row.model.get(name, theirs) == theirs for name, theirs in structure.settings.items()
            if name in NetworkSettings.STRUCTURE)

    def _pairs(self, split):
        """The Pairs of "train" or "val", called as `pairs`; UserError where they have no labels."""
        pairs = self.data.pairs(split)
        if pairs[0].label is None:
            raise UserError(f"{self.data.root}: {split}.txt must name an image and a label a line, "
                            "got images alone")
        return pairs

    def _read_system(self, name, files):
        """The settings, with seed 0, of a system of these files, or of ours where there are none;
        the initial weights must fit it."""
        profile, train = self.profile, {"augmentation": Augmentation(), **self.profile.train}
        ours = files == ()
        published = ours and profile.systems == "published"
        net, *solvers = system_files(name, profile.systems) if ours else files
        solver = (solver_fields(solvers[0], None if published else train["max_iter"])
                  if solvers else {**RECIPE, "max_iter": train["max_iter"]})
        sizes = None if published else (train["crop_size"], train["batch_size"])
        network = Network(net, len(profile.classes), sizes, ours)
        weights = self.backbones.get(VGG16)
        if weights is not None:
            with torch.device("meta"):
                load_vgg16(network.for_training(), weights)
        return SystemSettings(
            system=name, net_sha256=file_sha256(net), solver=solver,
            classes=len(profile.classes), data=profile.data, list_sha256=self.list_sha256("train"),
            zero_is_void=profile.zero_is_void, crop_size=network.crop_size,
            batch_size=network.batch_size, iter_size=solver.get("iter_size", 1),
            max_iter=solver["max_iter"], augmentation=train["augmentation"], seed=0,
            threads=train.get("threads", 2),
            initial_weights=weights and file_sha256(weights), net=str(net), ours=ours)

    def settings(self, row: Row, seed: int) -> TrainSettings | SystemSettings:
        """How a row is trained; the network takes the structure of its initial weights, and a
        UserError says where they do not fit it."""
        if row.system is not None:
            return dataclasses.replace(self._system(row.name, row.system), seed=seed)
        profile, structure = self.profile, self._structure(row.backbone)
        model = self._model(row.backbone)
        model |= {name: value for name, value in _placed(row.model, model).items()
                  if name != "depth"}
        train = {"augmentation": Augmentation(), **profile.train, **row.train}
        if "padding" in train:
            train["augmentation"] = dataclasses.replace(train["augmentation"],
                                                        padding=train.pop("padding"))
        return TrainSettings(
            data=profile.data, list_sha256=self.list_sha256("train"), seed=seed,
            zero_is_void=profile.zero_is_void, **train,
            initial_weights=structure and structure.sha256,
            model=with_structure(model, structure) if structure else model)

    def protocol(self, row: Row) -> Protocol:
        """How a row is tested."""
        test = dict(row.test)
        if test.get("scales") == PROFILE_SCALES:
            test["scales"] = self.profile.fidelity_scales
        if "stride" in test:
            test["stride"] = math.ceil(test["stride"] * self.profile.crop_size)
        crop_size = (self.profile.crop_size if row.system is None else
                     self._system(row.name, row.system).crop_size)
        return dataclasses.replace(self.profile.protocol, crop_size=crop_size, **test)

    def plan(self, tables: dict[str, Sequence[Row]],
             seeds: int) -> tuple[list[Training], dict[str, list[Path]]]:
        """The trainings that tables need with seeds 0..seeds-1, in the tables' order, seed by seed;
        and {row name: [folder of its test with seed 0, ...]}; both without the rows whose structure
        the initial weights have otherwise."""
        rows = list({row.name: row for rows in tables.values() for row in rows
                     if self.fits(row)}.values())
        trainings, folders = {}, {row.name: [] for row in rows}
        for seed in range(seeds):
            for row in rows:
                settings = self.settings(row, seed)
                folder = self.runs / f"{_first(row)}-seed{seed}-{_digest(settings.to_json())}"
                training = trainings.setdefault(folder, Training(
                    row.name, folder, settings, self.backbones.get(row.backbone)))
                network = _placed(row.tested, settings.model) if row.tested else {}
                folders[row.name].append(training.add(row.name, self._test(folder, row, network)))
        return list(trainings.values()), folders

    def job(self, training: Training, device: str, workers: int) -> str:
        """The line of JSON from which a process of run_row does a training."""
        return json.dumps({"profile": self.profile.name, "data": str(self.data.root),
                           "training": training.to_json(), "device": device, "workers": workers})

    def _test(self, training_folder, row, network):
        protocol, list_sha256 = self.protocol(row), self.list_sha256("val")
        name = _digest([protocol.facts(), list_sha256, *([network] if network else [])])
        return Test(row.name, training_folder / f"test-{name}", protocol, list_sha256, network)


def _placed(arguments, model):
    """Arguments of PSPNet, the other place of the stride named beside those of `model`."""
    if arguments.items() >= OTHER_PLACE.items():
        other = {"1x1": "3x3", "3x3": "1x1"}[NetworkSettings(**model).stride_in]
        return {**arguments, "stride_in": other}
    return arguments


def _first(row):
    """The name of the first row that shares a row's training."""
    if row.system is not None:
        return row.name
    return next(name for name, other in ROWS.items()
                if (other.model, other.train, other.system) == (row.model, row.train, None))


def _digest(value):
    """Ten digits that name a folder."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:10]
