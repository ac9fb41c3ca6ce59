"""Mean IoU and pixel accuracy as the authors' script counts them."""

import math

import numpy as np

from pspnet_repro.data.conventions import strips

_EPS = np.finfo(np.float64).eps


def class_iou(intersection: np.ndarray, union: np.ndarray) -> np.ndarray:
    """IoU of each class from (..., classes) pixels; 0 for a class that never occurs."""
    return intersection / (_EPS + union)


def accuracy(intersection: np.ndarray, labelled: np.ndarray) -> np.ndarray:
    """Pixel accuracy from (..., classes) pixels predicted rightly and (...) labelled pixels; NaN
    where no pixel is labelled."""
    labelled = np.asarray(labelled)
    return np.divide(intersection.sum(-1), labelled, out=np.full(labelled.shape, np.nan),
                     where=labelled > 0)


class ConfusionMatrix:
    """Counts of (label, prediction) pairs over images.

    Labels from `classes` on (255, and 254, which the script's 8-bit arithmetic treats alike) are
    unlabelled: their pixels count nowhere. IoU = intersection / (eps + union), and the mean is
    over all classes: one that never occurs counts 0.

    Source: intersectionAndUnion and the evaluation script.
    """

    def __init__(self, classes: int):
        self.classes = classes
        self.counts = np.zeros((classes, classes), np.int64)

    def update(self, pred: np.ndarray, label: np.ndarray) -> None:
        """Count one image: integer arrays of the same shape, 0..classes-1; other labels are
        skipped.

        Raises ValueError where shapes differ or a prediction is no class.
        """
        pred, label = np.asarray(pred), np.asarray(label)
        if pred.shape != label.shape:
            raise ValueError(f"label must have the prediction's shape {pred.shape}, got "
                             f"{label.shape}")
        pred, label = pred.reshape(-1), label.reshape(-1)
        for part in strips(len(pred)):
            self.counts += self._counts(pred[part], label[part])

    def _counts(self, pred, label):
        labelled = (label >= 0) & (label < self.classes)
        pred = pred[labelled].astype(np.int64)
        if pred.size and not 0 <= pred.min() <= pred.max() < self.classes:
            raise ValueError(f"predictions must be 0..{self.classes - 1}, got "
                             f"{pred.min()}..{pred.max()}")
        index = label[labelled].astype(np.int64) * self.classes + pred
        return np.bincount(index, minlength=self.classes ** 2).reshape(self.counts.shape)

    @property
    def intersection(self) -> np.ndarray:
        """(classes,) pixels predicted rightly."""
        return np.diag(self.counts)

    @property
    def union(self) -> np.ndarray:
        """(classes,) labelled pixels that have or got the class."""
        return self.counts.sum(0) + self.counts.sum(1) - self.intersection

    @property
    def iou(self) -> np.ndarray:
        """(classes,) in 0..1."""
        return class_iou(self.intersection, self.union)

    @property
    def mean_iou(self) -> float:
        """Mean of `iou` over all classes."""
        return float(self.iou.mean())

    @property
    def pixel_accuracy(self) -> float:
        """Share of labelled pixels that are right; NaN without labels."""
        return float(accuracy(self.intersection, self.counts.sum()))

    @property
    def mean_accuracy(self) -> float:
        """Mean over the classes that occur in the labels of the share of a class's pixels that are
        right; NaN without labels.

        Source: Long, Shelhamer, Darrell 2015, section 5 (mean accuracy).
        """
        intersection, _, labelled = self._occurring()
        return float((intersection / labelled).mean()) if labelled.size else math.nan

    @property
    def frequency_weighted_iou(self) -> float:
        """Mean of the classes' IoU, weighted by their share of the labelled pixels; NaN without
        labels.

        Source: Long, Shelhamer, Darrell 2015, section 5 (frequency weighted IU).
        """
        # A class that occurs has a union, so the script's eps, which keeps 1 from being reached,
        # is not needed.
        intersection, union, labelled = self._occurring()
        return (float((labelled * (intersection / union)).sum() / labelled.sum())
                if labelled.size else math.nan)

    def _occurring(self):
        """Intersection, union and labelled pixels of the classes that occur in the labels."""
        labelled = self.counts.sum(1)
        return [pixels[labelled > 0] for pixels in (self.intersection, self.union, labelled)]

    @property
    def score(self) -> float:
        """(mean IoU + pixel accuracy) / 2, the challenge's final score (paper, Table 5)."""
        return (self.mean_iou + self.pixel_accuracy) / 2

    @property
    def figures(self) -> dict[str, float | None]:
        """All figures but those of single classes, by name, for a JSON file: None for NaN."""
        figures = {name: getattr(self, name) for name in (
            "mean_iou", "pixel_accuracy", "mean_accuracy", "frequency_weighted_iou", "score")}
        return {name: None if math.isnan(figure) else figure for name, figure in figures.items()}
