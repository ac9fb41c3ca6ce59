"""Training augmentation: resize, rotation, blur, mirror, crop (paper, 5.1)."""

from dataclasses import dataclass

import cv2
import numpy as np

from pspnet_repro.data.conventions import IGNORE_INDEX, MEAN_BGR


@dataclass(frozen=True)
class Augmentation:
    """What is drawn for each image; each field can be switched off on its own.

    Attributes:
        scales: range of the uniform resize factor; None keeps the size.
        rotation: degrees; the angle is uniform in +-rotation for half of the images; 0: none.
        blur: Gaussian blur 5x5 for half of the images.
        mirror: left-right flip for half of the images.

    The probabilities and the 5x5 kernel are open in the paper and taken from the authors' later
    PyTorch program.
    """

    scales: tuple = (0.5, 2.0)
    rotation: float = 10.0
    blur: bool = True
    mirror: bool = True


NO_AUGMENTATION = Augmentation(scales=None, rotation=0.0, blur=False, mirror=False)


def augment(image, label, crop_size, augmentation, rng):
    """One training sample.

    Args:
        image: (H, W, 3) uint8 BGR.
        label: (H, W) uint8.
        crop_size: side of the crop in pixels.
        augmentation: an Augmentation.
        rng: numpy Generator; the same number of draws for every image and setting.
    Returns:
        (3, crop, crop) float32, BGR minus the mean, and (crop, crop) uint8. Borders have the mean
        colour (0 after subtraction) and label 255.
    """
    scale, turn, angle, blur, mirror, top, left = rng.random(7)
    image = image.astype(np.float32)
    mean = MEAN_BGR.tolist()
    if augmentation.scales is not None:
        low, high = augmentation.scales
        factor = low + (high - low) * scale
        size = (max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
        label = cv2.resize(label, size, interpolation=cv2.INTER_NEAREST)
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
    if augmentation.mirror and mirror < 0.5:
        image, label = image[:, ::-1], label[:, ::-1]
    h, w = label.shape
    y, x = (int(at * (max(size - crop_size, 0) + 1)) for at, size in ((top, h), (left, w)))
    image = image[y:y + crop_size, x:x + crop_size] - MEAN_BGR
    label = label[y:y + crop_size, x:x + crop_size]
    below, right = crop_size - label.shape[0], crop_size - label.shape[1]
    if below or right:
        # The smaller image sits in the middle, as in the authors' later program.
        above, before = below // 2, right // 2
        margins = (above, below - above), (before, right - before)
        image = np.pad(image, (*margins, (0, 0)))
        label = np.pad(label, margins, constant_values=IGNORE_INDEX)
    return np.ascontiguousarray(image.transpose(2, 0, 1)), np.ascontiguousarray(label)
