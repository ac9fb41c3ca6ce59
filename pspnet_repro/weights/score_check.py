"""The scores of an exported file against the network's, before the file gets its name."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch

from pspnet_repro.errors import UserError
from pspnet_repro.model.pspnet import PSPNet

TOLERANCE = 1e-5  # of the largest score
TIE = 1e-6  # two scores this near each other either rounding may put first
_IMAGES = 2


class Check(NamedTuple):
    """How far an exported file's scores are from this program's."""

    program: str  # name and version of the program that ran the file
    largest_error: float  # of any score, divided by the largest score
    sizes: tuple  # (height, width) of the drawn images, _IMAGES of each in one batch
    pixels: int  # of all of them
    other_argmax: int  # pixels with another argmax, whose two best scores differ by TIE at most

    def __str__(self) -> str:
        sizes = ", ".join(f"{height}x{width}" for height, width in self.sizes)
        return (f"{self.program}: scores of images of {sizes} differ by at most "
                f"{self.largest_error:.1e} of the largest, argmax on {self.other_argmax} of "
                f"{self.pixels} pixels")


def checked_sizes(net: PSPNet, crop_size: int, dynamic: bool) -> list[tuple[int, int]]:
    """(height, width) of the images that a file of a crop is checked with; of one for any size also
    a flat image, whose map the bins need not divide. Raises UserError for a crop that the network
    does not allow."""
    try:
        net.check_crop(crop_size)
    except ValueError as error:
        raise UserError(str(error)) from error
    map_size = (crop_size - 1) // net.stride + 1
    less = max(map_size * 3 // 4, *net.pyramid.bins, 1)
    height = net.stride * (less - 1) + 1 + net.stride // 2 * net.any_size
    return [(crop_size, crop_size), *[(height, crop_size)] * dynamic]


def drawn_images(height: int, width: int) -> np.ndarray:
    """(images, height, width, 3) uint8, coarse colours and fine noise, always the same."""
    random, size = np.random.RandomState(0), (height, width, 3)
    images = []
    for _ in range(_IMAGES):
        coarse = random.randint(0, 200, (-(-height // 8), -(-width // 8), 3))
        coarse = coarse.repeat(8, 0).repeat(8, 1)[:height, :width]
        images.append(coarse + random.randint(0, 56, size))
    return np.array(images, np.uint8)


class ScoreCheck:
    """A comparison of a file's scores with the network's, which are computed at once, so that the
    network can go; with `logits`, of scores before the last upsampling.

    `sizes` are (height, width) of the images.
    """

    def __init__(self, net: PSPNet, sizes: Sequence[tuple[int, int]], logits: bool = False) -> None:
        self.sizes = sizes
        self.inputs = [torch.cat(list(map(net.prepare, drawn_images(*size)))) for size in sizes]
        with torch.inference_mode():
            self.wanted = [net.logits(x) if logits else net(x) for x in self.inputs]

    @torch.inference_mode()
    def __call__(self, program: str,
                 run: Callable[[np.ndarray, torch.Tensor], torch.Tensor]) -> Check:
        """The Check of a program; run: (`drawn_images`, the network's input) -> its scores. Raises
        UserError as `compare`."""
        checks = [compare(program, run(drawn_images(*size), x), wanted)
                  for size, x, wanted in zip(self.sizes, self.inputs, self.wanted)]
        return Check(program, max(check.largest_error for check in checks), tuple(self.sizes),
                     sum(check.pixels for check in checks),
                     sum(check.other_argmax for check in checks))


def compare(program: str, scores: torch.Tensor, wanted: torch.Tensor) -> Check:
    """The Check of scores (images, classes, H, W) that a program computed.

    Raises:
        UserError: a score is further off than TOLERANCE, or a pixel has another argmax though its
            two best scores differ by more than TIE.
    """
    largest = wanted.abs().max().item()
    error = ((scores - wanted).abs().max() / largest).item() if largest else 0.0
    others = scores.argmax(1) != wanted.argmax(1)
    best = wanted.topk(min(2, wanted.shape[1]), 1).values
    tied = best[:, 0] - best[:, -1] <= TIE * largest
    check = Check(program, error, (tuple(wanted.shape[2:]),), others.numel(), int(others.sum()))
    # A NaN is no error that is small enough.
    if not error <= TOLERANCE or (others & ~tied).any():
        raise UserError(
            f"the exported file's scores in {program} differ from the network's by {error:.1e} of "
            f"the largest, {check.other_argmax} of {check.pixels} pixels have another argmax; at "
            f"most {TOLERANCE:g} is allowed, so nothing is written: try another --crop-size or "
            "another version of that program")
    return check
