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
    yield {"what": "Python", "value": platform.python_version()}
    yield {"what": "torch", "value": torch.__version__}
    yield {"what": "torch's CUDA", "value": torch.version.cuda}
    yield {"what": "nvcc", "value": _words("nvcc", "--version")}
    yield {"what": "GPU, driver, memory", "value": _words(
        "nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader")}
    if setting.device == "cuda":
        yield {"what": "compute capability",
               "value": ".".join(map(str, torch.cuda.get_device_capability()))}
        yield {"what": "cuDNN, NCCL",
               "value": f"{torch.backends.cudnn.version()}, {torch.cuda.nccl.version()}"}
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
