"""The test images on which one row gains and loses most over another, as in Figure 6."""

from pathlib import Path

from tqdm import tqdm

from pspnet_repro.data.labels import read_label
from pspnet_repro.data.pairs import read_pair
from pspnet_repro.errors import UserError
from pspnet_repro.evaluation.metrics import ConfusionMatrix
from pspnet_repro.evaluation.viewer import ViewerImage
from pspnet_repro.evaluation.viewer.encode import nearest, scaled, shrink

from ..experiment import Experiment
from ..rows import BASELINE, FULL, TABLES
from ..run_row import prediction_name
from .document import Block, Gallery, Heading, Pictures, Text
from .results import Results

PICTURES = 4  # of each kind
SIDE = 360  # pixels, of the longest picture
NAMES = {BASELINE: "baseline", FULL: "PSPNet"}
AUTHORS = TABLES["fidelity"][0].name


class _Tests:
    """The test images of an Experiment with the predictions of two tests, {name: folder}."""

    def __init__(self, folders: dict[str, Path], experiment: Experiment):
        self._folders, self._profile = folders, experiment.profile
        self._pairs = experiment.pairs("val")

    def _read(self, number):
        """Image (H, W, 3) BGR, label (H, W), predictions: {name: (H, W)}."""
        pair, count = self._pairs[number], len(self._profile.classes)
        image, label = read_pair(pair, count)
        predictions = {}
        for name, folder in self._folders.items():
            path = folder / "predictions" / prediction_name(number, pair)
            prediction = predictions[name] = read_label(path, count)
            if prediction.shape != label.shape:
                raise UserError(f"{path}: size {prediction.shape[0]}x{prediction.shape[1]} differs "
                                f"from {label.shape[0]}x{label.shape[1]} of {pair.label}")
            if prediction.max() >= count:
                raise UserError(f"{path}: predictions must be 0..{count - 1}, got "
                                f"{prediction.max()}")
        return image, label, predictions

    def accuracies(self, number: int) -> list[float] | None:
        """Pixel accuracy of both predictions in percent, or None for an image without labels."""
        _, label, predictions = self._read(number)
        accuracies = []
        for prediction in predictions.values():
            matrix = ConfusionMatrix(len(self._profile.classes))
            matrix.update(prediction, label)
            accuracies.append(100 * matrix.pixel_accuracy)
        return accuracies if matrix.counts.any() else None

    def picture(self, number: int, accuracies: list[float], iou: dict) -> ViewerImage:
        """Of at most SIDE pixels."""
        image, label, predictions = self._read(number)
        size, name = scaled(*label.shape, SIDE), self._pairs[number].image.name
        before, after = accuracies
        told = [f"{name} {value:.1f}" for name, value in zip(predictions, accuracies)]
        return ViewerImage(
            f"{name}, pixel accuracy: {', '.join(told)} ({after - before:+.1f})",
            shrink(image[:, :, ::-1], size),
            {name: nearest(prediction, size) for name, prediction in predictions.items()},
            nearest(label, size), iou=iou)


def compared_rows(results: Results) -> tuple[str, ...]:
    """The two rows that pictures compare: baseline and PSPNet; where one of them was not run, the
    row of the lowest mean IoU and that of the highest, or the authors' program; or ()."""
    if BASELINE in results and FULL in results:
        return BASELINE, FULL
    rows = sorted(results.runs, key=lambda name: results.runs[name][0]["mean_iou"])
    if len(rows) < 2:
        return ()
    if AUTHORS not in rows:
        return rows[0], rows[-1]
    return next(name for name in rows if name != AUTHORS), AUTHORS


def extremes(gains: dict[int, float]) -> tuple[list[int], list[int]]:
    """The numbers of the images with the largest gains, and with the largest losses, largest
    first; equal ones keep their order."""
    up, down = (sorted(gains, key=gains.get, reverse=most)[:PICTURES] for most in (True, False))
    return [n for n in up if gains[n] > 0], [n for n in down if gains[n] < 0]


def picture_blocks(results: Results, experiment: Experiment, progress: bool = True) -> list[Block]:
    """Pictures of the images that differ most; UserError where a file of them cannot be read."""
    heading, rows = Heading(2, "Pictures"), compared_rows(results)
    if not rows:
        return [heading, Text("Pictures compare two rows; fewer were run.")]
    before, after = names = [NAMES.get(row, row) for row in rows]
    tests = _Tests({name: results.folders[row][0] for name, row in zip(names, rows)}, experiment)
    numbers = range(len(experiment.pairs("val")))
    accuracies = {number: both for number in
                  tqdm(numbers, desc="pictures", unit="image", disable=not progress)
                  if (both := tests.accuracies(number))}
    gains = {number: after - before for number, (before, after) in accuracies.items()}
    iou = {name: results.runs[row][0]["iou"] for name, row in zip(names, rows)}
    galleries = tuple(
        Gallery(f"report-{kind}", title,
                tuple(tests.picture(number, accuracies[number], iou) for number in chosen))
        for kind, title, chosen in zip(
            ("gain", "loss"), (f"Largest gains of {after} over {before}",
                               f"Largest losses of {after} against {before}"), extremes(gains)))
    seed = results.runs[rows[1]][0]["seed"]
    return [heading, Text(
        f"{after} against {before}: more pixels are right on {sum(g > 0 for g in gains.values())} "
        f"of {len(gains)} test images, and fewer on {sum(g < 0 for g in gains.values())} (seed "
        f"{seed}). Shown are the images with the largest gains and losses in pixel accuracy. In "
        "report.html, point at a picture to read its classes; each IoU is that of the class over "
        "all test images."),
        Pictures(experiment.profile.names_and_colours, tuple(names), galleries)]
