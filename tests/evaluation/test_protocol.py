"""Sizes, windows and probabilities against the authors' functions."""

import numpy as np
import pytest
import torch
from helpers.golden import IMAGES, read_golden
from helpers.networks import stand_in_net

from pspnet_repro import PSPNet
from pspnet_repro.evaluation import Protocol, predict_probabilities


@pytest.mark.parametrize("path", IMAGES)
def test_scaled_size_matches_golden(path):
    arrays = read_golden(path)
    protocol = Protocol(int(arrays["base_size"]), int(arrays["crop_size"]), arrays["scales"])
    sizes = [protocol.scaled_size(*arrays["image_rgb"].shape[:2], scale)
             for scale in arrays["scales"]]
    assert sizes == [tuple(size) for size in arrays["scaled_sizes"].tolist()]


def test_scaled_size_rounds_in_float32():
    assert Protocol(512, 473).scaled_size(135, 270, 0.75) == (193, 385)
    assert Protocol(100, 97).scaled_size(7, 7, 1.0) == (101, 101)
    assert Protocol(100, 97).scaled_size(1, 5000, 1.0) == (1, 101)


@pytest.mark.parametrize("path", IMAGES)
def test_predict_probabilities_matches_golden(path):
    arrays = read_golden(path)
    probabilities = predict_probabilities(
        stand_in_net, arrays["image_rgb"], classes=4, base_size=int(arrays["base_size"]),
        crop_size=int(arrays["crop_size"]), scales=arrays["scales"])
    assert probabilities.dtype == np.float32 and probabilities.shape == arrays["prob"].shape
    # A pixel whose resized image differs by one grey level moves its probabilities by up to 1e-2.
    error = np.abs(probabilities - arrays["prob"]).max(2)
    assert error.max() <= 1e-2 and np.quantile(error, 0.99) <= 1e-6
    assert (probabilities.argmax(2) == arrays["pred"]).mean() >= 0.999


def test_predict_probabilities_takes_a_pspnet():
    net = PSPNet(4, 50, width=0.125, stem_width=8, blocks=(1, 1, 1, 1)).eval()
    image = np.random.default_rng(0).integers(0, 256, (89, 70, 3), np.uint8)
    x = torch.zeros(1, 3, 89, 89)
    x[..., :70] = torch.from_numpy(
        (image[:, :, ::-1] - np.array([103.939, 116.779, 123.68])).transpose(2, 0, 1).copy())
    with torch.no_grad():
        once, mirrored = net(x), net(x.flip(3)).flip(3)
    for flip, logits in ((False, once), (True, once + mirrored)):
        probabilities = predict_probabilities(net, image, classes=4, base_size=88, crop_size=89,
                                              flip=flip)
        wanted = torch.softmax(logits, 1)[0, :, :, :70].permute(1, 2, 0)
        # Batches of one and of two take other paths through the convolutions, and an untrained
        # net's scores are in the hundreds: 1e-6 of them moves a probability by 1e-4 and more.
        np.testing.assert_allclose(probabilities, wanted, atol=2e-3)


def test_window_starts():
    protocol = Protocol(512, 97)
    assert protocol.window_starts(97, 97) == protocol.window_starts(30, 97) == [0]
    assert protocol.window_starts(161, 97) == [0, 64]
    assert protocol.window_starts(200, 97) == [0, 65, 103]


@pytest.mark.parametrize("image, words", [
    (np.zeros((4, 4, 4), np.uint8), "image_rgb must be"),
    (np.zeros((4, 4, 3), np.float32), "image_rgb must be"),
    (np.zeros((0, 4, 3), np.uint8), "image_rgb must be"),
])
def test_predict_probabilities_rejects_images(image, words):
    with pytest.raises(ValueError, match=words):
        predict_probabilities(stand_in_net, image, classes=4, base_size=9, crop_size=9)


def test_predict_probabilities_rejects_sizes():
    image = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(ValueError, match="must be positive, got 0, 9"):
        predict_probabilities(stand_in_net, image, classes=4, base_size=0, crop_size=9)
    with pytest.raises(ValueError, match="must be positive"):
        predict_probabilities(stand_in_net, image, classes=4, base_size=9, crop_size=9, scales=())


@pytest.mark.parametrize("size", [5, 20])
def test_predict_probabilities_rejects_other_scores(size):
    image = np.zeros((size, size, 3), np.uint8)
    with pytest.raises(ValueError, match=r"net must return \(N, 3, 9, 9\) for N = \d+, "
                                         r"got \(\d+, 4, 9, 9\)"):
        predict_probabilities(stand_in_net, image, classes=3, base_size=size, crop_size=9)
