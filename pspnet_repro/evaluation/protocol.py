"""The settings of a test, and which pixels its windows cover."""

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from pspnet_repro.defaults import MULTI_SCALE, PADDINGS
from pspnet_repro.words import check_choice

__all__ = ["MULTI_SCALE", "PRESETS", "Protocol", "preset"]

# What the programs that tests follow do otherwise than the authors' scripts.
PRESETS = {
    "caffe": {},
    "semseg": {"plus_one": False, "rounding": "python", "resize": "opencv", "padding": "centre",
               "merge": "probabilities"}}


@dataclass(frozen=True)
class Protocol:
    """How photographs are tested; the defaults are the authors' scripts.

    The fields from `align_corners` on are what ports do differently, each a switch of its own, so
    that its cost can be measured.

    Attributes:
        base_size: pixels; the long side of an image at scale s is base_size * s + 1.
        crop_size: side of the windows in pixels.
        scales: factors of the base size whose probabilities are averaged; see MULTI_SCALE.
        flip: also the mirror image.
        align_corners: logits grow as the network's settings say, by default with corner pixels on
            corner pixels; False: half-pixel centres (needs a network with `.logits`).
        antialias: both resizes filter where they shrink ("matlab").
        merge: "logits": those of an image and its mirror image are summed before softmax;
            "probabilities": averaged after it.
        plus_one: the + 1 of the long side.
        padding: where the border of an image smaller than the crop lies: "end" (right and bottom)
            or "centre" (on all sides).
        whole_image: one pass over the whole image, its sides padded to 8k + 1 and at least 41
            pixels, without windows.
        stride: of the windows in pixels; None: two thirds of the crop, rounded up.
        resize: "matlab": imresize, whose images are rounded to 8 bits and whose probabilities are
            renormalized; "opencv": cv2's bilinear resize in float32, without either; then the
            border of a window is the network's mean, not rounded.
        rounding: of an image's short side: "matlab", half away from zero of a float32, or "python",
            half to even of a double.
    Raises:
        ValueError: a field out of range.

    Source: the evaluation scripts of the release.
    """

    base_size: int
    crop_size: int
    scales: tuple[float, ...] = (1.0,)
    flip: bool = True
    align_corners: bool = True
    antialias: bool = True
    merge: str = "logits"
    plus_one: bool = True
    padding: str = "end"
    whole_image: bool = False
    stride: int | None = None
    resize: str = "matlab"
    rounding: str = "matlab"

    def __post_init__(self):
        object.__setattr__(self, "scales", tuple(float(scale) for scale in self.scales))
        if self.base_size < 1 or self.crop_size < 1 or not self.scales or min(self.scales) <= 0:
            raise ValueError(f"base_size, crop_size and scales must be positive, got "
                             f"{self.base_size}, {self.crop_size}, {self.scales}")
        check_choice("merge", self.merge, ("logits", "probabilities"))
        check_choice("padding", self.padding, PADDINGS)
        check_choice("resize", self.resize, ("matlab", "opencv"))
        check_choice("rounding", self.rounding, ("matlab", "python"))
        if self.stride is not None and not 1 <= self.stride <= self.crop_size:
            raise ValueError(f"stride must be 1 to crop_size {self.crop_size}, got {self.stride}")

    @property
    def name(self) -> str:
        """The preset of these switches, and those that differ: "semseg", "caffe, padding centre".
        """
        ours = {f.name: getattr(self, f.name) for f in fields(self) if f.name in _SWITCHES}
        others = {name: {**_SWITCHES, **switches} for name, switches in PRESETS.items()}
        nearest = min(others, key=lambda name: sum(
            others[name][field] != value for field, value in ours.items()))
        return ", ".join([nearest, *(f"{field} {value}" for field, value in ours.items()
                                     if others[nearest][field] != value)])

    def facts(self) -> dict:
        """The fields as plain data. Those that later versions added are left out where they are as
        in Caffe: records of tests stay as they were."""
        return {name: value for name, value in asdict(self).items()
                if name not in ("resize", "rounding") or value != _SWITCHES[name]}

    def scaled_size(self, height: int, width: int, scale: float) -> tuple[int, int]:
        """(rows, columns) of an image at one scale.

        The short side is computed in float32 and rounded half away from zero, as in the script, or
        as Python does it.
        """
        if self.rounding == "python":
            long_side = max(1, round(self.base_size * scale) + self.plus_one)
            sides = long_side / max(height, width) * np.array([height, width], float)
            return tuple(max(1, round(side)) for side in sides.tolist())
        long_side = max(1, math.floor(self.base_size * scale + self.plus_one + 0.5))
        longest, shortest = max(height, width), min(height, width)
        ratio = np.float32(long_side) / np.float32(longest)
        short_side = max(1, int(np.floor(ratio * np.float32(shortest) + np.float32(0.5))))
        if height == width:
            return long_side, long_side
        return (long_side, short_side) if height > width else (short_side, long_side)

    def fits(self, rows: int, cols: int) -> bool:
        """Whether a scaled image goes through the network in one pass."""
        return self.whole_image or max(rows, cols) <= self.crop_size

    def window_size(self, rows: int, cols: int, step: int = 8) -> tuple[int, int]:
        """(rows, columns) of the windows over a scaled image; `step`: the network's stride."""
        if not self.whole_image:
            return self.crop_size, self.crop_size
        # On fewer features than 6 the pyramid's bins would be empty.
        return tuple(step * max(math.ceil((size - 1) / step), 5) + 1 for size in (rows, cols))

    def window_starts(self, size: int, window: int) -> list[int]:
        """First pixels of the windows over one axis of the image, negative in its border.

        The last window is pulled back to the border.
        """
        if size <= window:
            return [-((window - size) // 2) if self.padding == "centre" else 0]
        stride = self.stride or math.ceil(self.crop_size * 2 / 3)
        count = math.ceil((size - window) / stride) + 1
        return [min(i * stride, size - window) for i in range(count)]


_SWITCHES = {f.name: f.default for f in fields(Protocol) if f.name not in (
    "base_size", "crop_size", "scales", "flip")}


def preset(name: str, base_size: int, crop_size: int, **others: Any) -> Protocol:
    """The Protocol of a name of PRESETS, with further fields. Raises ValueError as Protocol does,
    and for another name."""
    if name not in PRESETS:
        raise ValueError(f"protocol must be one of {', '.join(PRESETS)}, got {name!r}")
    return Protocol(base_size, crop_size, **{**PRESETS[name], **others})
