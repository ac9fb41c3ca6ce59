"""The finished runs that a report is about, read from their folders."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal
from functools import cached_property
from pathlib import Path

import numpy as np

from pspnet_repro.errors import UserError, first_line
from pspnet_repro.evaluation.record import RESULT
from pspnet_repro.files import json_lines, refuse_pipe

from ..profiles import Profile
from .resampling import drawn_figures, how_drawn, interval

PAPER = json.loads((Path(__file__).parents[1] / "paper.json").read_text(encoding="utf-8"))
CLAIMS = PAPER.pop("claims")  # the paper's figures outside its tables, and the released networks'
METRICS = {"mean_iou": "mean IoU", "pixel_accuracy": "pixel accuracy"}
# What provenance needs, besides the figures.
_NUMBER = (int, float)
_ABOUT = {"seed": int, "initial_sha256": str, "finished": str,
          "train_processes": int, "train_seconds_of_last_sitting": _NUMBER,
          "train_peak_memory_mib": _NUMBER, "test_processes": int, "test_seconds": _NUMBER,
          "test_peak_memory_mib": _NUMBER}
_MACHINE = {"commit": str, "python": str, "torch": str, "processor": str, "cores": int}
_SETTINGS = {"max_iter": int, "batch_size": int, "initial_weights": (str, type(None))}


def read_result(folder: Path, profile: Profile) -> dict:
    """The result.json of a test; UserError where it is damaged or of other classes than the
    profile's."""
    path = folder / RESULT
    refuse_pipe(path)
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        figures = np.array([*(result[name] for name in METRICS), *result["iou"].values()], float)
        classes = tuple(result["iou"])
        parts = ((result, _ABOUT), (result["settings"], _SETTINGS),
                 (result["provenance"], _MACHINE), (result["train_provenance"], _MACHINE))
        right = all(isinstance(part[name], kind) for part, kinds in parts
                    for name, kind in kinds.items())
        if not right or not ((figures >= 0) & (figures <= 1)).all():
            raise ValueError
    except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError,
            RecursionError) as error:
        raise UserError(f"{path}: damaged; remove its folder to run the row again") from error
    if classes != tuple(profile.classes):
        raise UserError(f"{path}: must have the {len(profile.classes)} classes of profile "
                        f"{profile.name}, has {len(classes)} others")
    return result


def read_curve(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """{name: (lines,) float64} of a training's losses.jsonl or curve.jsonl; a last line that was
    cut off is dropped.

    Raises:
        UserError: the file cannot be read, is empty, or a line has no such numbers.
    """
    refuse_pipe(path)
    try:
        lines = json_lines(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {first_line(error)}") from error
    if not lines:
        raise UserError(f"{path}: must hold at least one line")
    columns = np.empty((len(lines), len(names)))
    for number, (_, content) in enumerate(lines):
        try:
            columns[number] = [content[name] for name in names]
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            raise UserError(f"{path}, line {number + 1}: must hold the numbers "
                            f"{' and '.join(names)}") from error
    return dict(zip(names, columns.T, strict=True))


@dataclass(frozen=True)
class Spread:
    """Mean and sample deviation of a figure over seeds."""

    values: dict[int | None, float]  # {seed: figure}, in percent or in points of it
    # {seed: the figure in each draw of the test images}, where that is known; see resampling.py
    draws: dict[int, np.ndarray] = field(default_factory=dict, compare=False, repr=False)

    def __bool__(self) -> bool:
        """Whether there is a figure of any seed."""
        return bool(self.values)

    @property
    def mean(self) -> float:
        return float(np.mean(list(self.values.values())))

    @property
    def deviation(self) -> float | None:
        """Over n - 1; None for one seed."""
        return float(np.std(list(self.values.values()), ddof=1)) if len(self.values) > 1 else None

    def minus(self, other: "Spread") -> "Spread":
        """The difference, seed by seed, over the seeds of both."""
        both = (self.values, other.values), (self.draws, other.draws)
        return Spread(*({seed: value - theirs[seed] for seed, value in ours.items()
                         if seed in theirs} for ours, theirs in both))

    @cached_property
    def interval(self) -> tuple[float, float] | None:
        """(low, high) of the mean in the middle 95% of the draws; None where a seed has none."""
        if not self or self.draws.keys() != self.values.keys():
            return None
        return interval(np.mean(list(self.draws.values()), 0))

    @property
    def clear(self) -> bool:
        """Whether the mean has the same sign throughout the interval."""
        return self.interval is not None and self.interval[0] * self.interval[1] > 0

    def interval_text(self) -> str:
        """`low .. high` with signs, or "-"."""
        return " .. ".join(number_text(end, "+") for end in self.interval or ()) or "-"

    def text(self, sign: str = "") -> str:
        """`mean ± deviation`, "-" without a figure; with sign "+" the mean bears its sign."""
        if not self:
            return "-"
        spread = "" if self.deviation is None else f" ± {number_text(self.deviation)}"
        return number_text(self.mean, sign) + spread


def number_text(value: float, sign: str = "") -> str:
    """Two decimals, half away from zero as people round, and no sign of a zero."""
    rounded = Decimal(repr(round(float(value), 9))).quantize(Decimal("0.01"), ROUND_HALF_UP)
    return format(rounded if rounded else Decimal(0), f"{sign}.2f")


def class_means(result: dict, contextual: Sequence[bool]) -> tuple[float, float]:
    """Mean IoU in percent over the locally decidable and over the contextual classes."""
    iou = np.array(list(result["iou"].values())) * 100
    return tuple(float(iou[np.equal(contextual, kind)].mean()) for kind in (False, True))


class Results:
    """All runs of a report; folders: {row name: folders of its tests, one a seed}."""

    def __init__(self, folders: dict[str, Sequence[Path]], profile: Profile):
        self.folders = {name: list(places) for name, places in folders.items() if places}
        # {row name: result.json's contents}
        self.runs = {name: [read_result(folder, profile) for folder in places]
                     for name, places in self.folders.items()}
        self._contextual = profile.contextual
        self._draws = {name: {run["seed"]: drawn_figures(folder, run, profile.alike)
                              for run, folder in zip(self.runs[name], places, strict=True)}
                       for name, places in self.folders.items()}
        self.how_drawn = how_drawn(profile.alike)  # test images anew, in words

    def __contains__(self, name: str) -> bool:
        return name in self.runs

    def spread(self, name: str, metric: str) -> Spread:
        """A metric of a row in percent: one of METRICS, "local", "contextual" or the IoU of the
        class of that name; without values where the row was not run."""
        return Spread({run["seed"]: self._percent(run, metric) for run in self.runs.get(name, ())},
                      {seed: draws[metric] for seed, draws in self._draws.get(name, {}).items()
                       if metric in draws})

    def _percent(self, run, metric):
        if metric in ("local", "contextual"):
            return class_means(run, self._contextual)[metric == "contextual"]
        return 100 * (run if metric in METRICS else run["iou"])[metric]

    @property
    def seeds(self) -> int:
        """The largest number of runs that a row has."""
        return max(map(len, self.runs.values()), default=0)
