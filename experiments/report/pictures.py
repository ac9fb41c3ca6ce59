"""The validation images on which the full row gains and loses most, as in Figure 6."""

import cv2
import numpy as np
from tqdm import tqdm

from .document import Gallery, Heading, Strip, Text
from ..rows import BASELINE, FULL
from ..run_row import prediction_name
from ..runs import labelled_pairs
from pspnet_repro.data.labels import read_label
from pspnet_repro.data.pairs import read_pair
from pspnet_repro.errors import UserError
from pspnet_repro.evaluation.metrics import ConfusionMatrix
from pspnet_repro.visualize import UNLABELLED_RGB, colourize

PICTURES = 4
WIDTH = 360  # pixels, of the widest picture
SIDES = ("baseline", "PSPNet")


class _Pictures:
    """The validation images of a profile with the predictions of two tests."""

    def __init__(self, folders, profile, data):
        self._folders, self._profile = folders, profile
        self._pairs = labelled_pairs(profile, data, "val")

    def __len__(self):
        return len(self._pairs)

    def name(self, number):
        return self._pairs[number].image.name

    def read(self, number):
        """Image (H, W, 3) BGR, label (H, W), predictions: (H, W) each."""
        pair, count = self._pairs[number], len(self._profile.classes)
        image, label = read_pair(pair, count, self._profile.zero_is_void)
        paths = [folder / "predictions" / prediction_name(number, pair)
                 for folder in self._folders]
        predictions = [read_label(path, count) for path in paths]
        for path, prediction in zip(paths, predictions):
            if prediction.shape != label.shape:
                raise UserError(f"{path}: size {prediction.shape[0]}x{prediction.shape[1]} differs "
                                f"from {label.shape[0]}x{label.shape[1]} of {pair.label}")
            if prediction.max() >= count:
                raise UserError(f"{path}: predictions must be 0..{count - 1}, got "
                                f"{prediction.max()}")
        return image, label, predictions

    def accuracies(self, number):
        """Pixel accuracy of both predictions in percent, or None for an image without labels."""
        _, label, predictions = self.read(number)
        accuracies = []
        for prediction in predictions:
            matrix = ConfusionMatrix(len(self._profile.classes))
            matrix.update(prediction, label)
            accuracies.append(100 * matrix.pixel_accuracy)
        return accuracies if matrix.counts.any() else None

    def strip(self, number, accuracies):
        image, label, predictions = self.read(number)
        maps = (label, *predictions)
        counts = np.bincount(np.concatenate([m.ravel() for m in maps]), minlength=256)
        names, palette = self._profile.classes, self._profile.palette_rgb
        present = np.argsort(-counts[:len(names)], kind="stable")
        legend = [(names[k], tuple(palette[k])) for k in present if counts[k]]
        if counts[len(names):].any():
            legend.append(("unlabelled", UNLABELLED_RGB))
        base, full = accuracies
        return Strip(
            f"{self.name(number)}: pixel accuracy {base:.1f} to {full:.1f} ({full - base:+.1f})",
            ("image", "truth", *(f"{side} {accuracy:.1f}"
                                 for side, accuracy in zip(SIDES, accuracies))),
            (_shrunk(image[:, :, ::-1], cv2.INTER_AREA),
             *(colourize(_shrunk(m, cv2.INTER_NEAREST), palette) for m in maps)), tuple(legend))


def _shrunk(pixels, interpolation):
    height, width = pixels.shape[:2]
    if width <= WIDTH:
        return pixels
    size = WIDTH, max(1, round(height * WIDTH / width))
    return cv2.resize(pixels, size, interpolation=interpolation)


def extremes(gains):
    """The numbers of the largest gains, and those of the largest losses, largest first.

    Args:
        gains: {number of an image: points}; equal ones keep their order.
    """
    order = sorted(gains, key=lambda number: -gains[number])
    up = [number for number in order[:PICTURES] if gains[number] > 0]
    order = sorted(gains, key=lambda number: gains[number])
    return up, [number for number in order[:PICTURES] if gains[number] < 0]


def picture_blocks(results, profile, data, progress=True):
    """Rows of pictures as parts of a report.

    Args:
        results: Results.
        profile: Profile.
        data: folder of the data set.
        progress: show a progress bar.
    Raises:
        UserError: an image, label or prediction cannot be read.
    """
    heading = Heading(2, "Pictures: largest gains and losses")
    if BASELINE not in results or FULL not in results:
        return [heading, Text(f"Pictures need the rows {BASELINE} and {FULL}; not both were run.")]
    pictures = _Pictures([results.folders[name][0] for name in (BASELINE, FULL)], profile, data)
    accuracies = {number: found for number in
                  tqdm(range(len(pictures)), desc="pictures", unit="image", disable=not progress)
                  if (found := pictures.accuracies(number))}
    gains = {number: full - base for number, (base, full) in accuracies.items()}
    blocks = [heading, Text(
        f"Of {len(gains)} validation images PSPNet gains on {sum(g > 0 for g in gains.values())} "
        f"over the baseline and loses on {sum(g < 0 for g in gains.values())}, by the pixel "
        f"accuracy of each image (percent, seed {results.runs[FULL][0]['seed']}). Shown are those "
        "with the largest gain and the largest loss.")]
    for kind, chosen in zip(("gain", "loss"), extremes(gains)):
        blocks.append(Heading(3, f"Largest {kind}"))
        blocks.append(Gallery(
            f"report-{kind}", f"Image, truth, baseline and PSPNet where PSPNet's {kind} is largest",
            tuple(pictures.strip(number, accuracies[number]) for number in chosen))
            if chosen else Text(f"There is no image with a {kind}."))
    return blocks
