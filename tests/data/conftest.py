"""Fixtures for the tests of data."""

import cv2
import numpy as np
import pytest


@pytest.fixture
def listed(tmp_path):
    """Six images with labels of four classes, and their list."""
    rng = np.random.default_rng(0)
    lines = []
    for k in range(6):
        cv2.imwrite(str(tmp_path / f"{k}.png"), rng.integers(0, 256, (50, 70, 3), np.uint8))
        cv2.imwrite(str(tmp_path / f"{k}_label.png"), rng.integers(0, 4, (50, 70), np.uint8))
        lines.append(f"/{k}.png {k}_label.png\n")
    (tmp_path / "list.txt").write_text("".join(lines) + "\n")
    return tmp_path
