"""Times of functions that run in turn, so that what else the machine does meets all alike."""

import statistics
import time
from collections.abc import Callable, Sequence

import torch
from tqdm import tqdm


def seconds(function: Callable[[], object]) -> float:
    """Of one call."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def device_seconds(function: Callable[[], object], device: torch.device,
                   passes: int = 10) -> float:
    """Of one call of several in a row, which do not wait for each other on a GPU."""
    def run():
        for _ in range(passes):
            function()

    if device.type != "cuda":
        return seconds(run) / passes
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    run()
    end.record()
    end.synchronize()
    return 1e-3 * begin.elapsed_time(end) / passes


def forward_backward(function: Callable, x: torch.Tensor,
                     grads: Sequence[torch.Tensor]) -> Callable[[], None]:
    """A function that passes `x` forward, and `grads`, one an output, back to it."""
    def run():
        x.grad = None
        torch.autograd.backward(function(x), grads)
    return run


def interleaved(functions: dict[str, Callable[[], object]], runs: int, what: str,
                clock: Callable[[Callable], float] = seconds) -> dict[str, Sequence[float]]:
    """{name: seconds of each run}, one run of each function after the other.

    Args:
        runs: of each function, after one that warms up.
        what: for the progress bar.
        clock: function -> its seconds.
    """
    rounds = [[clock(function) for function in functions.values()]
              for _ in tqdm(range(runs + 1), desc=what, leave=False)][1:]
    return dict(zip(functions, zip(*rounds, strict=True), strict=True))


def figures(times: dict[str, Sequence[float]], base: str) -> dict[str, dict]:
    """Median and quartiles of the times, and of the ratios to `base` of the same round."""
    rows = {}
    for name, values in times.items():
        ratios = [a / b for a, b in zip(values, times[base], strict=True)]
        rows[name] = {"seconds": statistics.median(values), "quartiles": _quartiles(values),
                      "ratio": statistics.median(ratios), "ratio_quartiles": _quartiles(ratios)}
    return rows


def _quartiles(values):
    values = sorted(values)
    return [values[len(values) // 4], values[-1 - len(values) // 4]]
