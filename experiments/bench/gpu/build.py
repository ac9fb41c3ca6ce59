"""Builds the extension into the running interpreter; nothing is downloaded."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import torch

from pspnet_repro.defaults import ROOT

from .part import Row, Setting


def work(setting: Setting) -> Iterator[Row]:
    environment = dict(os.environ)
    settings = ["USE_CUDA=0", "--dry-run"]
    if setting.device == "cuda":
        settings = ["FORCE_CUDA=1"]
        environment.setdefault("TORCH_CUDA_ARCH_LIST",
                               ".".join(map(str, torch.cuda.get_device_capability())))
    command = ["make", "--no-print-directory", "build", f"PYTHON={sys.executable}", "VENV=",
               f"MAX_JOBS={os.cpu_count()}", *settings]
    began = time.monotonic()
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    yield {"what": " ".join(["make", "build", "PYTHON=python3", *command[4:]]),
           "seconds": round(time.monotonic() - began, 1)}
