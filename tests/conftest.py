"""Fixtures and helpers shared by the tests."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

GOLDEN = Path(__file__).parent / "golden"


def golden_files(folder, pattern="*"):
    """pytest parameters, one id a golden file."""
    files = sorted((GOLDEN / folder).glob(f"{pattern}.npz"))
    assert files, f"no golden files {folder}/{pattern}"
    return [pytest.param(path, id=path.stem) for path in files]


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


@pytest.fixture(scope="session")
def shared():
    """The folder of shared data, where there is one."""
    folder = Path(os.environ.get("PSPNET_SHARED", Path(__file__).parents[2] / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no shared data at {folder}; set PSPNET_SHARED")
    return folder


@pytest.fixture(autouse=True)
def _same_start():
    """Every test starts from the same seed and number of threads, whatever ran before it."""
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
