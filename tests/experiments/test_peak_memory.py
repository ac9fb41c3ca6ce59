"""What is measured of memory."""

import mmap
import multiprocessing
import os

import numpy as np
import pytest

from experiments.peak_memory import inherited_bytes, peak_bytes, reset_peak


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


def _inherited_before_and_after_touching(pages, queue):
    before = inherited_bytes()
    sum(pages[::mmap.PAGESIZE])
    queue.put((before, inherited_bytes()))


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK),
                    reason="only Linux tells what a process has mapped")
def test_inherited_bytes_are_those_that_a_forked_process_has_not_touched(tmp_path):
    """Of a file that its parent has mapped and read, as libraries are."""
    size = 2 ** 26
    (tmp_path / "library").write_bytes(bytes(size))
    with (open(tmp_path / "library", "rb") as file,
          mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as pages):
        sum(pages[::mmap.PAGESIZE])
        context = multiprocessing.get_context("fork")
        queue = context.Queue()
        process = context.Process(target=_inherited_before_and_after_touching,
                                  args=(pages, queue))
        process.start()
        before, after = queue.get(timeout=60)
        process.join()
    assert size * 0.9 < before - after < size * 1.1
