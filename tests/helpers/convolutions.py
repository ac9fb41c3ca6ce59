"""Convolutions for the tests of Winograd's: maps, kernels, and how far results lie apart."""

import pytest
import torch

needs_onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(),
                                  reason="this torch was built without oneDNN")


def drawn(channels, outputs, size, images=2):
    """(maps after a ReLU, weight, bias)."""
    return (torch.randn(images, channels, *size).relu(),
            torch.randn(outputs, channels, 3, 3) / (9 * channels) ** 0.5, torch.randn(outputs))


def error(actual, wanted):
    """Largest error over the largest value."""
    return ((actual.double() - wanted).abs().max() / wanted.abs().max()).item()
