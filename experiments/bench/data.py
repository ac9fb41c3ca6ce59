"""Times the loader of a training: photographs a second that one core reads and augments."""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from pspnet_repro.data.augment import Augmentation
from pspnet_repro.data.pairs import Pair
from pspnet_repro.data.training_sequence import TrainingSequence
from pspnet_repro.errors import check_printed, command

from ..provenance import provenance

SIZE = 512, 683  # of a typical photograph of ADE20K
CLASSES = 150


def draw(folder: Path, count: int) -> list[Pair]:
    """Pairs of a JPEG of noise in four octaves, and a label file of 12 x 16 patches."""
    rng, pairs = np.random.default_rng(0), []
    for k in range(count):
        image = sum(cv2.resize(rng.uniform(0, 2 * step, (SIZE[0] // step, SIZE[1] // step, 3)),
                               SIZE[::-1], interpolation=cv2.INTER_CUBIC)
                    for step in (4, 16, 32, 64))
        label = cv2.resize(rng.integers(0, CLASSES, (12, 16), np.uint8), SIZE[::-1],
                           interpolation=cv2.INTER_NEAREST)
        pairs.append(Pair(folder / f"{k}.jpg", folder / f"{k}.png"))
        for path, pixels in zip((pairs[k].image, pairs[k].label), (image.clip(0, 255), label)):
            cv2.imwrite(str(path), pixels.astype(np.uint8))
    return pairs


def times(pairs: Sequence[Pair], crop: int, runs: int) -> list[float]:
    """Seconds of processor time of each of the first `runs` samples, all augmentation on.

    One thread makes them: so other work on the machine counts as far as it empties the caches.
    """
    cv2.setNumThreads(0)
    sequence = TrainingSequence(pairs, CLASSES, crop, Augmentation(), seed=0)
    marks = []
    for position in tqdm(range(runs + 1), leave=False):
        sequence[position]
        marks.append(time.process_time())
    return np.diff(marks).tolist()


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200, help="photographs that are read")
    parser.add_argument("--crop", type=int, default=473)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measured = times(draw(Path(folder), 8), args.crop, args.runs)
    low, median, high = (1e3 * value for value in statistics.quantiles(measured, n=4))
    print(f"loader: {len(measured) / sum(measured):.0f} images/s a core of {SIZE[1]} x {SIZE[0]} "
          f"JPEG, crop {args.crop}, all augmentation; {median:.1f} ms of processor time an image "
          f"(quartiles {low:.1f} .. {high:.1f}); {provenance()['processor']}")
    check_printed()


if __name__ == "__main__":
    sys.exit(main())
