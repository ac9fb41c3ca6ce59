"""Fixtures for the tests of the harness."""

import dataclasses

import pytest
from helpers.harness import run_rows

from experiments.profiles import PROFILES
from experiments.rows import FULL
from pspnet_repro.data import scenes


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The mini profile cut to six scenes and two steps, its rows run by the harness's own code."""
    folder = tmp_path_factory.mktemp("tiny")
    data = scenes.write_scenes(folder, train=4, val=3)
    profile = PROFILES["mini"]
    train = {**profile.train, "batch_size": 2, "max_iter": 2}
    return dataclasses.replace(profile, train=train), data, folder


@pytest.fixture(scope="module")
def trained(tiny):
    """Folders of the tests of the full row's training: single scale, multi-scale, whole image."""
    profile, data, folder = tiny
    return run_rows(profile, data, folder / "runs", FULL, f"{FULL}-ms", "test-whole")


@pytest.fixture
def write(tmp_path):
    """Writes the text of a file; its path."""
    def write(text, name="train.prototxt"):
        (tmp_path / name).write_text(text)
        return tmp_path / name
    return write
