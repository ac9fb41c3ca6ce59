"""Time and memory of trainings and tests on this machine, from a few measured steps.

Each network is measured in a process of its own, which starts as small as a row's does.
"""

import dataclasses
import json
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from prototxt_import.net import CaffeNet
from pspnet_repro import PSPNet
from pspnet_repro.data.pairs import Pair
from pspnet_repro.data.training_sequence import TrainingSequence
from pspnet_repro.distributed import choose_device
from pspnet_repro.errors import UserError, command
from pspnet_repro.evaluation import Protocol, predict_probabilities
from pspnet_repro.training.settings import TrainSettings
from pspnet_repro.training.solver import CaffeSGD, parameter_groups

from ..children import last_words, read_job, run_together, start
from ..peak_memory import peak_bytes
from ..plan import settings_from_json
from ..systems.settings import RECIPE
from ..systems.training import SystemNet, build
from .shapes import network_key, step_work, window_work, windows_an_image

BUDGET = 1.5e11  # multiply-adds of a measured step: about a second on two cores
SECONDS = 1.5  # of timed steps, unless the first takes longer
LIMIT = 60.0  # seconds after which no further network is measured
# Crop and batch where a whole step is too much. On smaller crops what does not grow with them
# would spoil the extrapolation of memory.
SMALLER = ((None, 2), (185, 2))


@dataclass(frozen=True)
class Rates:
    """What a network was measured to take."""

    step_rate: float  # seconds per multiply-add in training steps
    window_rate: float  # the same in tests
    reading_seconds: float  # of a training sample: read and augmented
    processor_share: float  # of the cores wanted, what other programs left to the steps
    base_bytes: float  # what the process holds besides weights and what belongs to them
    kept_factor: float  # memory of a step over the bytes that its backward pass needs
    crop_size: int  # that was measured; smaller than the training's where that is large
    batch_size: int  # likewise
    measured: bool = True  # false where time was up: the medians of the other networks

    def step_seconds(self, settings: TrainSettings, workers: int) -> float:
        """Of a training step; the batch is that of one process."""
        seconds = self.step_rate * _step(settings).multiply_adds
        reading = self.reading_seconds * settings.batch_size
        return settings.iter_size * (max(seconds, reading / workers) if workers
                                     else seconds + reading)

    def window_seconds(self, settings: TrainSettings) -> float:
        """Of a window in a test, with its share of what else a test does."""
        return self.window_rate * window_work(network_key(settings.model), settings.crop_size)

    def peak_bytes(self, settings: TrainSettings) -> float:
        """Most that the training holds in a process; on a GPU, of the GPU's memory."""
        work = _step(settings)
        # Weights, gradients and momentum.
        return self.base_bytes + 3 * work.weight_bytes + self.kept_factor * work.kept_bytes


def _step(settings):
    return step_work(network_key(settings.model), settings.crop_size, settings.batch_size)


def measured_size(key: str, crop_size: int, batch_size: int) -> tuple[int, int]:
    """(crop, batch) of the steps to measure: the training's own, or what BUDGET allows."""
    sizes = [(crop_size, batch_size), *((crop or crop_size, min(batch, batch_size))
                                        for crop, batch in SMALLER if (crop or 0) <= crop_size)]
    return next((size for size in sizes if step_work(key, *size).multiply_adds <= BUDGET),
                sizes[-1])


def _seconds(function, device):
    """Median time of a call and of the processor's work in it, the first call left out."""
    times, began, wait = [], time.perf_counter(), torch.get_device_module(device).synchronize
    function()
    while len(times) < 2 or time.perf_counter() - began < SECONDS and len(times) < 9:
        wait()
        start, busy = time.perf_counter(), time.process_time()
        function()
        wait()
        times.append((time.perf_counter() - start, time.process_time() - busy))
    return np.median(times, 0).tolist()


def _reading_seconds(settings, pairs):
    """Of one sample: read and augmented."""
    sequence = TrainingSequence(
        [Pair(Path(image), Path(label), table and bytes(table)) for image, label, table in pairs],
        settings.model["classes"], settings.crop_size, settings.augmentation, 0)
    began = time.perf_counter()
    for number in range(len(pairs)):
        sample = sequence[number]
        if isinstance(sample, UserError):
            raise sample
    return (time.perf_counter() - began) / len(pairs)


def _pspnet(settings, crop, batch, device):
    """(function that takes a training step, function that gives the network to test)."""
    net = PSPNet(**settings.model).train().to(device)
    solver = CaffeSGD(parameter_groups(net), 1e-3, 0.9, 1e-4)
    images = torch.randn(batch, 3, crop, crop, device=device) * 50

    def step():
        solver.zero_grad(set_to_none=True)
        outputs = net(images)
        sum(output.square().mean() for output in outputs if output is not None).backward()
        solver.step()

    return step, lambda: net.eval().for_inference()


def _system(settings, crop, batch, device):
    network, solver = build(dataclasses.replace(settings, crop_size=crop, batch_size=batch,
                                                solver={**RECIPE, "max_iter": 2 ** 30}))
    solver.net.to(device)
    images = torch.randn(batch, 3, crop, crop, device=device) * 50
    inputs = {network.image: images, network.label: torch.zeros_like(images[:, :1])}
    test = SystemNet(CaffeNet(network.for_testing(), network.path, arithmetic="torch"))
    return lambda: solver.step(**inputs), lambda: test.to(device)


def measure(job: dict) -> Rates:
    """What a network takes, measured in a fresh process.

    Args:
        job: "settings": of the training as JSON with the batch of one process; "net": path of a
            system's network, or None; "base_size" of the tests; "pairs": [[image, label, table or
            None]] of a few training images; "device".
    """
    settings, device = settings_from_json(job["settings"], job.get("net")), job["device"]
    torch.set_num_threads(settings.threads)
    reading = _reading_seconds(settings, job["pairs"])
    key = network_key(settings.model)
    crop, batch = measured_size(key, settings.crop_size, settings.batch_size)
    work = step_work(key, crop, batch)
    make = _pspnet if job.get("net") is None else _system
    step, tested = make(settings, crop, batch, choose_device(device))
    before = peak_bytes(device)
    seconds, busy = _seconds(step, device)
    activations = max(peak_bytes(device) - before - 2 * work.weight_bytes, 0)
    base_size = round(job["base_size"] * crop / settings.crop_size)
    net = tested()
    image = np.random.default_rng(0).integers(0, 256, (crop, crop, 3), np.uint8)
    test_seconds, _ = _seconds(lambda: predict_probabilities(
        net, image, classes=net.classes, base_size=base_size, crop_size=crop), device)
    windows = windows_an_image(Protocol(base_size, crop), crop, crop)
    return Rates(
        step_rate=seconds / work.multiply_adds,
        window_rate=test_seconds / windows / window_work(key, crop), reading_seconds=reading,
        processor_share=1.0 if device == "cuda" else min(1.0, busy / seconds / settings.threads),
        base_bytes=before - work.weight_bytes, kept_factor=activations / work.kept_bytes,
        crop_size=crop, batch_size=batch)


def measure_all(jobs: dict, at_once: int) -> dict:
    """{name: Rates} of {name: job of `measure`}; where time is up, the medians of the others.
    UserError where a network cannot be measured, KeyboardInterrupt when a signal came."""
    rates, end = {}, time.monotonic() + LIMIT
    with tqdm(total=len(jobs), desc="measuring", unit="network") as bar:
        def begin(name):
            # The first one is measured however late it is.
            return None if rates and time.monotonic() > end else start(
                "cost.measure", json.dumps(jobs[name]), stdout=subprocess.PIPE,
                stderr=subprocess.PIPE)

        def finish(name, process):
            output, errors = process.communicate()
            if process.returncode:
                raise UserError(f"the estimate failed: {last_words(errors, process.returncode)}")
            rates[name] = Rates(**json.loads(output))
            bar.update()

        run_together(jobs, begin, finish, at_once)
    return with_medians(rates, jobs)


def with_medians(rates: dict, names: list) -> dict:
    """{name: Rates} of all names, where those that are missing are the medians of the others."""
    fields = [asdict(each) for each in rates.values()]
    medians = Rates(**{name: type(value)(np.median([each[name] for each in fields]))
                       for name, value in fields[0].items()} | {"measured": False})
    return {name: rates.get(name, medians) for name in names}


@command
def main() -> int:
    print(json.dumps(asdict(measure(json.loads(read_job())))))
    return 0
