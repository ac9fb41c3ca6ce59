"""Where the time of a training step goes, by kernel."""

from collections.abc import Iterator

import torch
from torch.profiler import ProfilerActivity, profile

from ..cuda import FORMATS
from . import networks
from .part import Row, Setting

SHOWN, STEPS = 25, 3


def _kernels(setting, layout):
    """[(microseconds, calls, name)] of a step, longest first."""
    net = networks.network(setting).to(memory_format=layout)
    x = networks.batch(setting, 2 if setting.small else 8).to(memory_format=layout)
    step = networks.our_step(net, x)
    on_card = setting.device == "cuda"
    step()
    with profile(activities=[ProfilerActivity.CUDA if on_card else ProfilerActivity.CPU]) as seen:
        for _ in range(STEPS):
            step()
        if on_card:
            torch.cuda.synchronize()
    times = [(each.self_device_time_total if on_card else each.self_cpu_time_total, each.count,
              each.key) for each in seen.key_averages()]
    return sorted(((time / STEPS, count // STEPS, name) for time, count, name in times),
                  reverse=True)


def work(setting: Setting) -> Iterator[Row]:
    for precision in ("float32", "bfloat16"):
        for layout_name, layout in FORMATS.items():
            with networks.precise(setting, precision):
                kernels = _kernels(setting, layout)
            total = sum(time for time, _, _ in kernels)
            yield {"precision": precision, "layout": layout_name, "kernel": "all",
                   "ms": total / 1e3, "share": 1.0, "calls": sum(count for _, count, _ in kernels)}
            for time, count, name in kernels[:SHOWN]:
                yield {"precision": precision, "layout": layout_name, "kernel": name[:100],
                       "ms": time / 1e3, "share": time / total, "calls": count}
