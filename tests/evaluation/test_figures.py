"""The picture of a confusion matrix."""

import cv2
import numpy as np
import pytest

from pspnet_repro.evaluation import ConfusionMatrix
from pspnet_repro.evaluation.figures import confusion_png


@pytest.mark.parametrize("name", [r"$\frac$", "$$", "a" * 5000, r"\$_^{"])
def test_any_name_of_a_class_can_be_drawn(name):
    matrix = ConfusionMatrix(2)
    matrix.update(np.array([0, 1]), np.array([0, 1]))
    picture = cv2.imdecode(np.frombuffer(confusion_png(matrix, (name, "sea")), np.uint8),
                           cv2.IMREAD_COLOR)
    assert max(picture.shape) < 1000 and picture.min() < 100
