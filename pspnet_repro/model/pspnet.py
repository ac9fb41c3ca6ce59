"""PSPNet: every ablation of Table 1 is an argument."""

import torch
from torch import nn

from pspnet_repro import ops
from pspnet_repro.model.factorized_head import pyramid_conv2d
from pspnet_repro.model.fused import FusedPSPNet
from pspnet_repro.model.resnet import (
    BLOCKS,
    ConvBN,
    MaxPool,
    MiniBackbone,
    ResNet,
    convolution,
    stage_widths,
)
from pspnet_repro.ops import checks

REDUCTION = 4  # of the head's convolutions against the features that they read


class PyramidPooling(nn.Module):
    """Features beside their pooled, reduced and upsampled summaries (paper, 3.2).

    Args:
        channels: of the features.
        bins: bins a side of each level; empty: the features alone.
        pool: "ave" or "max".
        reduce: 1x1 convolutions to channels / len(bins) before upsampling; otherwise pooled
            features are upsampled as they are.
        bn: keyword arguments of SyncBatchNorm2d.

    The concatenation's order is the original's: features, then levels from the last to the first.
    """

    def __init__(self, channels, bins, pool, reduce, **bn):
        super().__init__()
        self.bins = tuple(bins)
        self.pool = pool
        reduced = channels // len(self.bins) if reduce and self.bins else channels
        if reduced < 1:
            raise ValueError(f"bins must name at most as many levels as the {channels} channels, "
                             f"got {len(self.bins)}")
        self.reduce = (nn.ModuleList(ConvBN(channels, reduced, 1, **bn) for _ in self.bins)
                       if reduce else None)
        self.out_channels = channels + reduced * len(self.bins)

    def levels(self, x):
        """(N, C, b, b) for each b of `bins`: pooled, and reduced where that is asked for."""
        if not self.bins:
            return []
        levels = ops.pyramid_pool2d(x, self.bins, self.pool)
        if self.reduce is None:
            return list(levels)
        return [reduce(level) for reduce, level in zip(self.reduce, levels)]

    def forward(self, x):
        upsampled = [ops.interp2d(level, x.shape[2:]) for level in self.levels(x)]
        return torch.cat([x, *reversed(upsampled)], 1) if upsampled else x


class Classifier(nn.Module):
    """3x3 convolution, BN, ReLU, dropout, 1x1 convolution with bias."""

    def __init__(self, in_channels, channels, classes, dropout, spatial_dropout, **bn):
        super().__init__()
        self.conv = ConvBN(in_channels, channels, 3, **bn)
        self.dropout = (nn.Dropout2d if spatial_dropout else nn.Dropout)(dropout)
        self.score = convolution(bn.get("arithmetic"))(channels, classes, 1)

    def forward(self, x, levels=()):
        """Scores of x or, with levels of a pyramid, of x beside their upsampled maps."""
        x = (self.conv.normalize(pyramid_conv2d(x, levels, self.conv.conv.weight)) if levels
             else self.conv(x))
        return self.score(self.dropout(x))


class PSPNet(nn.Module):
    """Pyramid scene parsing network.

    Args:
        classes: number of classes.
        depth: 50, 101, 152 or 269; sets `blocks` where they are not given.
        bins: bins a side of each pyramid level; () is the baseline without a pyramid.
        pool: "ave" or "max".
        reduce: 1x1 convolutions after pooling (DR in Table 1).
        aux: the auxiliary branch after stage 4; used in training mode only.
        stem, stem_width, strides, dilations: see ResNet.
        width: factor of the stages' channels (1.0: 64/256 ... 512/2048); sets `widths` (see ResNet)
            where they are not given.
        stride_in: "1x1" or "3x3"; None is as released: "1x1" at depth 50, else "3x3".
        blocks: four numbers of bottlenecks, for miniature networks.
        head_width, aux_width: channels before the score convolutions; None: a quarter of the
            features that the convolution's branch starts from.
        backbone: "resnet", or "mini": MiniBackbone(stem_width), to which no other argument of the
            backbone applies.
        dropout: ratio of element-wise dropout before both score convolutions.
        arithmetic: "torch", or "original": convolutions, BN and loss sum in the order of the
            original's CPU program, bit for bit (float32 on the CPU; elsewhere as "torch"), several
            times slower. Needs head "literal" and variance "biased".
        spatial_dropout: drop whole channels instead, as many ports do; for the fidelity ablation.
        variance, initial_running_var: see SyncBatchNorm2d.
        head: "factorized" computes conv5_4 on the pyramid without upsampled maps (see
            factorized_head.py); "literal" in the original's order of operations. The same function
            of the same parameters; results differ by rounding.
    Raises:
        ValueError: an argument out of range.

    Weights start as in the original: convolutions normal with deviation sqrt(2 / fan_in), biases
    0, BN slope 1. Input is BGR, 0..255, minus the mean. `settings` holds the arguments that make
    this network again, whatever the defaults and short forms (depth, width) that made it; of
    starting values it says nothing. Source: paper, section 3, and the released prototxts.
    """

    def __init__(self, classes, depth=50, bins=(1, 2, 3, 6), pool="ave", reduce=True, aux=True, *,
                 stem="deep", stem_width=64, width=1.0, strides=(1, 2, 1, 1),
                 dilations=(1, 1, 2, 4), stride_in=None, blocks=None, dropout=0.1,
                 variance="unbiased", initial_running_var=1.0, widths=None,
                 head_width=None, aux_width=None, backbone="resnet", head="factorized",
                 spatial_dropout=False, arithmetic="torch"):
        super().__init__()
        if classes < 1:
            raise ValueError(f"classes must be at least 1, got {classes}")
        blocks = BLOCKS.get(depth) if blocks is None else blocks
        if blocks is None:
            raise ValueError(f"depth must be one of {', '.join(map(str, BLOCKS))}, got {depth}")
        if pool not in ("ave", "max"):
            raise ValueError(f'pool must be "ave" or "max", got {pool!r}')
        if any(b < 1 for b in bins):
            raise ValueError(f"bins must be at least 1, got {tuple(bins)}")
        if backbone not in ("resnet", "mini"):
            raise ValueError(f'backbone must be "resnet" or "mini", got {backbone!r}')
        if head not in ("factorized", "literal"):
            raise ValueError(f'head must be "factorized" or "literal", got {head!r}')
        if arithmetic not in ("torch", "original"):
            raise ValueError(f'arithmetic must be "torch" or "original", got {arithmetic!r}')
        if arithmetic == "original" and (head, variance) != ("literal", "biased"):
            raise ValueError('arithmetic "original" needs head "literal" and variance "biased", '
                             f'got {head!r} and {variance!r}')
        bn = {"variance": variance, "initial_running_var": initial_running_var,
              "arithmetic": arithmetic}
        self.arithmetic = arithmetic
        self.classes = classes
        self.factorized = head == "factorized"
        self.backbone = MiniBackbone(stem_width, **bn) if backbone == "mini" else ResNet(
            blocks, stem, stem_width, stage_widths(width) if widths is None else widths, strides,
            dilations, stride_in or ("1x1" if depth == 50 else "3x3"), **bn)
        middle, features = self.backbone.stage_channels[-2:]
        head_width = features // REDUCTION if head_width is None else head_width
        aux_width = middle // REDUCTION if aux_width is None else aux_width
        if min(head_width, aux_width if aux else 1) < 1:
            raise ValueError(f"head_width and aux_width must be at least 1, got {head_width} and "
                             f"{aux_width}")
        self.pyramid = PyramidPooling(features, bins, pool, reduce, **bn)
        self.head = Classifier(self.pyramid.out_channels, head_width, classes, dropout,
                               spatial_dropout, **bn)
        self.auxiliary = (Classifier(middle, aux_width, classes, dropout, spatial_dropout, **bn)
                          if aux else None)
        # Without a pyramid its kind means nothing, without the branch neither does its width.
        self.settings = {
            "classes": classes, "bins": tuple(bins), "pool": pool if bins else "ave",
            "reduce": bool(reduce) if bins else True, "aux": bool(aux), "dropout": dropout,
            "spatial_dropout": bool(spatial_dropout), "variance": variance,
            "head_width": head_width, "aux_width": aux_width if aux else None, "backbone": backbone,
            "head": head if bins or arithmetic == "original" else "factorized",
            "arithmetic": arithmetic,
            **self.backbone.settings}
        self.settings.pop("pool_padding", None)  # crops of stride * k + 1 pixels need 1
        for module in self.modules():
            # Of "meta" there is nothing to draw, and torch would load its compiler for it: 2 s.
            if isinstance(module, nn.Conv2d) and not module.weight.is_meta:
                nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    @property
    def stride(self):
        """Input pixels a step of the feature map: 8 as released."""
        return self.backbone.stride

    def check_crop(self, *sizes):
        """Raise ValueError unless each size in pixels is stride * k + 1 and holds all bins."""
        checks.crop(sizes, self.stride, self.pyramid.bins)

    def logits(self, x):
        """Scores before the last interpolation.

        Args:
            x: (N, 3, H, W) float, BGR minus the mean.
        Returns:
            (N, classes, h, w), h = (H - 1) / stride + 1; in training mode (logits, aux_logits),
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

    def forward(self, x):
        """In eval mode scores (N, classes, H, W), H and W stride * k + 1; in training as logits."""
        if self.training:
            return self.logits(x)
        self.check_crop(*x.shape[2:])
        return ops.interp2d(self.logits(x), x.shape[2:])

    def for_inference(self, dtype=None):
        """A copy for testing: BN folded, ReLU and additions fused, on the same device.

        Same `logits`, `forward`, `check_crop`, `classes` and `stride`; results differ by rounding
        (largest error over largest logit at most 1e-4 in float32). The head is factorized whatever
        `head` says. Later changes of this network do not reach the copy.

        Args:
            dtype: of weights and maps, such as torch.bfloat16; None: this network's, which the last
                convolution and the logits have in any case.
        Raises:
            ValueError: in training mode.
        """
        if self.training:
            raise ValueError("for_inference needs the network in eval mode, whose batch "
                             "normalization is fixed: call .eval()")
        return FusedPSPNet(self, dtype)

    def receptive_field(self):
        """Pixels a side that a score sees without the pyramid, along the longest path."""
        size, step = 1, 1
        for part in [*self.backbone.longest_path(), self.head.conv]:
            kernel, stride, dilation = ((3, 2, 1) if isinstance(part, MaxPool) else
                                        (part.conv.kernel_size[0], part.conv.stride[0],
                                         part.conv.dilation[0]))
            size += (kernel - 1) * dilation * step
            step *= stride
        return size
