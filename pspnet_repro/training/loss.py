"""SoftmaxWithLoss as the original computes it, and the guidance of the two branches."""

import math

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

from pspnet_repro.data.conventions import IGNORE_INDEX
from pspnet_repro.exact import linear, norm
from pspnet_repro.model.upsampling import upsample2d
from pspnet_repro.words import check_choice

NORMALIZATIONS = ("valid", "full", "batch_size", "none")
_LARGEST = -math.log(torch.finfo(torch.float32).tiny)


def softmax_loss(logits: torch.Tensor, labels: torch.Tensor,
                 ignore_index: int | None = IGNORE_INDEX, normalization: str = "valid",
                 arithmetic: str = "torch") -> torch.Tensor:
    """Sum of -log(max(p, FLT_MIN)) over labelled pixels, divided by a normalizer.

    The normalizer is the number of labelled pixels ("valid"), of all pixels ("full"), of images
    ("batch_size") or 1 ("none"), at least 1: a batch without labels has loss 0. The gradient is
    (p - onehot) / normalizer always, also where p is below FLT_MIN.

    Args:
        logits: (N, C, H, W) float; float16 and bfloat16 are computed in float32.
        labels: (N, H, W) integers, 0..C-1 or `ignore_index`.
        ignore_index: label without loss; None: every label counts.
        normalization: one of NORMALIZATIONS.
        arithmetic: "original": the order of sums of the original's CPU program (float32 on the
            CPU; elsewhere as "torch").
    Returns:
        A scalar, float32 (float64 for float64).
    Raises:
        ValueError: another `normalization`, or labels of another size than the logits.

    Source: SoftmaxWithLossLayer.
    """
    check_choice("normalization", normalization, NORMALIZATIONS)
    if labels.shape != (logits.shape[0], *logits.shape[2:]):
        raise ValueError(f"labels must be {(logits.shape[0], *logits.shape[2:])} as the logits, "
                         f"got {tuple(labels.shape)}")
    labels = labels.long()
    normalizer = _normalizer(labels, ignore_index, normalization)
    if arithmetic == "original" and linear.is_exact(logits):
        return norm.softmax_loss(logits.flatten(2), labels.flatten(1), ignore_index, normalizer)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return _LossOfLabels.apply(F.log_softmax(logits, 1), labels,
                               -1 if ignore_index is None else ignore_index, normalizer)


class _LossOfLabels(torch.autograd.Function):
    """F.nll_loss, divided by a normalizer, with a clamp that the gradient does not see.

    torch's own gradient fills its map with zeros twice.
    """

    @staticmethod
    def forward(ctx, log_p, labels, ignore_index, normalizer):
        ctx.save_for_backward(labels)
        ctx.shape, ctx.ignore_index, ctx.normalizer = log_p.shape, ignore_index, normalizer
        losses = F.nll_loss(log_p, labels, reduction="none", ignore_index=ignore_index)
        return losses.clamp_(max=_LARGEST).sum() / normalizer

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        labels, = ctx.saved_tensors
        counts = labels != ctx.ignore_index
        return grad.new_zeros(ctx.shape).scatter_(
            1, (labels * counts).unsqueeze(1),
            (counts * -(grad / ctx.normalizer)).unsqueeze(1)), None, None, None


def _normalizer(labels, ignore_index, normalization):
    if normalization == "valid" and ignore_index is not None:
        return (labels != ignore_index).sum().clamp(min=1)
    return {"valid": labels.numel(), "full": labels.numel(), "batch_size": labels.shape[0],
            "none": 1}[normalization]


def shrink_labels(labels: torch.Tensor, stride: int) -> torch.Tensor:
    """Every stride-th pixel of (N, H, W) labels, as the label's Interp layer picks them. Raises
    ValueError where H - 1 or W - 1 is no multiple of `stride`: the original blends labels."""
    for side, size in zip(("height", "width"), labels.shape[1:]):
        if (size - 1) % stride:
            raise ValueError(f"label {side} must be {stride} * k + 1 pixels, got {size}")
    return labels[:, ::stride, ::stride]


def guided_loss(logits: torch.Tensor, labels: torch.Tensor, guidance: str, stride: int,
                arithmetic: str = "torch", align_corners: bool = True) -> torch.Tensor:
    """The loss of one branch against full-size labels.

    Args:
        logits: (N, C, h, w) before interpolation.
        labels: (N, H, W), H = (h - 1) * stride + 1.
        guidance: "eighth" shrinks the labels to the logits (the authors' Caffe program), "full"
            interpolates the logits to the labels.
        arithmetic: see softmax_loss.
        align_corners: of the network, for "full".
    """
    check_choice("guidance", guidance, ("eighth", "full"))
    if guidance == "eighth":
        labels = shrink_labels(labels, stride)
    else:
        # The softmax would copy the large map of logits that are channels last.
        logits = upsample2d(logits.float().contiguous(), labels.shape[1:], align_corners)
    return softmax_loss(logits, labels, arithmetic=arithmetic)
