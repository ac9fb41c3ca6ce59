"""The protocol against the authors' functions."""

import math

import numpy as np
import pytest
import torch
from helpers.golden import golden_files, read_golden
from helpers.networks import stand_in_net

from pspnet_repro import PSPNet
from pspnet_repro.evaluation import ConfusionMatrix, Protocol, imresize, predict_probabilities
from pspnet_repro.evaluation.metrics import accuracy

IMAGES = [p for p in golden_files("protocol") if p.id != "metrics"]


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
def test_imresize_matches_golden(path):
    arrays = read_golden(path)
    image = arrays["image_rgb"]
    if image.ndim == 2:
        image = np.repeat(image[:, :, None], 3, 2)
    resized = imresize(image, tuple(arrays["scaled_sizes"][-1]))
    difference = np.abs(resized.astype(int) - arrays["last_scaled_rgb"])
    # Exact halves may round either way: their last bit hangs on the order of the sum.
    assert difference.max() <= 1 and (difference == 0).mean() >= 0.99


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


def test_confusion_matrix_matches_golden():
    arrays = read_golden(golden_files("protocol", "metrics")[0].values[0])
    matrix = ConfusionMatrix(int(arrays["num_class"]))
    intersection, union = [], []
    for k in range(arrays["pred"].shape[2]):
        single = ConfusionMatrix(int(arrays["num_class"]))
        for m in (matrix, single):
            m.update(arrays["pred"][:, :, k], arrays["label"][:, :, k])
        intersection.append(single.intersection)
        union.append(single.union)
        assert single.pixel_accuracy == arrays["image_accuracy"][k]
    assert np.array_equal(np.stack(intersection, 1), arrays["intersection"])
    assert np.array_equal(np.stack(union, 1), arrays["union"])
    assert np.array_equal(matrix.iou, arrays["iou"])
    assert matrix.mean_iou == arrays["mean_iou"]
    assert matrix.pixel_accuracy == arrays["pixel_accuracy"]


def test_confusion_matrix_without_labels():
    matrix = ConfusionMatrix(3)
    matrix.update(np.zeros((2, 2), int), np.full((2, 2), 255))
    assert math.isnan(matrix.pixel_accuracy) and matrix.mean_iou == 0
    assert matrix.figures == {"mean_iou": 0, "pixel_accuracy": None, "mean_accuracy": None,
                              "frequency_weighted_iou": None, "score": None}


@pytest.mark.parametrize("right, labelled", [(1, 1), (0, 1), (1, 2), (2, 3), (3, 3)])
def test_pixel_accuracy_is_an_exact_share(right, labelled):
    """IoU alone has the script's eps."""
    matrix = ConfusionMatrix(2)
    matrix.update(np.arange(labelled) >= right, np.zeros(labelled, int))
    assert matrix.pixel_accuracy == right / labelled == matrix.figures["pixel_accuracy"]
    assert matrix.iou[0] == right / (np.finfo(float).eps + labelled)


def test_accuracy_of_each_row_is_its_own():
    right = np.array([[1, 0], [0, 0], [1, 1]])
    np.testing.assert_array_equal(accuracy(right, np.array([1, 0, 3])), [1, np.nan, 2 / 3])


def test_metrics_by_hand():
    """Class 3 is predicted and never labelled, class 4 does not occur at all."""
    matrix = ConfusionMatrix(5)
    label = [0] * 6 + [1] * 3 + [2] + [255] * 2
    matrix.update(np.array([0, 0, 0, 0, 1, 3] + [1, 1, 0] + [1] + [2, 4]), np.array(label))
    iou = [4 / 7, 2 / 5, 0, 0, 0]
    assert matrix.mean_accuracy == pytest.approx((4 / 6 + 2 / 3 + 0) / 3, rel=1e-14)
    assert matrix.frequency_weighted_iou == pytest.approx((6 * iou[0] + 3 * iou[1]) / 10, rel=1e-14)
    assert matrix.score == pytest.approx((sum(iou) / 5 + 6 / 10) / 2, rel=1e-14)


@pytest.mark.parametrize("pixels", [1, 2, 7, 1000])
def test_metrics_of_right_predictions_are_1(pixels):
    matrix = ConfusionMatrix(4)
    label = np.arange(3).repeat(pixels)
    matrix.update(label, label)
    assert matrix.mean_accuracy == matrix.frequency_weighted_iou == 1
    assert matrix.score == pytest.approx((3 / 4 + 1) / 2, rel=1e-14)


def test_metrics_without_labels_are_nan(recwarn):
    matrix = ConfusionMatrix(3)
    matrix.update(np.zeros((2, 2), int), np.full((2, 2), 255))
    assert np.isnan([matrix.mean_accuracy, matrix.frequency_weighted_iou]).all()
    assert not recwarn.list


def test_confusion_matrix_rejects():
    matrix = ConfusionMatrix(3)
    with pytest.raises(ValueError, match=r"label must have the prediction's shape \(2,\)"):
        matrix.update(np.zeros(2, int), np.zeros(3, int))
    with pytest.raises(ValueError, match=r"predictions must be 0..2, got 0..3"):
        matrix.update(np.array([0, 3]), np.array([0, 1]))
