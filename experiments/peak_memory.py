"""How much memory this process held, its own or its GPU's."""

import os
import re
import resource
import sys
from pathlib import Path

import torch

_RESET, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


def reset_peak(device: str = "cpu") -> None:
    """Let `peak_bytes` of "cpu" or "cuda" count from now on. For the CPU Linux alone can; elsewhere
    it counts from the start."""
    if device == "cuda":
        if torch.cuda.is_initialized():  # else nothing was taken yet
            torch.cuda.reset_peak_memory_stats()
    elif os.access(_RESET, os.W_OK):
        _RESET.write_text("5", encoding="ascii")


def peak_bytes(device: str = "cpu") -> int:
    """Most bytes that this program held at once since its start or `reset_peak`.

    For "cuda" the tensors on the GPU. On Linux from the process's own high-water mark: getrusage's
    starts at what the parent held.
    """
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    if _STATUS.exists():
        peak = re.search(r"^VmHWM:\s+(\d+) kB$", _STATUS.read_text(errors="replace"), re.MULTILINE)
        if peak:
            return 1024 * int(peak[1])
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
