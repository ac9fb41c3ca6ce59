"""What is measured of memory."""

import mmap
import os

import numpy as np
import pytest

from experiments.peak_memory import peak_bytes, reset_peak


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK),
                    reason="only Linux lets a process forget its peak")
def test_peak_counts_from_its_reset():
    reset_peak()
    before = peak_bytes()
    # Not from glibc, which commands let keep what is freed.
    with mmap.mmap(-1, 2 ** 29) as block:
        np.frombuffer(block, np.uint8)[:] = 1
        high = peak_bytes()
    assert high - before > 0.9 * 2 ** 29
    assert peak_bytes() > high - 2 ** 24  # the kernel counts in batches of pages
    reset_peak()
    assert peak_bytes() < high - 2 ** 28
