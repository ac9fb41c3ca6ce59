"""The miniature network of the recorded trainings (tests/golden/solver)."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import nn

from pspnet_repro.model.caffe_names import CaffeNames
from pspnet_repro.model.pspnet import PSPNet
from pspnet_repro.model.resnet import ConvBN, MaxPool
from pspnet_repro.model.settings import BackboneSettings, NetworkSettings


@dataclass(frozen=True, eq=False)
class MiniSettings(NetworkSettings):
    """As NetworkSettings; of the backbone's arguments only stem_width applies."""

    backbone: Literal["mini"] = "mini"

    def __iter__(self):
        others = {f.name for f in fields(BackboneSettings)} - {"stem_width", *self.INPUT}
        return (name for name in super().__iter__() if name not in others)

    def validate(self) -> None:
        super().validate()
        if not self.ceil_mode or self.contract_dilation:
            raise ValueError("the miniature network must have ceil_mode and no contract_dilation")

    @property
    def channels(self) -> tuple[int, int]:
        return 2 * self.stem_width, 2 * self.stem_width


class MiniBackbone(nn.Module):
    """conv1 3x3 stride 2, pool1, conv2 3x3 stride 2, and conv3 3x3 with dilation 2 beside a
    shortcut; `units`: keyword arguments of every ConvBN."""

    stride = 8

    def __init__(self, units: dict, /, stem_width: int) -> None:
        super().__init__()
        channels = 2 * stem_width
        self.conv1 = ConvBN(3, stem_width, 3, 2, **units)
        self.pool = MaxPool()
        self.conv2 = ConvBN(stem_width, channels, 3, 2, **units)
        self.conv3 = ConvBN(channels, channels, 3, 1, 2, relu=False, **units)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(N, 3, H, W) -> the outputs of conv2 and of the whole."""
        conv2 = self.conv2(self.pool(self.conv1(x)))
        within = conv2.view_as(conv2)  # as in ResNet
        return conv2, self.relu(self.conv3(within) + within)

    def before_residuals(self) -> list[nn.Module]:
        """See ResNet."""
        return [self.conv1, self.pool, self.conv2]

    def residuals(self) -> list[tuple[list[ConvBN], None]]:
        """See ResNet."""
        return [([self.conv3], None)]

    def caffe_names(self) -> CaffeNames:
        """See ResNet."""
        return CaffeNames({name: name for name in ("conv1", "conv2", "conv3")}, "", "conv5_4",
                          "conv_aux")


class MiniPSPNet(PSPNet):
    """A PSPNet on MiniBackbone."""

    Settings, Backbone = MiniSettings, MiniBackbone


def network_class(settings: Mapping[str, object]) -> type[PSPNet]:
    """MiniPSPNet for arguments that name its backbone, else PSPNet."""
    return MiniPSPNet if settings.get("backbone") == "mini" else PSPNet
