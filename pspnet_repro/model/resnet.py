"""The dilated ResNet under PSPNet: plain constructors, no pretrained weights."""

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from pspnet_repro import ops
from pspnet_repro.exact.layers import OriginalBatchNorm2d, OriginalConv2d
from pspnet_repro.model import winograd
from pspnet_repro.model.caffe_names import CaffeNames, resnet_names
from pspnet_repro.model.settings import EXPANSION, BackboneSettings
from pspnet_repro.sync_bn import SyncBatchNorm2d, batch_norm_together


def convolution(arithmetic: str) -> type[nn.Conv2d]:
    """The class of convolutions for "torch" or "original"."""
    return OriginalConv2d if arithmetic == "original" else winograd.Conv2d


class ConvBN(nn.Module):
    """Convolution without bias, BN, and ReLU unless `relu` is False; padding keeps the size."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 1, stride: int = 1,
                 dilation: int = 1, relu: bool = True, arithmetic: str = "torch",
                 **bn: object) -> None:
        super().__init__()
        self.conv = convolution(arithmetic)(
            in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2 * dilation,
            dilation=dilation, bias=False)
        self.bn = (OriginalBatchNorm2d if arithmetic == "original" else SyncBatchNorm2d)(
            out_channels, **bn)
        self.relu = relu

    def forward(self, x: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
        return self.normalize(self.conv(x), residual)

    def normalize(self, x: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
        """BN and ReLU of the convolution's output; with `residual` the ReLU of BN plus that."""
        if isinstance(self.bn, SyncBatchNorm2d):
            return self.bn(x, self.relu, residual)
        # A layer that convert_to_torch put there.
        x = self.bn(x)
        if residual is not None:
            return (x + residual).relu_()
        return x.relu_() if self.relu else x


def normalize_together(units: Sequence[ConvBN], maps: Sequence[torch.Tensor]
                       ) -> Sequence[torch.Tensor]:
    """BN and ReLU of the convolution's output of several ConvBNs; in training their statistics
    share one exchange between processes."""
    layers = [unit.bn for unit in units]
    if (all(type(layer) is SyncBatchNorm2d and layer.training for layer in layers)
            and len({layer.process_group for layer in layers}) == 1):
        return batch_norm_together(layers, maps, relu=True)
    return [unit.normalize(level) for unit, level in zip(units, maps)]


class Bottleneck(nn.Module):
    """1x1 reduce, 3x3, 1x1 increase, plus the input (projected where shapes change), ReLU.

    Args:
        stride_in: "1x1" puts the stride into the reduction (released PSPNet50), "3x3" into the
            3x3 (released PSPNet101): the same weights fit both, results differ.
    """

    def __init__(self, in_channels: int, width: int, stride: int, dilation: int, stride_in: str,
                 project: bool, **bn: object) -> None:
        super().__init__()
        out_channels = width * EXPANSION
        first, second = (stride, 1) if stride_in == "1x1" else (1, stride)
        self.reduce = ConvBN(in_channels, width, 1, first, **bn)
        self.spatial = ConvBN(width, width, 3, second, dilation, **bn)
        self.increase = ConvBN(width, out_channels, 1, relu=False, **bn)
        self.project = (ConvBN(in_channels, out_channels, 1, stride, relu=False, **bn)
                        if project else None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x if self.project is None else self.project(x)
        return self.increase(self.spatial(self.reduce(x)), shortcut)


class MaxPool(nn.Module):
    """pool1: MAX 3x3, stride 2, by the original's window rule, or by torch's."""

    def __init__(self, padding: int = 1, ceil_mode: bool = True) -> None:
        super().__init__()
        self.padding, self.ceil_mode = padding, ceil_mode

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.ceil_mode:
            return F.max_pool2d(x, 3, 2, self.padding)
        return ops.window_pool2d(x, 3, 2, self.padding, "max")


class ResNet(nn.Module):
    """Stem and stages 2 to 5 (the original's conv1 ... conv5).

    Args:
        units: keyword arguments of every ConvBN; None: its defaults.
        options: those of BackboneSettings, which is then `settings`.
    """

    def __init__(self, units: Mapping[str, object] | None = None, /, **options: object) -> None:
        super().__init__()
        self.settings = settings = BackboneSettings(**options)
        units, width = units or {}, settings.stem_width
        if settings.stem == "deep":
            channels = 2 * width
            self.stem = nn.Sequential(ConvBN(3, width, 3, 2, **units),
                                      ConvBN(width, width, 3, **units),
                                      ConvBN(width, channels, 3, **units))
        else:
            channels = width
            self.stem = nn.Sequential(ConvBN(3, width, 7, 2, **units))
        self.pool = MaxPool(settings.pool_padding, settings.ceil_mode)
        self.stride = 4 * math.prod(settings.strides)
        for k, width in enumerate(settings.widths):
            stage = []
            for i in range(settings.blocks[k]):
                dilation = settings.dilations[k]
                if i == 0 and settings.contract_dilation:
                    dilation = max(dilation // 2, 1)
                stage.append(Bottleneck(channels, width, settings.strides[k] if i == 0 else 1,
                                        dilation, settings.stride_in, project=i == 0, **units))
                channels = width * EXPANSION
            setattr(self, f"stage{k + 2}", nn.Sequential(*stage))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(N, 3, H, W) -> the outputs of stage 4 and stage 5."""
        x = self.stage3(self.stage2(self.pool(self.stem(x))))
        stage4 = self.stage4(x)
        # A view, so that what stage 5 returns to it is one sum before the auxiliary branch's joins.
        return stage4, self.stage5(stage4.view_as(stage4))

    def before_residuals(self) -> list[nn.Module]:
        """The modules before the first residual block, in order."""
        return [*self.stem, self.pool]

    def residuals(self) -> list[tuple[list[ConvBN], ConvBN | None]]:
        """(ConvBNs of the branch, projection or None) of each residual block, in order."""
        return [([block.reduce, block.spatial, block.increase], block.project)
                for stage in (self.stage2, self.stage3, self.stage4, self.stage5)
                for block in stage]

    def caffe_names(self) -> CaffeNames:
        """Its CaffeNames."""
        return resnet_names(self)
