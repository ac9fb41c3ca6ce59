"""Times of functions on a device, without waiting for each launch."""

import statistics
import time
from collections.abc import Callable

import torch

PASSES = 10  # a timing is of so many, so that launches do not wait for the clock


def seconds(run: Callable, device: torch.device, passes: int = PASSES) -> float:
    """Time of one pass."""
    if device.type != "cuda":
        began = time.perf_counter()
        for _ in range(passes):
            run()
        return (time.perf_counter() - began) / passes
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(passes):
        run()
    end.record()
    end.synchronize()
    return 1e-3 * begin.elapsed_time(end) / passes


def medians(functions: list[Callable], device: torch.device, runs: int,
            passes: int = PASSES) -> list[float]:
    """Median seconds of each function, one run of each after the other; the first warms up."""
    rounds = [[seconds(run, device, passes) for run in functions] for _ in range(runs + 1)][1:]
    return [statistics.median(times) for times in zip(*rounds, strict=True)]
