"""Fixtures for the tests of commands."""

import numpy as np
import pytest
from helpers.image_files import photograph, put
from helpers.networks import tiny_net

from pspnet_repro.weights import model_file


@pytest.fixture
def weights(tmp_path):
    """A file of the tiny network."""
    path = tmp_path / "weights.pt"
    model_file.save_model(path, tiny_net())
    return path


@pytest.fixture
def photos(tmp_path):
    """Five photographs with labels of four classes, their list, and names."""
    folder = tmp_path / "scenes"
    rng = np.random.default_rng(0)
    lines = []
    for k in range(5):
        size = (60 + 3 * k, 80)
        put(folder / f"{k}.png", photograph(*size, seed=k)[..., ::-1])
        label = rng.integers(0, 4, size)
        label[:9] = 255
        put(folder / f"{k}_label.png", label)
        lines.append(f"{k}.png {k}_label.png\n")
    (folder / "val.txt").write_text("".join(lines))
    (folder / "classes.txt").write_text("9 9 9 dust\n1 2 3 sea\n4 5 6 wide land\n7 8 9 sky\n")
    return folder


@pytest.fixture
def asked(monkeypatch):
    """The TrainSettings that the command train asks for; nothing is trained."""
    settings = []
    monkeypatch.setattr("pspnet_repro.commands.work.train.train",
                        lambda asked_for, *_, **__: settings.append(asked_for))
    return settings
