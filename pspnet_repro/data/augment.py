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

    Attributes:
        scales: range of the uniform resize factor; None keeps the size.
        rotation: degrees; the angle is uniform in +-rotation for half of the images; 0: none.
        blur: Gaussian blur 5x5 for half of the images.
        mirror: left-right flip for half of the crops.
        padding: where the border of an image smaller than the crop lies: "end" (right and bottom,
            as in both of the authors' Caffe programs and in their test) or "centre" (on all sides,
            as in their later program, whose test pads so too).

    The probabilities and the 5x5 kernel are open in the paper and taken from the authors' later
    PyTorch program; the mirror comes last, as in their Caffe programs.

    Raises:
        ValueError: another `padding`.
    """

    scales: tuple[float, float] | None = (0.5, 2.0)
    rotation: float = 10.0
    blur: bool = True
    mirror: bool = True
    padding: str = "end"

    def __post_init__(self):
        if self.padding not in PADDINGS:
            raise ValueError(f"padding must be one of {', '.join(PADDINGS)}, got {self.padding!r}")


NO_AUGMENTATION = Augmentation(scales=None, rotation=0.0, blur=False, mirror=False)


def augment(image: np.ndarray, label: np.ndarray, crop_size: int, augmentation: Augmentation,
            rng: np.random.Generator, image_input: image_inputs.ImageInput = image_inputs.CAFFE,
            ) -> tuple[np.ndarray, np.ndarray]:
    """One training sample.

    Args:
        image: (H, W, 3) uint8 BGR.
        label: (H, W) uint8.
        crop_size: side of the crop in pixels.
        rng: the same number of draws for every image and setting.
        image_input: of the network.
    Returns:
        (3, crop, crop) float32, see PSPNet.prepare, and (crop, crop) uint8. Borders have the mean
        colour (0 after subtraction) and label 255.
    """
    scale, turn, angle, blur, mirror, top, left = rng.random(7)
    image = image.astype(np.float32)
    mean = image_input.mean_rgb[::-1].tolist()
    if augmentation.scales is not None:
        low, high = augmentation.scales
        factor = low + (high - low) * scale
        image = _resize(image, factor, cv2.INTER_LINEAR)
        label = _resize(label, factor, cv2.INTER_NEAREST)
    if augmentation.rotation and turn < 0.5:
        h, w = label.shape
        matrix = cv2.getRotationMatrix2D((w / 2, h / 2), (2 * angle - 1) * augmentation.rotation,
                                         1.0)
        image = cv2.warpAffine(image, matrix, (w, h), flags=cv2.INTER_LINEAR,
                               borderMode=cv2.BORDER_CONSTANT, borderValue=mean)
        label = cv2.warpAffine(label, matrix, (w, h), flags=cv2.INTER_NEAREST,
                               borderMode=cv2.BORDER_CONSTANT, borderValue=IGNORE_INDEX)
    if augmentation.blur and blur < 0.5:
        image = cv2.GaussianBlur(image, (5, 5), 0)
    h, w = label.shape
    y, x = (int(at * (max(size - crop_size, 0) + 1)) for at, size in ((top, h), (left, w)))
    image = image_input(image[y:y + crop_size, x:x + crop_size, ::-1])
    label = label[y:y + crop_size, x:x + crop_size]
    below, right = crop_size - label.shape[0], crop_size - label.shape[1]
    if below or right:
        above, before = (below // 2, right // 2) if augmentation.padding == "centre" else (0, 0)
        margins = (above, below - above), (before, right - before)
        image = np.pad(image, (*margins, (0, 0)))
        label = np.pad(label, margins, constant_values=IGNORE_INDEX)
    if augmentation.mirror and mirror < 0.5:
        image, label = image[:, ::-1], label[:, ::-1]
    return np.ascontiguousarray(image.transpose(2, 0, 1)), np.ascontiguousarray(label)


def _resize(image, factor, interpolation):
    """An image resized by a factor, sampled at steps of 1 / factor however its size rounds."""
    if min(round(side * factor) for side in image.shape[:2]) < 1:
        # OpenCV refuses factors that leave nothing.
        size = [max(1, round(side * factor)) for side in image.shape[1::-1]]
        return cv2.resize(image, size, interpolation=interpolation)
    return cv2.resize(image, None, fx=factor, fy=factor, interpolation=interpolation)
