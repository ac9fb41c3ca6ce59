"""PSPNet: every ablation of Table 1 is an argument."""

import inspect
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from pspnet_repro import ops
from pspnet_repro.model.factorized_head import pyramid_conv2d
from pspnet_repro.model.fused import FusedPSPNet
from pspnet_repro.model.image_input import ImageInput
from pspnet_repro.model.plain import PlainPSPNet
from pspnet_repro.model.resnet import ConvBN, MaxPool, ResNet, convolution, normalize_together
from pspnet_repro.model.settings import NetworkSettings
from pspnet_repro.model.upsampling import upsample2d
from pspnet_repro.ops import checks


class PyramidPooling(nn.Module):
    """Features beside their pooled, reduced and upsampled summaries (paper, 3.2).

    With `reduce`, 1x1 convolutions to channels / len(bins) come before upsampling; otherwise pooled
    features are upsampled as they are. The concatenation's order is the original's: features, then
    levels from the last to the first.
    """

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__()
        self.bins, self.pool = settings.bins, settings.pool
        self.align_corners = settings.align_corners
        channels = reduced = settings.channels[1]
        self.reduce = None
        if settings.reduce:
            reduced = channels // max(len(self.bins), 1)
            self.reduce = nn.ModuleList(ConvBN(channels, reduced, 1, **settings.unit_arguments)
                                        for _ in self.bins)
        self.out_channels = channels + reduced * len(self.bins)

    def levels(self, x: torch.Tensor) -> Sequence[torch.Tensor]:
        """(N, C, b, b) for each b of `bins`: pooled, and reduced where that is asked for."""
        if not self.bins:
            return []
        levels = ops.pyramid_pool2d(x, self.bins, self.pool)
        if self.reduce is None:
            return list(levels)
        return normalize_together(self.reduce, [unit.conv(level)
                                                for unit, level in zip(self.reduce, levels)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        upsampled = [upsample2d(level, x.shape[2:], self.align_corners)
                     for level in self.levels(x)]
        return torch.cat([x, *reversed(upsampled)], 1) if upsampled else x


class Classifier(nn.Module):
    """3x3 convolution, BN, ReLU, dropout, 1x1 convolution with bias."""

    def __init__(self, in_channels: int, channels: int, settings: NetworkSettings) -> None:
        super().__init__()
        self.conv = ConvBN(in_channels, channels, 3, **settings.unit_arguments)
        self.dropout = (nn.Dropout2d if settings.spatial_dropout else nn.Dropout)(settings.dropout)
        self.score = convolution(settings.arithmetic)(channels, settings.classes, 1)
        self.align_corners = settings.align_corners

    def forward(self, x: torch.Tensor, levels: Sequence[torch.Tensor] = ()) -> torch.Tensor:
        """Scores of x or, with levels of a pyramid, of x beside their upsampled maps."""
        x = (self.conv.normalize(pyramid_conv2d(x, levels, self.conv.conv.weight,
                                                self.align_corners)) if levels
             else self.conv(x))
        return self.score(self.dropout(x))


class PSPNet(nn.Module):
    """Pyramid scene parsing network.

    Args and errors are those of model.settings.NetworkSettings, which is then `settings`:
    PSPNet(**net.settings) is the same network.

    Weights start as in the original: convolutions normal with deviation sqrt(2 / fan_in), biases
    0, BN slope 1. Input is what `prepare` makes of an image, by default BGR, 0..255, minus the
    mean. Source: paper, section 3, and the released prototxts.
    """

    __signature__ = inspect.signature(NetworkSettings)
    Settings, Backbone = NetworkSettings, ResNet

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__()
        self.settings = settings = self.Settings(*arguments, **options)
        self.arithmetic = settings.arithmetic
        self.classes = settings.classes
        self.factorized = settings.head == "factorized"
        self.align_corners = settings.align_corners
        self.any_size = not settings.ceil_mode
        self.image_input = ImageInput(settings.input_order, settings.input_mean,
                                      settings.input_std)
        self.backbone = self.Backbone(settings.unit_arguments, **settings.backbone_arguments)
        self.pyramid = PyramidPooling(settings)
        self.head = Classifier(self.pyramid.out_channels, settings.head_width, settings)
        self.auxiliary = (Classifier(settings.channels[0], settings.aux_width, settings)
                          if settings.aux else None)
        for module in self.modules():
            # Of "meta" there is nothing to draw, and torch would load its compiler for it: 2 s.
            if isinstance(module, nn.Conv2d) and not module.weight.is_meta:
                nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    @property
    def stride(self) -> int:
        """Input pixels a step of the feature map: 8 as released."""
        return self.backbone.stride

    def check_crop(self, *sizes: int) -> None:
        """Raise ValueError unless each size in pixels is stride * k + 1, or any where ceil_mode is
        False, and holds all bins."""
        checks.crop(sizes, self.stride, self.pyramid.bins, self.any_size)

    def prepare(self, image_rgb: np.ndarray) -> torch.Tensor:
        """A (H, W, 3) uint8 RGB photograph as this network's input: channels in `input_order`, less
        `input_mean`, divided by `input_std`. Raises ValueError for other images.

        Returns:
            (1, 3, H, W) float32 on the CPU. The network pads it with zeros: the mean.
        """
        return self.image_input.tensor(image_rgb)

    def logits(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor | None]:
        """Scores before the last interpolation.

        Args:
            x: (N, 3, H, W) float, see `prepare`.
        Returns:
            (N, classes, h, w), h = (H - 1) // stride + 1; in training mode (logits, aux_logits),
            the latter None without an auxiliary branch.
        """
        stage4, stage5 = self.backbone(x)
        if self.factorized:
            logits = self.head(stage5, self.pyramid.levels(stage5))
        else:
            logits = self.head(self.pyramid(stage5))
        if not self.training:
            return logits
        return logits, None if self.auxiliary is None else self.auxiliary(stage4)

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor | None]:
        """In eval mode scores (N, classes, H, W) of sizes that `check_crop` allows; in training as
        `logits`."""
        if self.training:
            return self.logits(x)
        self.check_crop(*x.shape[2:])
        return upsample2d(self.logits(x), x.shape[2:], self.align_corners)

    def for_inference(self, dtype: torch.dtype | None = None,
                      plain: bool = False) -> FusedPSPNet | PlainPSPNet:
        """A copy for testing: BN folded, ReLU and additions fused, on the same device.

        Same `logits`, `forward`, `prepare`, `check_crop`, `classes` and `stride`; results differ by
        rounding (largest error over largest logit at most 1e-4 in float32). The head is factorized
        whatever `head` says. Later changes of this network do not reach the copy.

        Args:
            dtype: of weights and maps, such as torch.bfloat16; None: this network's, which the last
                convolution and the logits have in any case.
            plain: BN is folded, and all else is literal, in torch's own operators: for
                torch.jit.trace, torch.export and torch.onnx. Slower.
        Raises:
            ValueError: in training mode.
        """
        if self.training:
            raise ValueError("for_inference needs the network in eval mode, whose batch "
                             "normalization is fixed: call .eval()")
        return (PlainPSPNet if plain else FusedPSPNet)(self, dtype)

    def receptive_field(self) -> int:
        """Pixels a side that a score sees without the pyramid, along the longest path."""
        size, step = 1, 1
        units = [unit for branch, _ in self.backbone.residuals() for unit in branch]
        for part in [*self.backbone.before_residuals(), *units, self.head.conv]:
            kernel, stride, dilation = ((3, 2, 1) if isinstance(part, MaxPool) else
                                        (part.conv.kernel_size[0], part.conv.stride[0],
                                         part.conv.dilation[0]))
            size += (kernel - 1) * dilation * step
            step *= stride
        return size
