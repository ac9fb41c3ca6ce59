"""Training augmentation: resize, rotation, blur, crop, mirror (paper, 5.1)."""

from dataclasses import dataclass

import cv2
import numpy as np

from pspnet_repro.data.conventions import IGNORE_INDEX
from pspnet_repro.defaults import PADDINGS
from pspnet_repro.model import image_input as image_inputs


@dataclass(frozen=True)
class Augmentation:
    """What is drawn for each image; each field can be switched off on its own.

    The probabilities and the 5x5 kernel are open in the paper and taken from the authors' later
    PyTorch program; the mirror comes last, as in their Caffe programs.
    """

    scales: tuple[float, float] | None = (0.5, 2.0)  # of the uniform resize factor; None: no resize
    rotation: float = 10.0  # degrees; uniform in +-rotation for half of the images
    blur: bool = True  # Gaussian blur 5x5 for half of the images
    mirror: bool = True  # left-right flip for half of the crops
    # Where the border of an image smaller than the crop lies: "end" (right and bottom, as in both
    # of the authors' Caffe programs and in their test) or "centre" (on all sides, as in their later
    # program, whose test pads so too).
    padding: str = "end"

    def __post_init__(self):
        if self.padding not in PADDINGS:
            raise ValueError(f"padding must be one of {', '.join(PADDINGS)}, got {self.padding!r}")


_BLUR = 5  # pixels a side of the kernel
NO_AUGMENTATION = Augmentation(scales=None, rotation=0.0, blur=False, mirror=False)


def augment(image: np.ndarray, label: np.ndarray, crop_size: int, augmentation: Augmentation,
            rng: np.random.Generator, image_input: image_inputs.ImageInput = image_inputs.CAFFE,
            ) -> tuple[np.ndarray, np.ndarray]:
    """One training sample of a (H, W, 3) uint8 BGR image and its (H, W) uint8 label.

    From `rng` as many numbers are drawn for every image and setting.

    Returns:
        (3, crop_size, crop_size) float32, see PSPNet.prepare, and (crop_size, crop_size) uint8.
        Borders have the mean colour (0 after subtraction) and label 255.
    """
    scale, turn, angle, blur, mirror, top, left = rng.random(7)
    low, high = augmentation.scales or (1.0, 1.0)
    factor = low + (high - low) * scale
    sizes = [max(1, round(side * factor)) for side in label.shape]
    crop = [_window(int(at * (max(size - crop_size, 0) + 1)), crop_size, size)
            for at, size in zip((top, left), sizes)]
    blurs = augmentation.blur and blur < 0.5
    # Only what the crop shows is made; its blur reaches a little further.
    reach = _BLUR // 2 if blurs else 0
    seen = [_window(part.start - reach, part.stop - part.start + 2 * reach, size)
            for part, size in zip(crop, sizes)]
    source, places = seen, None
    if augmentation.rotation and turn < 0.5:
        source, places = _turned(sizes, (2 * angle - 1) * augmentation.rotation, seen)

    def shown(plane, interpolation, border):
        plane = _resize(plane, factor, source, interpolation)
        return plane if places is None else cv2.remap(
            plane, *places, interpolation, borderMode=cv2.BORDER_CONSTANT, borderValue=border)

    # One channel at a time: OpenCV turns three together at a fifth of the speed.
    planes = [shown(plane, cv2.INTER_LINEAR, mean) for plane, mean
              in zip(cv2.split(image), image_input.mean_rgb[::-1].tolist())]
    if blurs:
        planes = [cv2.GaussianBlur(plane, (_BLUR, _BLUR), 0) for plane in planes]
    inside = tuple(slice(part.start - outer.start, part.stop - outer.start)
                   for part, outer in zip(crop, seen))
    image = np.zeros((3, crop_size, crop_size), np.float32)
    target = np.full((crop_size, crop_size), IGNORE_INDEX, np.uint8)
    centre = augmentation.padding == "centre"
    rows, columns = (_window((crop_size - size) // 2 * centre, size, crop_size)
                     for size in (part.stop - part.start for part in crop))
    step = -1 if augmentation.mirror and mirror < 0.5 else 1
    rgb = np.stack([plane[inside] for plane in reversed(planes)]).transpose(1, 2, 0)
    image[..., ::step][:, rows, columns] = image_input(rgb).transpose(2, 0, 1)
    target[:, ::step][rows, columns] = shown(label, cv2.INTER_NEAREST, IGNORE_INDEX)[inside]
    return image, target


def _window(start, length, size):
    """What of a window lies within an axis of `size` pixels, as a slice; at least one pixel."""
    first = min(max(start, 0), size - 1)
    return slice(first, max(min(start + length, size), first + 1))


def _turned(sizes, degrees, window):
    """What a window of a turned image shows: a window of the image, and each pixel's x, y in it.

    To the bit as OpenCV's warpAffine has it: in float32, but a product and its sum rounded once.
    """
    rows, columns = window
    matrix = cv2.invertAffineTransform(
        cv2.getRotationMatrix2D((sizes[1] / 2, sizes[0] / 2), degrees, 1.0)).astype(np.float32)
    x = np.arange(columns.start, columns.stop, dtype=np.float64)
    y = np.arange(rows.start, rows.stop, dtype=np.float32)
    places = np.empty((2, len(y), len(x)), np.float32)
    for at, (a, b, c) in zip(places, matrix):
        np.add(a * x, (b * y + c)[:, None], out=at, casting="same_kind")
    # From an even pixel on: OpenCV rounds halves to even.
    starts = [int(at.min()) // 2 * 2 for at in places]
    source = [_window(start, int(at.max()) + 2 - start, size)
              for start, at, size in zip(starts, places, reversed(sizes))]
    places -= np.array([[[part.start]] for part in source], np.float32)
    return source[::-1], places


def _resize(plane, factor, window, interpolation):
    """A window of a channel resized by a factor, float32 if `interpolation` is linear, sampled at
    steps of 1 / factor however its size rounds."""
    if min(round(side * factor) for side in plane.shape) < 1:
        # OpenCV refuses factors that leave nothing.
        size, factor = [max(1, round(side * factor)) for side in reversed(plane.shape)], None
    else:
        # OpenCV starts from the corner, so only what lies beyond the window can be left out.
        plane = plane[tuple(slice(int(part.stop / factor) + 3) for part in window)]
        size = None
    if interpolation == cv2.INTER_LINEAR:
        plane = plane.astype(np.float32)
    return cv2.resize(plane, size, fx=factor, fy=factor, interpolation=interpolation)[tuple(window)]
