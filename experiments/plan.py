"""What a call of run_table.py has to do: trainings, each with the rows that it serves."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pspnet_repro.errors import UsageError
from pspnet_repro.evaluation import Protocol
from pspnet_repro.evaluation.record import RESULT
from pspnet_repro.files import refuse_pipe
from pspnet_repro.training.run_folder import WEIGHTS
from pspnet_repro.training.settings import TrainSettings
from pspnet_repro.weights.source import weights_files
from pspnet_repro.words import counted

from .rows import ROWS, TABLES, Row
from .systems.settings import SystemSettings
from .systems.training import WEIGHTS as SYSTEM_WEIGHTS

REPORTED = "5"  # a table of reported figures alone


def _lines(path):
    """Number of lines of a file, 0 where there is none."""
    refuse_pipe(path)
    try:
        with open(path, "rb") as lines:
            return sum(1 for _ in lines)
    except FileNotFoundError:
        return 0


def settings_from_json(plain: dict, net: str | None) -> TrainSettings | SystemSettings:
    """The settings that `to_json` gave; `net` is the path of a system's network."""
    return (TrainSettings.from_json(plain) if net is None else
            SystemSettings.from_json(plain, net))


@dataclass(frozen=True)
class Test:
    """A test of a trained network."""

    row: str  # name of the first row that wants it
    folder: Path
    protocol: Protocol
    list_sha256: str  # of the list of its images
    # Arguments of PSPNet that the trained network had otherwise.
    network: dict = field(default_factory=dict)

    @property
    def is_done(self) -> bool:
        return (self.folder / RESULT).exists()


@dataclass
class Training:
    """One training and the tests that rows want of it."""

    row: str  # name of the first row that wants it
    folder: Path
    settings: TrainSettings | SystemSettings
    # What it starts from: a file, or Caffe's pair; None: random weights.
    initial_weights: Path | tuple[Path, Path] | None = None
    tests: dict[Path, Test] = field(default_factory=dict)  # by folder; rows can share a test
    rows: list[str] = field(default_factory=list)  # names of all rows served

    def add(self, row: str, test: Test) -> Path:
        """Serve one more row with a test; returns the test's folder."""
        self.rows.append(row)
        return self.tests.setdefault(test.folder, test).folder

    def to_json(self) -> dict:
        """Plain data that `from_json` takes: all of it but the tests that are done."""
        return {"row": self.row, "folder": str(self.folder), "settings": self.settings.to_json(),
                "net": self.settings.net if self.is_system else None,
                "initial_weights": list(map(str, weights_files(self.initial_weights)))
                if self.initial_weights else None,
                "tests": [{**vars(test), "folder": str(test.folder),
                           "protocol": test.protocol.facts()}
                          for test in self.missing()]}

    @classmethod
    def from_json(cls, plain: dict) -> "Training":
        files = plain["initial_weights"]
        training = cls(plain["row"], Path(plain["folder"]),
                       settings_from_json(plain["settings"], plain["net"]),
                       files and (files if len(files) == 2 else files[0]))
        for test in plain["tests"]:
            test |= {"folder": Path(test["folder"]), "protocol": Protocol(**test["protocol"])}
            training.add(test["row"], Test(**test))
        return training

    @property
    def is_system(self) -> bool:
        """Whether it trains a network of Caffe's."""
        return isinstance(self.settings, SystemSettings)

    @property
    def steps(self) -> int:
        return self.settings.max_iter

    @property
    def name(self) -> str:
        return f"row {self.row}, seed {self.settings.seed}"

    def steps_done(self) -> int:
        """Steps that losses.jsonl knows of."""
        if (self.folder / (SYSTEM_WEIGHTS if self.is_system else WEIGHTS)).exists():
            return self.steps
        return min(_lines(self.folder / "losses.jsonl"), self.steps)

    def images_done(self, images: int) -> int:
        """How many images its tests are done with, of `images` each."""
        return sum(images if test.is_done else max(_lines(test.folder / "counts.jsonl") - 1, 0)
                   for test in self.tests.values())

    def missing(self) -> list[Test]:
        """Those that have no result yet."""
        return [test for test in self.tests.values() if not test.is_done]

    def state(self) -> str:
        """In words: "done", "to do", or what is there of it."""
        left, steps = len(self.missing()), self.steps_done()
        if not left:
            return "done"
        if steps == self.steps:
            return f"trained, {left} of {counted(len(self.tests), 'test')} to do"
        return f"interrupted at step {steps} of {self.steps}" if steps else "to do"


def select_tables(table: str, names: str, systems: Sequence[Row] = ()
                  ) -> dict[str, tuple[Row, ...]]:
    """{table: Rows} that `--table` and `--rows` name, in order.

    Args:
        systems: further rows, which are the last of the table asked for; of all, of Table 4.
    Raises:
        UsageError: a name that no table asked for has, or a further row with the name of another.
    """
    tables = {number: rows for number, rows in TABLES.items()
              if number == table or table == "all" and number.isdigit()}
    own = [row.name for row in systems]
    for name in own:
        if name in ROWS or own.count(name) > 1:
            raise UsageError(f"--system {name}: there is a row of this name: choose another")
    last = "4" if table == "all" else table
    tables[last] = (*tables[last], *systems)
    if names != "all":
        wanted = [name.strip() for name in names.split(",")]
        known = {row.name: row for rows in tables.values() for row in rows}
        wanted += own
        for name in wanted:
            if name not in known:
                which = "no table" if table == "all" else f"table {table}"
                raise UsageError(f"--rows: {which} has {'a ' if table == 'all' else 'no '}row "
                                 f"{name!r}; rows are {', '.join(known)}")
        tables = {number: chosen for number, rows in tables.items()
                  if (chosen := tuple(row for row in rows if row.name in wanted))}
    if table == "all":
        tables[REPORTED] = ()
    return tables
