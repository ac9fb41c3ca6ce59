"""The confusion matrix and its figures."""

import math

import numpy as np
import pytest
from helpers.golden import golden_files, read_golden

from pspnet_repro.evaluation import ConfusionMatrix
from pspnet_repro.evaluation.metrics import accuracy


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
