"""A copy of a PSPNet for testing in torch's own operators alone, which exporters understand."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from pspnet_repro.model.fused import folded
from pspnet_repro.ops import checks


def _plain_unit(unit, dtype):
    """The modules of a ConvBN: a convolution that has its BN in it, and ReLU where it has one."""
    return [_plain_conv(unit.conv, *folded(unit, dtype)), *[nn.ReLU()] * unit.relu]


def _plain_conv(conv, weight, bias):
    with torch.device("meta"):
        plain = nn.Conv2d(conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride,
                          conv.padding, conv.dilation)
    plain.weight, plain.bias = (nn.Parameter(tensor, requires_grad=False)
                                for tensor in (weight, bias))
    return plain


def pooled(x: torch.Tensor, bins: int, pool: str) -> torch.Tensor:
    """One level of ops.pyramid_pool2d, (N, C, H, W) -> (N, C, bins, bins), by masks.

    Masks also fit maps that the bins do not divide, for which ONNX has no adaptive pooling, and
    maps of any size in a program of torch.export.
    """
    for axis in (2, 3):
        size, parts = x.shape[axis], []
        place = torch.arange(size, device=x.device).view(-1, *[1] * (3 - axis))
        for i in range(bins):
            begin, end = i * size // bins, ((i + 1) * size + bins - 1) // bins
            inside = (place >= begin) & (place < end)
            parts.append(x.where(inside, 0).sum(axis, keepdim=True) / (end - begin)
                         if pool == "ave" else
                         x.where(inside, -torch.inf).amax(axis, keepdim=True))
        x = torch.cat(parts, axis)
    return x


class PlainResidual(nn.Module):
    """ReLU of a branch plus the input or its projection."""

    def __init__(self, branch: Sequence[nn.Module], project: nn.Module | None,
                 dtype: torch.dtype | None) -> None:
        super().__init__()
        self.branch = nn.Sequential(*(part for unit in branch
                                      for part in _plain_unit(unit, dtype)))
        self.project = None if project is None else _plain_unit(project, dtype)[0]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x if self.project is None else self.project(x)
        return F.relu(shortcut + self.branch(x))


class PlainPSPNet(nn.Module):
    """What PSPNet.for_inference(plain=True) returns; see there.

    Args:
        release: let the weights of the network's convolutions go as soon as their copies are made.
            The network can't be used any more, and two are never in memory.
    """

    def __init__(self, net: nn.Module, dtype: torch.dtype | None = None,
                 release: bool = False) -> None:
        super().__init__()
        self.classes, self.stride, self.any_size = net.classes, net.stride, net.any_size
        self.align_corners, self.image_input = net.align_corners, net.image_input
        self.bins, self.pool = net.pyramid.bins, net.pyramid.pool
        self.dtype = dtype
        stem = []
        for part in net.backbone.before_residuals():
            stem += (_plain_unit(part, dtype) if hasattr(part, "conv") else
                     [nn.MaxPool2d(3, 2, part.padding, ceil_mode=part.ceil_mode)])
        self.stem = nn.Sequential(*stem)
        self.blocks = nn.Sequential()
        for branch, project in net.backbone.residuals():
            self.blocks.append(PlainResidual(branch, project, dtype))
            if release:
                for unit in branch if project is None else (*branch, project):
                    unit.conv.weight = None
        self.levels = nn.ModuleList(
            nn.Sequential(*([] if net.pyramid.reduce is None else
                            _plain_unit(net.pyramid.reduce[k], dtype)))
            for k in range(len(self.bins)))
        self.head = nn.Sequential(*_plain_unit(net.head.conv, dtype))
        score = net.head.score
        self.score = _plain_conv(score, score.weight.detach().clone(), score.bias.detach().clone())
        self.eval()

    def check_crop(self, *sizes: int) -> None:
        """As PSPNet.check_crop."""
        checks.crop(sizes, self.stride, self.bins, self.any_size)

    def prepare(self, image_rgb: np.ndarray) -> torch.Tensor:
        """As PSPNet.prepare."""
        return self.image_input.tensor(image_rgb)

    def _upsampled(self, x, size):
        # With aligned corners torch, too, computes positions in float32.
        return F.interpolate(x, size, mode="bilinear", align_corners=self.align_corners)

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """As PSPNet.logits in eval mode."""
        x = self.blocks(self.stem(x if self.dtype is None else x.to(self.dtype)))
        upsampled = [self._upsampled(level(pooled(x, bins, self.pool)), x.shape[2:])
                     for level, bins in zip(self.levels, self.bins)]
        x = self.head(torch.cat([x, *reversed(upsampled)], 1) if upsampled else x)
        # Scores are made in the network's dtype: rounded to a half type they would often tie.
        return self.score(x if self.dtype is None else x.to(self.score.bias.dtype))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As PSPNet.forward in eval mode; a program of torch.jit.trace does not check sizes."""
        if torch.compiler.is_compiling():
            for side in () if self.any_size else x.shape[2:]:
                torch._check((side - 1) % self.stride == 0)
        elif not torch.jit.is_tracing():
            self.check_crop(*x.shape[2:])
        return self._upsampled(self.logits(x), x.shape[2:])
