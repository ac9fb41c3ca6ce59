"""Runs of pytest on the kernels' tests, for the parts that need them."""

import os
import re
import subprocess
import sys
from collections.abc import Sequence

from pspnet_repro.defaults import ROOT

from .part import Setting

# Without a GPU quick tests of other things stand for them.
KERNELS = {"cuda": "tests/ops/test_cuda_kernels.py", "cpu": "tests/ops/test_checks.py"}
DEVICE = {"cuda": ("tests/ops/test_cuda_device.py", "tests/ops/test_cuda_kernels_training.py"),
          "cpu": ()}
_COUNT = re.compile(r"(\d+) (passed|failed|skipped|errors?)\b")
_REASON = re.compile(r"^SKIPPED \[\d+\] (.*)$", re.MULTILINE)


def start(setting: Setting, ids: Sequence[str], before: Sequence[str] = (),
          **variables: str) -> subprocess.Popen:
    """A process of pytest for tests by id, behind the words `before`."""
    marks = ["-m", "cuda"] if setting.device == "cuda" else []
    return subprocess.Popen(
        [*before, sys.executable, "-m", "pytest", "-q", "-rsf", "-p", "no:cacheprovider", *marks,
         *ids],
        cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**os.environ, "OMP_NUM_THREADS": "2", "PSPNET_REQUIRE_CUDA":
             "1" if setting.device == "cuda" else "", **variables})


def ids_in(words: str) -> list[str]:
    """Ids that `pytest -q --collect-only` prints; they may hold spaces."""
    return [line for line in words.splitlines() if re.match(r"tests/\S+\.py::", line)]


def collect(setting: Setting, *files: str) -> list[str]:
    """Ids of the kernels' tests, or of those that stand for them, and of the tests in `files`."""
    process = start(setting, [KERNELS[setting.device], *files, "--collect-only"])
    words, _ = process.communicate()
    ids = ids_in(words)
    if process.returncode or not ids:
        raise RuntimeError(f"pytest collects no tests:\n{words}")
    return ids


def outcome(process: subprocess.Popen) -> tuple[dict[str, object], str]:
    """Wait for a process: ({"passed": ..., "exit code": ...}, its words, which are printed)."""
    words, _ = process.communicate()
    print(words, flush=True)
    counts = {name: int(number) for number, name in _COUNT.findall(words[-500:])}
    return {**{name: counts.get(name, 0) for name in ("passed", "failed", "skipped")},
            "exit code": process.returncode}, words


def reasons(words: str) -> list[str]:
    """Why tests were left out, each reason once."""
    return list(dict.fromkeys(_REASON.findall(words)))
