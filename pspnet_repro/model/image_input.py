"""The input of a network: order of the channels, mean and deviation of its settings."""

import numpy as np
import torch

from pspnet_repro.model.settings import MEAN_BGR


class ImageInput:
    """How a network wants its photographs; the defaults are Caffe's: BGR minus the mean.

    Args:
        order, mean, std: input_order, input_mean and input_std of BackboneSettings.
    Attributes:
        mean_rgb: (3,) float32, of 0..255.
    """

    def __init__(self, order: str = "bgr", mean: tuple = MEAN_BGR, std: tuple = (1.0, 1.0, 1.0)):
        self._mean, self._std = np.array(mean, np.float32), np.array(std, np.float32)
        self._step = -1 if order == "bgr" else 1
        self.mean_rgb = self._mean[::self._step]

    def __call__(self, image_rgb: np.ndarray) -> np.ndarray:
        """(..., 3) of 0..255, red first, as the network's input, float32, channels last."""
        values = np.subtract(image_rgb[..., ::self._step], self._mean, dtype=np.float32)
        return values if (self._std == 1).all() else values / self._std

    def tensor(self, image_rgb: np.ndarray) -> torch.Tensor:
        """What PSPNet.prepare returns."""
        image = np.asarray(image_rgb)
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
            raise ValueError("image_rgb must be (H, W, 3) uint8 with at least one pixel, got "
                             f"{image.shape}, {image.dtype}")
        return torch.from_numpy(np.ascontiguousarray(self(image).transpose(2, 0, 1)))[None]


CAFFE = ImageInput()
