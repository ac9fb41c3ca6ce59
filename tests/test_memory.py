"""What is measured of memory."""

import os

import numpy as np
import pytest

from pspnet_repro.memory import peak_bytes, reset_peak


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK),
                    reason="only Linux lets a process forget its peak")
def test_peak_counts_from_its_reset():
    before = peak_bytes()
    block = np.ones(2 ** 26)
    assert peak_bytes() - before > 0.9 * block.nbytes
    high = peak_bytes()
    del block
    assert peak_bytes() > high - 2 ** 24
    reset_peak()
    assert peak_bytes() < high - 2 ** 28
