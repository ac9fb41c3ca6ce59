"""Class probabilities of a photograph: scales, sliding windows, mirror."""

import math

import numpy as np
import torch

from pspnet_repro.data.lists import MEAN_BGR
from pspnet_repro.evaluation.imresize import imresize

# What fills the border while the image is still 8-bit: the mean, rounded.
PAD_RGB = (124, 117, 104)


def scaled_size(height, width, base_size, scale):
    """(rows, columns) of an image at one scale: the long side is base_size * scale + 1.

    The short side is computed in float32 and rounded half away from zero, as in the script.
    """
    long_side = math.floor(base_size * scale + 1 + 0.5)
    longest, shortest = max(height, width), min(height, width)
    ratio = np.float32(long_side) / np.float32(longest)
    short_side = max(1, int(np.floor(ratio * np.float32(shortest) + np.float32(0.5))))
    if height == width:
        return long_side, long_side
    return (long_side, short_side) if height > width else (short_side, long_side)


def window_starts(size, crop_size):
    """First pixels of the windows over one axis; the last window is pulled back to the border."""
    stride = math.ceil(crop_size * 2 / 3)
    count = math.ceil((size - crop_size) / stride) + 1
    return [min(i * stride, size - crop_size) for i in range(count)]


def _crop_probabilities(net, crop, classes, flip):
    """(3, crop, crop) float32 BGR minus mean -> (classes, crop, crop): logits summed, softmax."""
    batch = torch.from_numpy(np.ascontiguousarray(crop))[None]
    if flip:
        batch = torch.cat([batch, batch.flip(3)])
    scores = net(batch)
    wanted = (len(batch), classes, *batch.shape[2:])
    if tuple(scores.shape) != wanted:
        raise ValueError(f"net must return {wanted}, got {tuple(scores.shape)}")
    if flip:
        scores = scores[:1] + scores[1:].flip(3)
    return torch.softmax(scores[0], 0).numpy()


def _to_network(image_rgb):
    """(H, W, 3) uint8 RGB -> (3, H, W) float32 BGR minus the mean."""
    return (image_rgb[:, :, ::-1].astype(np.float32) - MEAN_BGR).transpose(2, 0, 1)


def _image_probabilities(net, image_rgb, classes, crop_size, flip):
    """(rows, columns, 3) uint8 at one scale -> (rows, columns, classes) float32."""
    rows, cols = image_rgb.shape[:2]
    below, right = max(crop_size - rows, 0), max(crop_size - cols, 0)
    if max(rows, cols) <= crop_size:
        padded = np.pad(_to_network(image_rgb), ((0, 0), (0, below), (0, right)))
        return _crop_probabilities(net, padded, classes, flip)[:, :rows, :cols].transpose(1, 2, 0)
    canvas = np.empty((rows + below, cols + right, 3), np.uint8)
    canvas[:] = PAD_RGB
    canvas[:rows, :cols] = image_rgb
    padded = _to_network(canvas)
    total = np.zeros((classes, *padded.shape[1:]), np.float32)
    count = np.zeros((1, *padded.shape[1:]), np.float32)
    for top in window_starts(padded.shape[1], crop_size):
        for left in window_starts(padded.shape[2], crop_size):
            window = np.s_[:, top:top + crop_size, left:left + crop_size]
            total[window] += _crop_probabilities(net, padded[window], classes, flip)
            count[window] += 1
    return (total / count)[:, :rows, :cols].transpose(1, 2, 0)


def predict_probabilities(net, image_rgb, *, classes, base_size, crop_size, scales=(1.0,),
                          flip=True):
    """Class probabilities of a photograph by the authors' protocol.

    At each scale the image is resized to a long side of base_size * scale + 1, windows of
    `crop_size` slide over it by two thirds, logits of a window and of its mirror image are summed
    before softmax, probabilities are averaged over windows, resized back and renormalized; scales
    are averaged.

    Args:
        net: a PSPNet in eval mode, or any callable float32 (N, 3, crop, crop) BGR minus mean ->
            (N, classes, crop, crop) logits.
        image_rgb: (H, W, 3) or (H, W) uint8.
        classes: number of classes.
        base_size, crop_size: pixels.
        scales: factors of the base size.
        flip: also the mirror image.
    Returns:
        (H, W, classes) float32.
    Raises:
        ValueError: the image, a size or what `net` returns is not as above.

    Source: the evaluation scripts of the release.
    """
    image = np.asarray(image_rgb)
    scales = tuple(float(scale) for scale in scales)
    if image.dtype != np.uint8 or image.size == 0 or not (
            image.ndim == 2 or image.ndim == 3 and image.shape[2] == 3):
        raise ValueError(f"image_rgb must be (H, W, 3) or (H, W) uint8, got {image.shape}, "
                         f"{image.dtype}")
    if base_size < 1 or crop_size < 1 or not scales or min(scales) <= 0:
        raise ValueError(f"base_size, crop_size and scales must be positive, got {base_size}, "
                         f"{crop_size}, {scales}")
    if image.ndim == 2:
        image = np.repeat(image[:, :, None], 3, 2)
    height, width = image.shape[:2]
    total = np.zeros((height, width, classes), np.float32)
    with torch.no_grad():
        for scale in scales:
            scaled = imresize(image, scaled_size(height, width, base_size, scale))
            probabilities = _image_probabilities(net, scaled, classes, crop_size, flip)
            probabilities = imresize(probabilities, (height, width))
            total += probabilities / probabilities.sum(2, keepdims=True)
    return total / len(scales)
