"""Values recorded from the original program."""

import numpy as np
import pytest

from helpers.paths import TESTS

GOLDEN = TESTS / "golden"


def golden_files(folder, pattern="*"):
    """pytest parameters, one id a golden file."""
    files = sorted((GOLDEN / folder).glob(f"{pattern}.npz"))
    assert files, f"no golden files {folder}/{pattern}"
    return [pytest.param(path, id=path.stem) for path in files]

IMAGES = [case for case in golden_files("protocol") if case.id != "metrics"]


def read_golden(path):
    """The arrays of a golden file by name."""
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def assert_same_bits(actual, expected):
    """Equal shapes, dtypes and bytes."""
    actual = actual.detach().contiguous().numpy()
    assert actual.shape == expected.shape and actual.dtype == expected.dtype
    if actual.tobytes() != expected.tobytes():
        np.testing.assert_array_equal(actual, expected)
        raise AssertionError("zeros of different signs or NaNs of different bits")


def worst_error(tensors, arrays, step):
    """Largest error of any layer over the layer's largest parameter, and the layer.

    A BN's slope and bias are one scale: its bias starts at 0, where the golden value itself is off
    by 1e-4 of its size against float64. Statistics are scales of their own.
    """
    worst = (0.0, "")
    for (layer, k), tensor in tensors.items():
        wanted = arrays[f"step{step}/{layer}/{k}"]
        same_scale = (0, 1) if k < 2 else (k,)
        scale = max(np.abs(arrays[f"step{step}/{layer}/{j}"]).max() for j in same_scale
                    if (layer, j) in tensors)
        error = np.abs(tensor.detach().numpy() - wanted.reshape(tensor.shape)).max() / scale
        worst = max(worst, (float(error), f"{layer}/{k}"))
    return worst
