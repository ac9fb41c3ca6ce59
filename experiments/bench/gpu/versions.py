"""Versions, and the speed of a convolution in each precision."""

import platform
import statistics
import subprocess
from collections.abc import Iterator

import torch
import torch.nn.functional as F

from ..timing import device_seconds
from .part import Row, Setting


def _words(*command):
    """The last line that a command prints, or why there is none."""
    try:
        run = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        return f"not found: {error}"
    return (run.stdout.strip().splitlines() or [""])[-1]


def work(setting: Setting) -> Iterator[Row]:
    facts = {"Python": platform.python_version(), "torch": torch.__version__,
             "torch's CUDA": torch.version.cuda, "nvcc": _words("nvcc", "--version"),
             "GPU, driver, memory": _words("nvidia-smi", "--format=csv,noheader",
                                           "--query-gpu=name,driver_version,memory.total")}
    if setting.device == "cuda":
        facts |= {"compute capability": ".".join(map(str, torch.cuda.get_device_capability())),
                  "cuDNN, NCCL": f"{torch.backends.cudnn.version()}, {torch.cuda.nccl.version()}"}
    yield from ({"what": what, "value": value} for what, value in facts.items())
    batch, channels, side = (1, 8, 9) if setting.small else (16, 512, 60)
    for name, dtype in (("float32", torch.float32), ("tf32", torch.float32),
                        ("bfloat16", torch.bfloat16), ("float16", torch.float16)):
        allowed = "tf32" if name == "tf32" else "ieee"
        torch.backends.cudnn.conv.fp32_precision = allowed
        x = torch.randn(batch, channels, side, side, device=setting.device, dtype=dtype)
        weight = torch.randn(channels, channels, 3, 3, device=setting.device, dtype=dtype)
        times = [device_seconds(lambda: F.conv2d(x, weight, padding=2, dilation=2), x.device, 3)
                 for _ in range(4)][1:]
        products = batch * channels ** 2 * 9 * side ** 2
        yield {"what": f"3 x 3 convolution, {batch} x {channels} x {side} x {side}, {name}",
               "value": f"{2e-12 * products / statistics.median(times):.3g} TFLOP/s"}
