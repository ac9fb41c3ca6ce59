"""The input of a network: order of the channels, mean and deviation of its settings."""

import numpy as np
import torch


class ImageInput:
    """How a network wants its photographs.

    Args:
        settings: NetworkSettings or BackboneSettings; None: Caffe's, BGR minus the mean.
    Attributes:
        mean_rgb: (3,) float32, of 0..255.
    """

    def __init__(self, settings):
        self._mean = np.array(settings.input_mean, np.float32)
        self._std = np.array(settings.input_std, np.float32)
        self._step = -1 if settings.input_order == "bgr" else 1
        self.mean_rgb = self._mean[::self._step]

    def __call__(self, image_rgb):
        """(..., 3) of 0..255, red first, as the network's input, float32, channels last."""
        values = image_rgb[..., ::self._step].astype(np.float32) - self._mean
        return values if (self._std == 1).all() else values / self._std

    def tensor(self, image_rgb):
        """What PSPNet.prepare returns."""
        image = np.asarray(image_rgb)
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
            raise ValueError("image_rgb must be (H, W, 3) uint8 with at least one pixel, got "
                             f"{image.shape}, {image.dtype}")
        return torch.from_numpy(np.ascontiguousarray(self(image).transpose(2, 0, 1)))[None]
