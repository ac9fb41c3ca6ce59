"""How long the trainings of a plan will take here, and how much memory."""

import dataclasses
import heapq
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pspnet_repro.data.images import read_image
from pspnet_repro.distributed import Processes
from pspnet_repro.words import counted

from ..experiment import Experiment
from ..plan import Test, Training
from ..run_row import CURVE_IMAGES, CURVE_POINTS
from .measure import measure_all
from .shapes import network_key, step_work, window_work, windows_an_image

SAMPLES = 4  # training images whose reading is timed


@dataclass(frozen=True)
class Cost:
    """What is left of a training and its tests: seconds, seconds on an idle machine, bytes."""

    seconds: float
    idle_seconds: float
    peak_bytes: float


class Forecast:
    """What trainings of an experiment will take; test images are taken to be as large as the first.
    """

    def __init__(self, experiment: Experiment, processes: Processes):
        self._experiment, self._processes = experiment, processes
        pairs = experiment.pairs("val")
        self.images, self._size = len(pairs), read_image(pairs[0].image).shape[:2]
        self.rates = {}  # {network_key: Rates} of the networks measured

    def windows(self, test: Test) -> float:
        """Windows that a test wants of one image."""
        return windows_an_image(test.protocol, *self._size)

    @property
    def look(self) -> float:
        """Windows of one image in a look at a training."""
        return windows_an_image(self._experiment.profile.protocol, *self._size)

    def _left(self, training):
        """(steps, windows) that are left of a training and its tests."""
        steps = training.steps - training.steps_done()
        windows = self.images * sum(map(self.windows, training.missing()))
        looks = CURVE_POINTS * min(CURVE_IMAGES, self.images) * steps / training.steps
        return steps, windows + looks * self.look

    def longest_first(self, trainings: Iterable[Training]) -> list[Training]:
        """The trainings in the order of the multiply-adds that are left."""
        def left(training):
            settings = training.settings
            key, (steps, windows) = network_key(settings.model), self._left(training)
            work = step_work(key, settings.crop_size, settings.batch_size).multiply_adds
            return (steps * settings.iter_size * work
                    + windows * window_work(key, settings.crop_size))

        return sorted(trainings, key=left, reverse=True)

    def _one_process(self, training):
        """Its TrainSettings with the batch of one of the processes."""
        share = len(self._processes.split(training.settings.batch_size))
        return dataclasses.replace(training.settings, batch_size=share)

    def measure(self, trainings: Sequence[Training], device: str, at_once: int) -> None:
        """Measure the trainings' networks, those of the last ones first."""
        pairs = [[os.path.abspath(pair.image), os.path.abspath(pair.label),
                  pair.table and list(pair.table)]
                 for pair in self._experiment.pairs("train")[:SAMPLES]]
        self.rates = measure_all({network_key(training.settings.model): {
            "settings": self._one_process(training).to_json(),
            "net": training.settings.net if training.is_system else None, "pairs": pairs,
            "device": device, "base_size": self._experiment.profile.base_size}
            for training in reversed(trainings)}, at_once)

    def cost(self, training: Training, workers: int) -> Cost:
        """What is left of a training whose network was measured."""
        rates = self.rates[network_key(training.settings.model)]
        settings, (steps, windows) = self._one_process(training), self._left(training)
        seconds = (steps * rates.step_seconds(settings, workers)
                   + windows * rates.window_seconds(settings) / self._processes.size)
        return Cost(seconds, seconds * rates.processor_share, rates.peak_bytes(settings))

    def lines(self, trainings: Sequence[Training], to_do: Sequence[Training], *, device: str,
              workers: int, at_once: int) -> list[str]:
        """The plan as lines of text: each training with what it serves, its state, time and memory,
        those to do first, and how that was estimated; measures what is to do."""
        if to_do:
            self.measure(to_do, device, at_once)
        costs = {training.folder: self.cost(training, workers) for training in to_do}
        lines = []
        for training in [*to_do, *(done for done in trainings if done not in to_do)]:
            cost = costs.get(training.folder)
            price = (f"; {duration(cost.seconds)}, {cost.peak_bytes / 2 ** 30:.2f} GiB"
                     if cost else "")
            lines += [f"{training.folder.name}: {training.state()}{price}",
                      f"    serves {', '.join(training.rows)}"]
        if not costs:
            return [*lines, "In all: nothing to do."]
        busy, idle = (duration(wall_seconds([getattr(cost, name) for cost in costs.values()],
                                            at_once)) for name in ("seconds", "idle_seconds"))
        peaks = sorted(cost.peak_bytes for cost in costs.values())
        unit = ("memory" if device == "cpu" else "the GPU's memory") + (
            " in each process" * (self._processes.size > 1))
        return [*lines, f"In all: {len(costs)} of {counted(len(trainings), 'training')} to do, "
                f"{busy} with {at_once} at a time (at most {idle} if no other program ran), up to "
                f"{sum(peaks[-at_once:]) / 2 ** 30:.2f} GiB of {unit}.",
                *self._how(to_do[0].settings)]

    def _how(self, settings):
        """How the costs were estimated, for trainings of such settings."""
        full = settings.crop_size, settings.batch_size // self._processes.size
        rates = self.rates.values()
        sizes = sorted({(each.crop_size, each.batch_size) for each in rates} - {full})
        measured = sum(each.measured for each in rates)
        lines = [f"Estimated from a few training steps and a test of {measured} of {len(rates)} "
                 f"networks, {counted(settings.threads, 'thread')} each, on this machine as busy "
                 "as it is now."]
        if sizes:
            names = " or ".join(f"crop {crop} and batch {batch}" for crop, batch in sizes)
            lines.append(f"Measured at {names} in place of {full[0]} and {full[1]}.")
        if sizes or measured < len(rates):
            lines.append("Extrapolated: seconds by multiply-adds, memory by the bytes that the "
                         "backward pass needs, both counted from shapes.")
        if self._processes.size > 1:
            lines.append("What processes tell each other is not in it.")
        return lines


def wall_seconds(times: Iterable[float], at_once: int) -> float:
    """How long times, each taken by the first that is free of `at_once`, last together."""
    ends = [0.0] * at_once
    for seconds in times:
        heapq.heapreplace(ends, ends[0] + seconds)
    return max(ends)


def duration(seconds: float) -> str:
    """In words: "40 s", "12 min", "3.5 h", "21 days"."""
    for limit, unit, name in ((100, 1, "s"), (100 * 60, 60, "min"), (72 * 3600, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.{1 if name == 'h' else 0}f} {name}"
    return f"{seconds / 86400:.0f} days"
