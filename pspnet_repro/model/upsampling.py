"""Bilinear upsampling as the original's Interp does it, and as some ports do."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from pspnet_repro import ops


def upsample2d(x: torch.Tensor, size: Sequence[int], align_corners: bool = True) -> torch.Tensor:
    """Resize (N, C, h, w) bilinearly to a size (H, W): corner pixels onto corner pixels
    (ops.interp2d), or with half-pixel centres as torch's interpolate."""
    if align_corners:
        return ops.interp2d(x, size)
    return F.interpolate(x, tuple(size), mode="bilinear", align_corners=False)
