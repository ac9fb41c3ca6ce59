"""imresize against the authors' function."""

import numpy as np
import pytest
from helpers.golden import IMAGES, read_golden

from pspnet_repro.evaluation import imresize


@pytest.mark.parametrize("path", IMAGES)
def test_imresize_matches_golden(path):
    arrays = read_golden(path)
    image = arrays["image_rgb"]
    if image.ndim == 2:
        image = np.repeat(image[:, :, None], 3, 2)
    resized = imresize(image, tuple(arrays["scaled_sizes"][-1]))
    difference = np.abs(resized.astype(int) - arrays["last_scaled_rgb"])
    # Exact halves may round either way: their last bit hangs on the order of the sum.
    assert difference.max() <= 1 and (difference == 0).mean() >= 0.99


def test_imresize_by_hand():
    ramp = np.array([[0.0, 1.0, 2.0, 3.0]])
    # Half-pixel centres: outputs at 0.5 and 2.5; the kernel spans four inputs, borders reflect.
    np.testing.assert_allclose(imresize(ramp, (1, 2)), [[(0 * 4 + 1 * 3 + 2 * 1) / 8,
                                                         (3 * 4 + 2 * 3 + 1 * 1) / 8]])
    np.testing.assert_allclose(imresize(ramp[:, :2], (1, 4)), [[0, 0.25, 0.75, 1]])
    assert np.array_equal(imresize(ramp, (1, 4)), ramp)


def test_imresize_rounds_halves_up():
    assert imresize(np.array([[10, 11], [10, 11]], np.uint8), (1, 1)).tolist() == [[11]]


def test_imresize_rejects():
    with pytest.raises(ValueError, match="image must be uint8 or floating, got int64"):
        imresize(np.zeros((2, 2), np.int64), (1, 1))
    with pytest.raises(ValueError, match="size must be at least 1, got 0, 1"):
        imresize(np.zeros((2, 2)), (0, 1))
    with pytest.raises(ValueError, match="and not empty"):
        imresize(np.zeros((0, 2)), (1, 1))
