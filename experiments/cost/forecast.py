"""How long the trainings of a plan will take here, and how much memory."""

import dataclasses
import heapq
import os
from dataclasses import dataclass

from pspnet_repro.data.images import read_image
from pspnet_repro.words import counted

from ..run_row import CURVE_IMAGES, CURVE_POINTS
from .measure import measure_all
from .shapes import network_key, step_work, window_work, windows_an_image

SAMPLES = 4  # training images whose reading is timed


@dataclass(frozen=True)
class Tests:
    """What tests of an experiment have in common; all images are taken to be as large as the first.

    Attributes:
        images: how many.
        size: (height, width) in pixels.
        look: windows of one image in a look at a training.
    """

    images: int
    size: tuple
    look: float

    @classmethod
    def of(cls, experiment):
        """The tests of an Experiment."""
        pairs = experiment.pairs("val")
        size = read_image(pairs[0].image).shape[:2]
        return cls(len(pairs), size, windows_an_image(experiment.profile.protocol, *size))

    def windows(self, test):
        """Windows that a plan.Test wants of one image."""
        return windows_an_image(test.protocol, *self.size)


def _amounts(training, tests):
    """(steps, windows) that are left of a training and its tests."""
    steps = training.steps - training.steps_done()
    windows = tests.images * sum(map(tests.windows, training.missing()))
    looks = CURVE_POINTS * min(CURVE_IMAGES, tests.images) * steps / training.steps
    return steps, windows + looks * tests.look


def longest_first(trainings, tests):
    """The trainings in the order of the multiply-adds that are left."""
    def left(training):
        settings = training.settings
        key = network_key(settings.model)
        steps, windows = _amounts(training, tests)
        work = step_work(key, settings.crop_size, settings.batch_size).multiply_adds
        return (steps * settings.iter_size * work
                + windows * window_work(key, settings.crop_size))

    return sorted(trainings, key=left, reverse=True)


def _one_process(training, processes):
    """Its TrainSettings with the batch of one of the processes."""
    share = len(processes.split(training.settings.batch_size))
    return dataclasses.replace(training.settings, batch_size=share)


def measure_networks(trainings, experiment, device, processes, at_once):
    """{network_key: Rates} of the trainings' networks, those of the last ones first."""
    if not trainings:
        return {}
    pairs = [[os.path.abspath(pair.image), os.path.abspath(pair.label),
              pair.table and list(pair.table)] for pair in experiment.pairs("train")[:SAMPLES]]
    return measure_all({network_key(training.settings.model): {
        "settings": _one_process(training, processes).to_json(),
        "base_size": experiment.profile.base_size, "pairs": pairs, "device": device}
        for training in reversed(trainings)}, at_once)


@dataclass(frozen=True)
class Cost:
    """What is left of a training and its tests: seconds, seconds on an idle machine, bytes."""

    seconds: float
    idle_seconds: float
    peak_bytes: float


def cost(training, tests, rates, processes, workers):
    """The estimated Cost of a training; `rates` as of measure_networks."""
    found, settings = rates[network_key(training.settings.model)], _one_process(training, processes)
    steps, windows = _amounts(training, tests)
    seconds = (steps * found.step_seconds(settings, workers)
               + windows * found.window_seconds(settings) / processes.size)
    return Cost(seconds, seconds * found.processor_share, found.peak_bytes(settings))


def wall_seconds(times, at_once):
    """How long times, each taken by the first that is free of `at_once`, last together."""
    ends = [0.0] * at_once
    for seconds in times:
        heapq.heapreplace(ends, ends[0] + seconds)
    return max(ends)


def duration(seconds):
    """In words: "40 s", "12 min", "3.5 h", "21 days"."""
    for limit, unit, name in ((100, 1, "s"), (100 * 60, 60, "min"), (72 * 3600, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.{1 if name == 'h' else 0}f} {name}"
    return f"{seconds / 86400:.0f} days"


def plan_lines(trainings, costs, at_once, unit="memory"):
    """The plan as lines of text: each training with what it serves, its state, time and memory.

    Args:
        trainings: list of plan.Training, finished ones too.
        costs: {folder: Cost} of the unfinished ones.
        at_once: how many trainings.
        unit: what memory, and whose, in words.
    """
    lines = []
    for training in trainings:
        found = costs.get(training.folder)
        price = (f"; {duration(found.seconds)}, {found.peak_bytes / 2 ** 30:.2f} GiB"
                 if found else "")
        lines += [f"{training.folder.name}: {training.state()}{price}",
                  f"    serves {', '.join(training.rows)}"]
    if not costs:
        return [*lines, "In all: nothing to do."]
    busy, idle = (duration(wall_seconds([getattr(found, name) for found in costs.values()],
                                        at_once)) for name in ("seconds", "idle_seconds"))
    peaks = sorted(found.peak_bytes for found in costs.values())
    return [*lines, f"In all: {len(costs)} of {counted(len(trainings), 'training')} to do, {busy} "
            f"with {at_once} at a time (at most {idle} if no other program ran), up to "
            f"{sum(peaks[-at_once:]) / 2 ** 30:.2f} GiB of {unit}."]


def how_lines(settings, rates, processes):
    """How the costs were estimated, in words.

    Args:
        settings: TrainSettings of any of the trainings.
        rates: as of measure_networks.
        processes: distributed.Processes.
    """
    full = settings.crop_size, settings.batch_size // processes.size
    sizes = sorted({(found.crop_size, found.batch_size) for found in rates.values()} - {full})
    measured = sum(found.measured for found in rates.values())
    lines = [f"Estimated from a few training steps and a test of {measured} of {len(rates)} "
             f"networks, {settings.threads} thread{'s' * (settings.threads > 1)} each, on this "
             "machine as busy as it is now."]
    if sizes:
        names = " or ".join(f"crop {crop} and batch {batch}" for crop, batch in sizes)
        lines.append(f"Measured at {names} in place of {full[0]} and {full[1]}.")
    if sizes or measured < len(rates):
        lines.append("Extrapolated: seconds by multiply-adds, memory by the bytes that the "
                     "backward pass needs, both counted from shapes.")
    if processes.size > 1:
        lines.append("What processes tell each other is not in it.")
    return lines
