"""What is measured of memory."""

import os

import numpy as np
import pytest

from experiments.peak_memory import peak_bytes, reset_peak


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK),
                    reason="only Linux lets a process forget its peak")
def test_peak_counts_from_its_reset():
    reset_peak()
    before = peak_bytes()
    block = np.ones(2 ** 26)
    high = peak_bytes()
    assert high - before > 0.9 * block.nbytes
    del block
    assert peak_bytes() > high - 2 ** 24  # the kernel counts in batches of pages
    reset_peak()
    assert peak_bytes() < high - 2 ** 28
