"""What a call of run_table.py has to do: trainings, each with the rows that it serves."""

from dataclasses import dataclass
from pathlib import Path

import torch

from pspnet_repro import PSPNet
from pspnet_repro.errors import UsageError
from pspnet_repro.training.initial_weights import load_initial_weights
from pspnet_repro.training.loop import TrainSettings

from .rows import TABLES, Row
from .runs import data_set, row_depth, row_protocol, row_settings, test_folder, training_folder

REPORTED = "5"  # a table of reported figures alone


def _lines(path):
    """Number of lines of a file, 0 where there is none."""
    try:
        with open(path, "rb") as lines:
            return sum(1 for _ in lines)
    except FileNotFoundError:
        return 0


@dataclass(frozen=True)
class Training:
    """One training and the tests that rows want of it.

    Attributes:
        row: the first Row that wants it.
        folder: where it lives.
        tests: {folder of a test: the Row that it is done for}; rows can share a test.
        rows: names of all rows served.
        settings: TrainSettings.
    """

    row: Row
    folder: Path
    tests: dict
    rows: tuple
    settings: TrainSettings

    @property
    def seed(self):
        return self.settings.seed

    @property
    def steps(self):
        return self.settings.max_iter

    @property
    def name(self):
        return f"row {self.row.name}, seed {self.seed}"

    def steps_done(self):
        """Steps that losses.jsonl knows of."""
        if (self.folder / "weights.pt").exists():
            return self.steps
        return min(_lines(self.folder / "losses.jsonl"), self.steps)

    def images_done(self, images):
        """How many images its tests are done with, of `images` each."""
        return sum(images if (folder / "result.json").exists()
                   else max(_lines(folder / "counts.jsonl") - 1, 0) for folder in self.tests)

    def missing(self):
        """The Rows whose tests have no result yet."""
        return [row for folder, row in self.tests.items()
                if not (folder / "result.json").exists()]

    def state(self):
        """In words: "done", "to do", or what is there of it."""
        left, steps = len(self.missing()), self.steps_done()
        if not left:
            return "done"
        if steps == self.steps:
            return f"trained, {left} of {len(self.tests)} tests to do"
        return f"interrupted at step {steps} of {self.steps}" if steps else "to do"


def select_tables(table, names):
    """{table: Rows} that `--table` and `--rows` name, in order.

    Raises:
        UsageError: a name that no table asked for has.
    """
    numbered = [number for number in TABLES if number.isdigit()]
    tables = {number: TABLES[number] for number in (numbered if table == "all" else [table])}
    if names != "all":
        wanted = [name.strip() for name in names.split(",")]
        known = {row.name: row for rows in tables.values() for row in rows}
        for name in wanted:
            if name not in known:
                which = "no table" if table == "all" else f"table {table}"
                raise UsageError(f"--rows: {which} has {'a ' if table == 'all' else 'no '}row "
                                 f"{name!r}; rows are {', '.join(known)}")
        tables = {number: tuple(row for row in rows if row.name in wanted)
                  for number, rows in tables.items()}
        tables = {number: rows for number, rows in tables.items() if rows}
    if table == "all":
        tables[REPORTED] = ()
    return tables


def make_plan(tables, profile, data, runs, seeds, backbones):
    """The trainings that tables need, and where each row's tests live.

    Args:
        tables: see select_tables.
        profile, data, runs, backbones: see run_row.
        seeds: how many; seeds are 0..seeds-1.
    Returns:
        (list of Training in the tables' order, seed by seed; {row name: [folder of its test with
        seed 0, ...]}).
    """
    source = data_set(profile, data)
    train_list, val_list = source.digest("train"), source.digest("val")
    rows = list({row.name: row for rows in tables.values() for row in rows}.values())
    trainings, folders = {}, {row.name: [] for row in rows}
    for seed in range(seeds):
        for row in rows:
            settings = row_settings(row, profile, train_list, seed, backbones)
            folder = training_folder(runs, row, settings)
            test = test_folder(folder, row_protocol(row, profile), val_list)
            folders[row.name].append(test)
            entry = trainings.setdefault(folder, (row, {}, [], settings))
            entry[1].setdefault(test, row)
            entry[2].append(row.name)
    return [Training(row, folder, tests, tuple(names), settings)
            for folder, (row, tests, names, settings) in trainings.items()], folders


def check_backbones(trainings, backbones):
    """Say where trainings start, and that their files of initial weights fit.

    Args:
        trainings: list of Training.
        backbones: {depth: file}.
    Raises:
        UserError: a file cannot be read or does not fit the networks of its depth.
    """
    random = set()
    for depth, training in {row_depth(training.row): training for training in trainings}.items():
        if depth not in backbones:
            random.add(depth)
            continue
        with torch.device("meta"):
            net = PSPNet(**training.settings.model)
        load_initial_weights(net, backbones[depth])
    if random:
        print(f"No --backbone for depth {', '.join(map(str, sorted(random)))}: random initial "
              "weights.", flush=True)
