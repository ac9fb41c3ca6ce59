"""Testing a network on a data set."""

from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from pspnet_repro.checkpoint import write_atomically
from pspnet_repro.data.lists import read_pair
from pspnet_repro.evaluation.metrics import ConfusionMatrix
from pspnet_repro.evaluation.sliding import predict_probabilities


def evaluate(net, pairs, *, classes, base_size, crop_size, scales=(1.0,), flip=True,
             zero_is_void=False, predictions=None, progress=True):
    """Confusion matrix of a network over image and label files.

    Args:
        net, classes, base_size, crop_size, scales, flip: see predict_probabilities.
        pairs: list of data.lists.Pair.
        zero_is_void: see data.lists.read_label.
        predictions: folder for the predicted label maps, named as the images, as PNG; or None.
        progress: show a progress bar.
    Returns:
        ConfusionMatrix.
    Raises:
        UserError: an image or label could not be used.
    """
    matrix = ConfusionMatrix(classes)
    for pair in tqdm(pairs, desc="test", unit="image", disable=not progress):
        image, label = read_pair(pair, classes, zero_is_void)
        probabilities = predict_probabilities(
            net, image[:, :, ::-1], classes=classes, base_size=base_size, crop_size=crop_size,
            scales=scales, flip=flip)
        predicted = probabilities.argmax(2).astype(np.uint8)
        matrix.update(predicted, label)
        if predictions is not None:
            data = cv2.imencode(".png", predicted)[1].tobytes()
            write_atomically(Path(predictions) / f"{pair.image.stem}.png",
                             lambda file, data=data: file.write(data))
    return matrix
