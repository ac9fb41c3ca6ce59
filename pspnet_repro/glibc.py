"""glibc's allocator: how much freed memory it keeps."""

import ctypes
import os

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt in malloc.h


def keep_freed_memory() -> bool:
    """Let glibc keep freed memory, up to 2 GiB of arrays of at most 256 MiB, for the next arrays.

    By default it gives an array of some MiB back at once, and the next one costs a page fault per
    4 KiB: half of the time of reading a photograph for training. Returns whether it does: not with
    another C library, nor where the environment sets its thresholds.
    """
    # Not every glibc takes 256 MiB.
    return _set(_TRIM_THRESHOLD, 2 ** 31 - 1) and (_set(_MMAP_THRESHOLD, 2 ** 28)
                                                   or _set(_MMAP_THRESHOLD, 2 ** 25))


def give_back_freed_memory() -> None:
    """Let glibc give arrays back at once: what it keeps of a network is as much as a copy needs."""
    _set(_TRIM_THRESHOLD, 2 ** 17)
    _set(_MMAP_THRESHOLD, 2 ** 17)


def _set(threshold, value):
    if any(name.startswith(("MALLOC_TRIM_", "MALLOC_MMAP_", "GLIBC_TUNABLES"))
           for name in os.environ) or os.name != "posix":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and mallopt(threshold, value) == 1
