"""Testing a network on a data set."""

from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from pspnet_repro.checkpoint import write_bytes
from pspnet_repro.data.lists import check_classes, read_pair
from pspnet_repro.distributed import Processes
from pspnet_repro.evaluation.metrics import ConfusionMatrix
from pspnet_repro.evaluation.sliding import predict_probabilities


def prediction_name(number, pair):
    """File name of the label map of pair `number` of a list: unique, and ends as the image's."""
    return f"{number:05d}-{pair.image.stem}.png"


def evaluate(net, pairs, *, classes, base_size, crop_size, scales=(1.0,), flip=True,
             zero_is_void=False, predictions=None, progress=True, processes=Processes()):
    """Confusion matrix of a network over image and label files.

    Args:
        net, classes, base_size, crop_size, scales, flip: see predict_probabilities.
        pairs: list of data.lists.Pair.
        zero_is_void: see data.lists.read_label.
        predictions: folder for the predicted label maps as PNG, see prediction_name; or None.
        progress: show a progress bar.
        processes: each tests its share; see distributed.join.
    Returns:
        ConfusionMatrix over all images, the same in every process.
    Raises:
        UserError: an image or label could not be used.
    """
    check_classes(classes)
    matrix = ConfusionMatrix(classes)
    share = processes.shard(list(enumerate(pairs)))
    for number, pair in tqdm(share, desc="test", unit="image",
                             disable=not (progress and processes.first)):
        image, label = read_pair(pair, classes, zero_is_void)
        probabilities = predict_probabilities(
            net, image[:, :, ::-1], classes=classes, base_size=base_size, crop_size=crop_size,
            scales=scales, flip=flip)
        predicted = probabilities.argmax(2).astype(np.uint8)
        matrix.update(predicted, label)
        if predictions is not None:
            data = cv2.imencode(".png", predicted)[1].tobytes()
            write_bytes(Path(predictions) / prediction_name(number, pair), data)
    processes.sum_array(matrix.counts)
    return matrix
