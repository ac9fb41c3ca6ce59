"""Fixtures for the tests of trainings."""

import pytest
from helpers.trainings import run_training


@pytest.fixture(scope="module")
def uninterrupted(squares, tmp_path_factory):
    """Weights of a training that nothing stopped."""
    return run_training(squares, tmp_path_factory.mktemp("whole"))
