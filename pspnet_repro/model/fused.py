"""A copy of a PSPNet for testing: BN folded, ReLU and additions fused, channels last."""

import copy
import functools
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from pspnet_repro import ops
from pspnet_repro.model import winograd
from pspnet_repro.model.factorized_head import (
    shifted_interpolation,
    tap_matrix,
    tap_products,
    upsampled_conv2d,
)
from pspnet_repro.model.upsampling import upsample2d
from pspnet_repro.ops import checks

# oneDNN chooses the layout of a kernel by the map that it will see: the one of a 473 crop.
_TYPICAL_SIZE = (60, 60)


def onednn_fuses(weight: torch.Tensor) -> bool:
    """Whether torch's oneDNN operators take this weight: they fuse ReLU and additions."""
    onednn = torch.backends.mkldnn
    return (weight.device.type == "cpu" and onednn.is_available() and onednn.enabled
            and hasattr(torch.ops.mkldnn, "_convolution_pointwise_")
            and (weight.dtype == torch.float32 or weight.dtype == torch.bfloat16
                 and torch.ops.mkldnn._is_mkldnn_bf16_supported()))


def folded(unit: nn.Module, dtype: torch.dtype | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight and bias of one convolution that does what a ConvBN in eval mode does.

    weight * s and bias - mean * s with s = slope / sqrt(var + eps), in float64, a few channels at a
    time, then rounded to `dtype`, or to the convolution's.
    """
    bn, weight = unit.bn, unit.conv.weight.detach()
    scale = bn.weight.detach().double() / (bn.running_var.double() + bn.eps).sqrt()
    bias = bn.bias.detach().double() - bn.running_mean.double() * scale
    dtype = dtype or weight.dtype
    wide = torch.empty_like(weight, dtype=dtype)
    for part, own, factor in zip(wide.split(64), weight.split(64), scale.split(64)):
        part.copy_(own.double() * factor.view(-1, 1, 1, 1))
    return wide, bias.to(dtype)


class FusedConv(nn.Module):
    """Convolution with bias, perhaps ReLU, perhaps added to another tensor, in one pass.

    Maps are channels last: of the layouts of torch and oneDNN it measured fastest
    (experiments/bench/networks.py). Without oneDNN's operators the same in torch's own.

    Args:
        conv: has the stride, padding and dilation.
        weight, bias: in place of its own.
        relu: of the sum.
        size: (H, W) of the maps that are expected; others are slower, no more.
    """

    def __init__(self, conv: nn.Conv2d, weight: torch.Tensor, bias: torch.Tensor, relu: bool,
                 size: Sequence[int] = _TYPICAL_SIZE) -> None:
        super().__init__()
        self.relu = relu
        self.geometry = list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups
        # A parameter, so that the network tells its device.
        self.bias = nn.Parameter(bias, requires_grad=False)
        self.onednn = onednn_fuses(weight)
        self.winograd = self.onednn and winograd.fits(weight, *self.geometry)
        weight = weight.contiguous(memory_format=torch.channels_last)
        if self.onednn:
            weight = torch.ops.mkldnn._reorder_convolution_weight(
                weight, *self.geometry, [1, weight.shape[1], *size])
        self.weight = weight  # no buffer: oneDNN's layout can neither be saved nor moved

    @classmethod
    def of(cls, unit: nn.Module, dtype: torch.dtype | None = None,
           size: Sequence[int] = _TYPICAL_SIZE) -> "FusedConv":
        """Of a ConvBN."""
        return cls(unit.conv, *folded(unit, dtype), unit.relu, size)

    @functools.cached_property
    def _fast(self):
        """The same by winograd.py, made when a map is first large enough for it."""
        return winograd.WinogradConv(self.weight, self.bias, self.geometry[2][0])

    def _pays(self, x):
        return self.winograd and winograd.pays(x, self.geometry[2][0])

    def _plain(self, x):
        padding, stride, dilation, groups = self.geometry
        return F.conv2d(x, self.weight, self.bias, stride, padding, dilation, groups)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self._pays(x):
            return self._fast(x, self.relu)
        if self.onednn:
            return torch.ops.mkldnn._convolution_pointwise(
                x, self.weight, self.bias, *self.geometry, "relu" if self.relu else "none", [], "")
        x = self._plain(x)
        return x.relu_() if self.relu else x

    def add_to(self, other: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """relu(other + conv(x)), in the place of `other`."""
        if self._pays(x):
            return self._fast.add_to(other, x, self.relu)
        if self.onednn:
            return torch.ops.mkldnn._convolution_pointwise_.binary(
                other, x, self.weight, self.bias, *self.geometry, "add", 1.0,
                "relu" if self.relu else None, [], None)
        other += self._plain(x)
        return other.relu_() if self.relu else other


class FusedResidual(nn.Module):
    """ReLU of a branch of ConvBNs plus the input or its projection; uses the input up."""

    def __init__(self, branch: Sequence[nn.Module], project: nn.Module | None,
                 dtype: torch.dtype | None) -> None:
        super().__init__()
        *first, last = branch
        self.first = nn.Sequential(*(FusedConv.of(unit, dtype) for unit in first))
        self.last = FusedConv(last.conv, *folded(last, dtype), relu=True)
        self.project = None if project is None else FusedConv.of(project, dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x if self.project is None else self.project(x)
        last = self.first(x)
        return self.last.add_to(shortcut.clone() if shortcut is last else shortcut, last)


def _stem(backbone, dtype):
    """All before the residual blocks, as it is: a copy, in the network's layout.

    Neither folded nor channels last: everything after the stem amplifies its rounding, so it keeps
    the unfused network's bits. Of PSPNet50 with seeded weights (tests/model/test_fused.py) 0.006%
    of the pixels have another argmax than unfused, and 0.014% if the stem is folded too.
    """
    stem = copy.deepcopy(nn.Sequential(*backbone.before_residuals()))
    for module in stem.modules():
        if dtype is not None and isinstance(module, nn.Conv2d):
            module.to(dtype)  # BN takes half input with float32 parameters
    return stem.requires_grad_(False)


class FusedHead(nn.Module):
    """The pyramid's levels and conv5_4 with its kernel split among them, see factorized_head.py."""

    def __init__(self, pyramid: nn.Module, unit: nn.Module, features: int,
                 dtype: torch.dtype | None) -> None:
        super().__init__()
        self.bins, self.pool = pyramid.bins, pyramid.pool
        self.align_corners = pyramid.align_corners
        self.reduce = (None if pyramid.reduce is None else
                       nn.ModuleList(FusedConv.of(level, dtype, (b, b))
                                     for level, b in zip(pyramid.reduce, self.bins)))
        dtype = dtype or unit.conv.weight.dtype
        wide = torch.promote_types(dtype, torch.float32)
        weight, bias = folded(unit, wide)
        levels = len(self.bins)
        reduced = (weight.shape[1] - features) // max(levels, 1)
        own, *parts = weight.split([features, *[reduced] * levels], 1)
        self.own = FusedConv(unit.conv, own.to(dtype), bias.to(dtype), unit.relu)
        # The concatenation's order is from the last level to the first.
        self.taps = [tap_matrix(part).contiguous() for part in reversed(parts)]
        self.interpolation = functools.lru_cache(maxsize=64)(self._interpolation)

    def _interpolation(self, height, width):
        """(rows, columns) as upsampled_conv2d takes them."""
        kind = self.taps[0].dtype, self.taps[0].device, self.align_corners
        return (torch.cat([shifted_interpolation(b, height, *kind) for b in self.bins]),
                [shifted_interpolation(b, width, *kind) for b in self.bins])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.bins:
            return self.own(x)
        levels = ops.pyramid_pool2d(x, self.bins, self.pool)
        if self.reduce is not None:
            levels = [reduce(level) for reduce, level in zip(self.reduce, levels)]
        products = [tap_products(level.to(taps.dtype), taps)
                    for level, taps in zip(levels, self.taps)]
        shares = upsampled_conv2d(products, *self.interpolation(*x.shape[2:]))
        return self.own.add_to(shares.to(x.dtype), x)


class FusedPSPNet(nn.Module):
    """What PSPNet.for_inference returns; see there."""

    def __init__(self, net: nn.Module, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.classes, self.stride, self.dtype = net.classes, net.stride, dtype
        self.any_size, self.align_corners = net.any_size, net.align_corners
        self.image_input = net.image_input
        self.stem = _stem(net.backbone, dtype)
        self.blocks = nn.Sequential(*(FusedResidual(branch, project, dtype)
                                      for branch, project in net.backbone.residuals()))
        self.head = FusedHead(net.pyramid, net.head.conv, net.settings.channels[1], dtype)
        score = net.head.score
        self.score = FusedConv(score, score.weight.detach().clone(), score.bias.detach().clone(),
                               relu=False)
        super().train(False)

    def check_crop(self, *sizes: int) -> None:
        """As PSPNet.check_crop."""
        checks.crop(sizes, self.stride, self.head.bins, self.any_size)

    def prepare(self, image_rgb: np.ndarray) -> torch.Tensor:
        """As PSPNet.prepare."""
        return self.image_input.tensor(image_rgb)

    def train(self, mode: bool = True) -> "FusedPSPNet":
        """Does nothing in eval mode. Raises ValueError: for training there is the PSPNet."""
        if mode:
            raise ValueError("a network of for_inference cannot be trained: its batch "
                             "normalization is folded; train the PSPNet that it was made of")
        return self

    def _apply(self, *_args, **_kwargs):
        raise ValueError("a network of for_inference stays on its device and in its dtype: move "
                         "the PSPNet, then call for_inference")

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """As PSPNet.logits in eval mode. Raises ValueError where `x` asks for a gradient."""
        if x.requires_grad and torch.is_grad_enabled():
            raise ValueError("a network of for_inference has no gradients: call it under "
                             "torch.no_grad(), or take the PSPNet that it was made of")
        with torch.no_grad():
            x = self.stem(x.to(self.dtype or x.dtype).contiguous())
            x = self.head(self.blocks(x.contiguous(memory_format=torch.channels_last)))
            # Scores are made in the network's dtype: rounded to a half type they would often tie.
            return self.score(x.to(self.score.bias.dtype)).contiguous()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As PSPNet.forward in eval mode."""
        self.check_crop(*x.shape[2:])
        return upsample2d(self.logits(x), x.shape[2:], self.align_corners)
