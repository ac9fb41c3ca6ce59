"""What every part that reads data agrees on."""

import numpy as np

from pspnet_repro.model import settings

_STRIP = 2 ** 20  # elements
IGNORE_INDEX = 255  # the label of pixels that count neither in training nor in a test
MEAN_BGR = np.array(settings.MEAN_BGR, np.float32)


def strips(count: int, size: int = 1) -> list[slice]:
    """Slices of `count` rows of `size` elements: what numpy would make a large copy of whole is
    done a million elements at a time."""
    step = max(1, _STRIP // max(size, 1))
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]


def value_counts(values: np.ndarray, size: int = 256) -> np.ndarray:
    """(size,) pixels of each value of an array of integers below `size`."""
    flat = values.reshape(-1)
    return sum((np.bincount(flat[part], minlength=size) for part in strips(len(flat))),
               np.zeros(size, np.int64))
