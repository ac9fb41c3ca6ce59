"""Which program made a result, and on which machine."""

import json
import os
import platform
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch

from pspnet_repro import __version__
from pspnet_repro.defaults import ROOT
from pspnet_repro.outputs import Outputs


def _commit():
    if not (ROOT / ".git").exists():
        return f"version {__version__}"

    def git(*words):
        return subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True,
                              check=True).stdout.strip()
    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _processor():
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def provenance(device: str = "cpu") -> dict[str, str | int]:
    """Commit (outside a checkout the package's version), versions and machine."""
    gpu = {"gpu": torch.cuda.get_device_name()} if device == "cuda" else {}
    return {"commit": _commit(), "python": platform.python_version(), "torch": torch.__version__,
            "numpy": np.__version__, "opencv": cv2.__version__, "system": platform.system(),
            "processor": _processor(), "cores": os.cpu_count(), **gpu}


def claim(paths: Sequence[Path], keys: Iterable[str]) -> Outputs:
    """The Outputs of a folder, with `paths` in it claimed, see Outputs.claim.

    Files of an earlier version, which kept no list, are known by the first: a JSON file that holds
    `keys` and nothing else.
    """
    outputs = Outputs(paths[0].parent)
    try:
        is_ours = json.loads(paths[0].read_bytes()).keys() == set(keys)
    except (OSError, ValueError, AttributeError, RecursionError):
        is_ours = False  # claim says what is in the way
    if is_ours:
        outputs.adopt(paths)
    outputs.claim(paths)
    return outputs
