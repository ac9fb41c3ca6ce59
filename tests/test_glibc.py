"""Memory that commands keep instead of giving it back to the system."""

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import numpy as np
from pspnet_repro import errors, glibc

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        np.ones(2 ** 25, np.float32)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

@errors.command
def work():
    faults()
    print(glibc.keep_freed_memory(), faults())

work()
"""


def _work(**environment):
    run = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True,
                         env={"PATH": "", **environment})
    kept, faults = run.stdout.split()
    return kept == "True", int(faults)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="not with glibc")
def test_commands_keep_freed_memory_unless_the_environment_decides():
    kept, faults = _work()
    assert kept and faults < 100
    # 128 MiB five times, in pages of at most 2 MiB.
    kept, faults = _work(MALLOC_MMAP_THRESHOLD_="1048576", MALLOC_TRIM_THRESHOLD_="1048576")
    assert not kept and faults > 200


def test_other_c_libraries_are_left_alone(monkeypatch):
    from pspnet_repro import glibc
    monkeypatch.setattr(glibc.ctypes, "CDLL", lambda _: object())
    assert not glibc.keep_freed_memory()
