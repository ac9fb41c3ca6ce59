"""How much memory this process held, its own or its GPU's."""

import os
import resource
import sys
from pathlib import Path

import torch

_RESET = Path("/proc/self/clear_refs")


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
    peak = _status("VmHWM")
    if peak is not None:
        return peak
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _status(name):
    """Bytes that a line of this process's status tells; None where there is none."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(f"{name}:"):
                return 1024 * int(line.split()[1])
    return None
