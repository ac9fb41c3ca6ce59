"""The scores of an exported file against the network's, before the file gets its name."""

from typing import NamedTuple

import numpy as np
import torch

from pspnet_repro.errors import UserError
from pspnet_repro.model.pspnet import PSPNet

TOLERANCE = 1e-5  # of the largest score
_IMAGES = 2


class Check(NamedTuple):
    """How far an exported file's scores are from this program's.

    Attributes:
        program: name and version of the program that ran the file.
        largest_error: of any score, divided by the largest score.
        images: drawn images that were compared, in one batch.
        pixels: of all of them.
        other_argmax: pixels with another argmax; their two best scores are equal but for rounding.
    """

    program: str
    largest_error: float
    images: int
    pixels: int
    other_argmax: int

    def __str__(self) -> str:
        return (f"{self.program}: scores differ by at most {self.largest_error:.1e} of the "
                f"largest, argmax on {self.other_argmax} of {self.pixels} pixels")


def drawn_images(size: int) -> np.ndarray:
    """(images, size, size, 3) uint8, coarse colours and fine noise, always the same."""
    random, side = np.random.RandomState(0), -(-size // 8)
    images = []
    for _ in range(_IMAGES):
        coarse = random.randint(0, 200, (side, side, 3)).repeat(8, 0).repeat(8, 1)
        images.append(coarse[:size, :size] + random.randint(0, 56, (size, size, 3)))
    return np.array(images, np.uint8)


def drawn_input(net: PSPNet, size: int) -> torch.Tensor:
    """(images, 3, size, size) float32, what the network makes of `drawn_images`."""
    return torch.cat([net.prepare(image) for image in drawn_images(size)])


def compare(program: str, scores: torch.Tensor, wanted: torch.Tensor) -> Check:
    """The Check of scores (images, classes, H, W) that a program computed.

    Raises:
        UserError: a score is further off than TOLERANCE, or a pixel has another argmax though its
            best score is clearly the best.
    """
    largest = wanted.abs().max().item()
    error = ((scores - wanted).abs().max() / largest).item() if largest else 0.0
    others = scores.argmax(1) != wanted.argmax(1)
    best = wanted.topk(min(2, wanted.shape[1]), 1).values
    tied = best[:, 0] - best[:, -1] <= 2 * TOLERANCE * largest
    check = Check(program, error, len(scores), others.numel(), int(others.sum()))
    # A NaN is no error that is small enough.
    if not error <= TOLERANCE or (others & ~tied).any():
        raise UserError(
            f"the exported file's scores in {program} differ from the network's by {error:.1e} of "
            f"the largest, {check.other_argmax} of {check.pixels} pixels have another argmax; at "
            f"most {TOLERANCE:g} is allowed, so nothing is written: try another --crop-size or "
            "another version of that program")
    return check
