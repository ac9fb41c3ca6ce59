"""Image files, and pixels to fill them with."""

import cv2
import numpy as np

from pspnet_repro.evaluation.imresize import imresize

GREY = np.zeros((2, 3, 3), np.uint8)


def put(path, pixels):
    """Write an image file, folders included, and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.asarray(pixels, np.uint8))
    return path


def photograph(rows, cols, seed=0):
    """Smooth blotches, so that a pixel's neighbours matter little."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 7, 3)).astype(np.uint8)
    return imresize(coarse, (rows, cols))
