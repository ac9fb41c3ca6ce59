"""The operators, by name; csrc/ holds their code and reference.py what they compute."""

from pspnet_repro.ops.functions import (
    USE_REFERENCE,
    batch_norm_backward_elementwise,
    batch_norm_backward_reduce,
    batch_norm_backward_residual,
    batch_norm_combine,
    batch_norm_normalize,
    batch_norm_statistics,
    bin_avg_pool2d,
    bin_max_pool2d,
    interp2d,
    pyramid_pool2d,
    scores,
    window_pool2d,
    winograd_pixels,
    winograd_tiles,
)

__all__ = ["USE_REFERENCE", "batch_norm_backward_elementwise", "batch_norm_backward_reduce",
           "batch_norm_backward_residual", "batch_norm_combine", "batch_norm_normalize",
           "batch_norm_statistics", "bin_avg_pool2d", "bin_max_pool2d", "interp2d",
           "pyramid_pool2d", "scores", "window_pool2d", "winograd_pixels", "winograd_tiles"]
