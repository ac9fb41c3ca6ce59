"""Looks at a network between the steps of its training."""

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from pspnet_repro.distributed import Processes
from pspnet_repro.errors import UserError
from pspnet_repro.files import sync
from pspnet_repro.training.run_folder import read_lines, write_lines

Watch = tuple[int, Callable[[torch.nn.Module], dict]]  # steps between two looks, and the look


@contextlib.contextmanager
def eval_mode(model: torch.nn.Module, device: torch.device) -> Iterator[torch.nn.Module]:
    """The network in eval mode, for a with block that draws from a random generator of its own:
    the training continues as if the block had not been."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            yield model.eval()
        finally:
            model.train()


def keep_points(path: Path, start: int, keys: Sequence[str] = ("iteration",)) -> list[dict]:
    """Drop the lines of looks after step `start` from a file; the others as dictionaries. Raises
    UserError where a line lacks one of `keys`, or its step."""
    points = [point for _, point in read_lines(path)]
    for number, point in enumerate(points, 1):
        if (point is None or type(point.get("iteration")) is not int
                or not set(keys) <= point.keys()):
            raise UserError(f"{path}, line {number}: not the line of a look; move the file away "
                            "to resume without its points")
    kept = [point for point in points if point["iteration"] <= start]
    write_lines(path, map(json.dumps, kept))
    return kept


def add_point(path: Path, point: dict) -> None:
    """Add a dictionary as a line to a file of looks, on the disk when this returns."""
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(point) + "\n")
        sync(file)


class Curve:
    """Looks at a network between the steps of its training; one line of curve.jsonl a look.

    Neither weights nor random numbers change: a training continues as if nobody had looked.

    Args:
        path: of curve.jsonl; what is in it after step `start` is dropped.
        watch: (interval, function). After every `interval` steps and after step `max_iter`
            function(network in eval mode) gives a dictionary; all processes call it.
    """

    def __init__(self, path: Path, watch: Watch | None, start: int, max_iter: int,
                 processes: Processes, device: torch.device):
        self._path, self._watch, self._max_iter = path, watch, max_iter
        self._processes, self._device = processes, device
        if watch is not None:
            processes.on_first(lambda: keep_points(path, start))

    def is_due(self, steps: int) -> bool:
        """Whether it is time for a look after so many steps."""
        return self._watch is not None and (
            steps % self._watch[0] == 0 or steps == self._max_iter)

    def look(self, model: torch.nn.Module, steps: int) -> None:
        """Note what is to be seen after so many steps, where it is time for that."""
        if not self.is_due(steps):
            return
        with eval_mode(model, self._device):
            seen = self._watch[1](model)
        if self._processes.first:
            add_point(self._path, {"iteration": steps, **seen})
