"""glibc's allocator: how much freed memory it keeps."""

import ctypes
import os

# Numbers of mallopt in malloc.h, and values: the first that it takes.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = (-1, (2 ** 31 - 1,)), (-3, (2 ** 28, 2 ** 25))


def keep_freed_memory() -> bool:
    """Let glibc keep freed memory, up to 2 GiB of arrays of at most 256 MiB, for the next arrays.

    By default it gives an array of some MiB back at once, and the next one costs a page fault per
    4 KiB: half of the time of reading a photograph for training. Returns whether it does: not with
    another C library, nor where the environment sets its thresholds.
    """
    if any(name.startswith(("MALLOC_TRIM_", "MALLOC_MMAP_", "GLIBC_TUNABLES"))
           for name in os.environ) or os.name != "posix":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(any(mallopt(name, value) == 1 for value in values)
                                       for name, values in (_TRIM_THRESHOLD, _MMAP_THRESHOLD))
