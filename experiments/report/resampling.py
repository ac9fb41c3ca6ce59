"""How far a test's figures move when other images like its own are drawn: a paired bootstrap."""

import functools
from pathlib import Path

import numpy as np

from pspnet_repro.errors import UserError
from pspnet_repro.evaluation.metrics import ConfusionMatrix, accuracy, class_iou
from pspnet_repro.evaluation.record import read_counts

DRAWS, SHARE = 2000, 95


@functools.lru_cache(maxsize=4)
def _times(images, blocks, size):
    """(DRAWS, images): how often a draw takes each image; the same for all tests of as many
    images, so that their differences are those of the same draws. Drawn with replacement are so
    many blocks of `size` neighbours, any image the first of one; behind the last image comes the
    first."""
    firsts = np.random.default_rng(0).multinomial(
        blocks, np.full(images, 1 / images), size=DRAWS)
    return sum(np.roll(firsts, place, axis=1) for place in range(size))


def how_drawn(block: int) -> str:
    """How test images are drawn anew, in words; block as in drawn_figures."""
    return "with replacement" + f", in blocks of {block} neighbours" * (block > 1)


def drawn_figures(folder: Path, result: dict, block: int) -> dict[str, np.ndarray]:
    """Figures of a test in each draw of its images.

    Args:
        folder: of the test.
        result: its result.json.
        block: how many neighbours in the list are drawn together, because they look alike: drawn
            singly, images that repeat each other would make a figure look surer than it is.
    Returns:
        {metric: (DRAWS,) in percent}; the mean IoU of a draw is without classes that none of its
        labels has, though other images' have (those that no image has count 0, as ever). A draw
        without a labelled pixel has NaN in both. Empty where the folder has no counts.jsonl, or
        images for fewer than two blocks.
    Raises:
        UserError: the file is damaged, or its images do not add up to the result's figures.
    """
    path, classes = folder / "counts.jsonl", len(result["iou"])
    if not path.exists():
        return {}
    parts, total = [], ConfusionMatrix(classes)
    for counts in read_counts(folder, classes):
        image = ConfusionMatrix(classes)
        image.counts += counts
        parts.append((image.intersection, image.union, counts.sum(1)))
        total.counts += counts
    told = [result["mean_iou"], result["pixel_accuracy"], *result["iou"].values()]
    if (total.counts.tolist() != result.get("confusion")
            or not np.allclose(told, [total.mean_iou, total.pixel_accuracy, *total.iou])):
        raise UserError(f"{path}: does not add up to the figures of result.json; remove the folder "
                        "to test the row again")
    blocks = round(len(parts) / block)
    if blocks < 2:
        return {}
    times = _times(len(parts), blocks, block)
    intersection, union, labelled = (times @ np.array(part) for part in zip(*parts))
    # By labels alone: they are the same for all rows.
    counted = (labelled > 0) | (total.counts.sum(1) == 0)
    accuracies = accuracy(intersection, labelled.sum(-1))
    means = class_iou(intersection, union).sum(-1) / np.maximum(counted.sum(-1), 1)
    return {"mean_iou": 100 * np.where(np.isnan(accuracies), np.nan, means),
            "pixel_accuracy": 100 * accuracies}


def interval(draws: np.ndarray) -> tuple[float, float]:
    """(low, high): the middle SHARE percent of the draws, (DRAWS,), that have a labelled pixel."""
    rest = (100 - SHARE) / 2
    low, high = np.nanpercentile(draws, (rest, 100 - rest))
    return float(low), float(high)
