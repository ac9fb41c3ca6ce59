"""glibc's allocator: how much freed memory it keeps."""

import ctypes
import os

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of malloc.h
_MOST = 2 ** 31 - 1, 2 ** 25  # the second for a glibc that refuses the first


def keep_freed_memory() -> bool:
    """Let glibc keep freed memory, up to 2 GiB of it, for the next arrays of the process.

    By default it gives an array of some MiB back at once, and the next one costs a page fault per
    4 KiB: half of the time of reading a photograph for training.

    Returns:
        Whether it does: not with another C library, nor where the environment sets its thresholds.
    """
    if any(name.startswith(("MALLOC_TRIM_", "MALLOC_MMAP_", "GLIBC_TUNABLES"))
           for name in os.environ) or os.name != "posix":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(any(mallopt(name, most) == 1 for most in _MOST)
                                       for name in (_TRIM_THRESHOLD, _MMAP_THRESHOLD))
