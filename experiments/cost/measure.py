"""Time and memory of trainings and tests on this machine, from a few measured steps.

`main` reads jobs as JSON from its input and writes what it measured to its output: measure_all
starts a process for it, so that what is measured starts as small as a row's process does.
"""

import json
import math
import multiprocessing
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from pspnet_repro import PSPNet
from pspnet_repro.data.augment import Augmentation
from pspnet_repro.data.dataset import TrainingSequence
from pspnet_repro.data.pairs import Pair
from pspnet_repro.distributed import choose_device
from pspnet_repro.errors import UserError, command, first_line
from pspnet_repro.evaluation import Protocol, predict_probabilities
from pspnet_repro.training.solver import CaffeSGD, parameter_groups

from ..places import ROOT, program
from .peak_memory import peak_bytes
from .shapes import network_key, step_work, window_work, windows_an_image

BUDGET = 1.5e11  # multiply-adds of a measured step: about a second on two cores
SECONDS = 1.5  # of timed steps, unless the first takes longer
LIMIT = 60.0  # seconds after which no further network is measured
# Crop and batch where a whole step is too much. On smaller crops what does not grow with them
# would spoil the extrapolation of memory.
SMALLER = ((None, 2), (185, 2))


@dataclass(frozen=True)
class Rates:
    """What a network was measured to take.

    Attributes:
        step_rate, window_rate: seconds a multiply-add in training steps and in tests.
        reading_seconds: of a training sample: read and augmented.
        processor_share: of the cores wanted, what other programs left to the steps.
        base_bytes: what the process holds besides weights and what belongs to them.
        kept_factor: memory of a step over the bytes that its backward pass needs.
        crop_size, batch_size: what was measured; smaller than the training's where that is large.
        measured: false where time was up: the medians of the other networks.
    """

    step_rate: float
    window_rate: float
    reading_seconds: float
    processor_share: float
    base_bytes: float
    kept_factor: float
    crop_size: int
    batch_size: int
    measured: bool = True

    def step_seconds(self, settings, workers):
        """Of a training step, TrainSettings with the batch of one process."""
        work = step_work(network_key(settings.model), settings.crop_size, settings.batch_size)
        seconds, reading = (self.step_rate * work.multiply_adds,
                            self.reading_seconds * settings.batch_size)
        return settings.iter_size * (max(seconds, reading / workers) if workers
                                     else seconds + reading)

    def window_seconds(self, settings):
        """Of a window in a test, with its share of what else a test does."""
        return self.window_rate * window_work(network_key(settings.model), settings.crop_size)

    def peak_bytes(self, settings):
        """Most that the training holds in a process; on a GPU, of the GPU's memory."""
        work = step_work(network_key(settings.model), settings.crop_size, settings.batch_size)
        # Weights, gradients and momentum.
        return self.base_bytes + 3 * work.weight_bytes + self.kept_factor * work.kept_bytes


def measured_size(key, crop_size, batch_size):
    """(crop, batch) of the steps to measure: the training's own, or what BUDGET allows."""
    sizes = [(crop_size, batch_size), *((crop or crop_size, min(batch, batch_size))
                                        for crop, batch in SMALLER if (crop or 0) <= crop_size)]
    for size in sizes:
        if step_work(key, *size).multiply_adds <= BUDGET:
            return size
    return sizes[-1]


def _seconds(function, device):
    """Median time of a call and of the processor's work in it, the first call left out."""
    times, began = [], time.perf_counter()
    function()
    while len(times) < 2 or time.perf_counter() - began < SECONDS and len(times) < 9:
        _wait(device)
        start, busy = time.perf_counter(), time.process_time()
        function()
        _wait(device)
        times.append((time.perf_counter() - start, time.process_time() - busy))
    return np.median(times, 0).tolist()


def _wait(device):
    if device == "cuda":
        torch.cuda.synchronize()


def _peak(device):
    return torch.cuda.max_memory_allocated() if device == "cuda" else peak_bytes()


def _reading_seconds(job):
    """Of one sample: read and augmented."""
    settings = job["settings"]
    pairs = [Pair(Path(image), Path(label), table and bytes(table))
             for image, label, table in job["pairs"]]
    sequence = TrainingSequence(pairs, settings["model"]["classes"], settings["crop_size"],
                                Augmentation(**settings["augmentation"]), 0,
                                settings["zero_is_void"])
    began = time.perf_counter()
    for number in range(len(pairs)):
        sample = sequence[number]
        if isinstance(sample, UserError):
            raise sample
    return (time.perf_counter() - began) / len(pairs)


def measure(job):
    """Fields of Rates, measured of one network in a fresh process.

    Args:
        job: "settings": TrainSettings as JSON with the batch of one process; "base_size" of the
            tests; "pairs": [[image, label, table or None]] of some training images; "device".
    """
    settings, device = job["settings"], job["device"]
    torch.set_num_threads(settings["threads"])
    reading = _reading_seconds(job)
    key = network_key(settings["model"])
    crop, batch = measured_size(key, settings["crop_size"], settings["batch_size"])
    work = step_work(key, crop, batch)
    net = PSPNet(**settings["model"]).train().to(choose_device(device))
    solver = CaffeSGD(parameter_groups(net), 1e-3, 0.9, 1e-4)
    images = torch.randn(batch, 3, crop, crop, device=device) * 50
    before = _peak(device)

    def step():
        solver.zero_grad(set_to_none=True)
        outputs = net(images)
        sum(output.square().mean() for output in outputs if output is not None).backward()
        solver.step()

    seconds, busy = _seconds(step, device)
    activations = max(_peak(device) - before - 2 * work.weight_bytes, 0)
    return {"step_rate": seconds / work.multiply_adds,
            "window_rate": _window_rate(net, key, job, crop), "reading_seconds": reading,
            "processor_share": (1.0 if device == "cuda"
                                else min(1.0, busy / seconds / settings["threads"])),
            "base_bytes": before - work.weight_bytes,
            "kept_factor": activations / work.kept_bytes, "crop_size": crop, "batch_size": batch}


def _window_rate(net, key, job, crop):
    base_size = round(job["base_size"] * crop / job["settings"]["crop_size"])
    fused = net.eval().for_inference()
    image = np.random.default_rng(0).integers(0, 256, (crop, crop, 3), np.uint8)
    seconds, _ = _seconds(lambda: predict_probabilities(
        fused, image, classes=net.classes, base_size=base_size, crop_size=crop), job["device"])
    windows = windows_an_image(Protocol(base_size, crop), crop, crop)
    return seconds / windows / window_work(key, crop)


def measure_all(jobs, at_once):
    """{name: Rates} of {name: job}, by a process of its own a job, some at a time.

    Raises:
        UserError: one failed.
        KeyboardInterrupt: a signal came.
    """
    run = subprocess.run(program("cost.measure", str(at_once)), cwd=ROOT,
                         input=json.dumps(jobs), stdout=subprocess.PIPE, text=True, check=False)
    if run.returncode == 130:
        raise KeyboardInterrupt
    if run.returncode:
        raise UserError(f"the estimate failed: {run.stdout.strip() or run.returncode}")
    return {name: Rates(**found) for name, found in json.loads(run.stdout).items()}


def _measure_before(item):
    """(name, what `measure` gives); (name, None) when it is too late for it."""
    name, job, end = item
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's to answer
    return name, (measure(job) if time.time() < end else None)


def with_medians(found):
    """{name: fields of Rates}, where those of None are the medians of the others."""
    measured = [rates for rates in found.values() if rates is not None]
    medians = {field: float(np.median([rates[field] for rates in measured]))
               for field in measured[0]}
    medians |= {"crop_size": measured[0]["crop_size"], "batch_size": measured[0]["batch_size"]}
    return {name: rates or {**medians, "measured": False} for name, rates in found.items()}


@command
def main():
    jobs = json.load(sys.stdin)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])  # found where measure_all starts this process
    try:
        end = time.time() + LIMIT
        # The first one is measured however late it is.
        items = [(name, job, end if k else math.inf) for k, (name, job) in enumerate(jobs.items())]
        with context.Pool(min(int(sys.argv[1]), len(items)), maxtasksperchild=1) as pool:
            found = dict(tqdm(pool.imap_unordered(_measure_before, items), total=len(items),
                              desc="measuring", unit="network"))
    except KeyboardInterrupt:
        return 130
    except (UserError, RuntimeError) as error:
        print(first_line(error))
        return 1
    print(json.dumps(with_medians(found)))
    return 0

