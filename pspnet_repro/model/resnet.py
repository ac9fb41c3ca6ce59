"""The dilated ResNet under PSPNet: plain constructors, no pretrained weights."""

import math

from torch import nn

from pspnet_repro import ops
from pspnet_repro.exact.layers import OriginalBatchNorm2d, OriginalConv2d
from pspnet_repro.sync_bn import SyncBatchNorm2d

BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3), 269: (3, 30, 48, 8)}
WIDTHS = (64, 128, 256, 512)
EXPANSION = 4
MAX_WIDTH = 8  # times the released networks: beyond is a slip, and exhausts the memory
MAX_BLOCKS = 1000  # a stage


def stage_widths(width):
    """Channels inside the bottlenecks of the four stages at a factor of the released networks.

    Raises:
        ValueError: a factor out of range.
    """
    if not (0 < width <= MAX_WIDTH and round(WIDTHS[0] * width) >= 1):
        raise ValueError(f"width must be at most {MAX_WIDTH} and leave a channel of {WIDTHS[0]}, "
                         f"got {width}")
    return tuple(round(w * width) for w in WIDTHS)


def check_stem_width(stem_width):
    """Raise ValueError for a number of channels out of range."""
    if not 1 <= stem_width <= 64 * MAX_WIDTH:
        raise ValueError(f"stem_width must be 1 to {64 * MAX_WIDTH}, got {stem_width}")


def convolution(arithmetic):
    """The class of convolutions for "torch" or "original"."""
    return OriginalConv2d if arithmetic == "original" else nn.Conv2d


class ConvBN(nn.Module):
    """Convolution without bias, BN, and ReLU unless `relu` is False; padding keeps the size."""

    def __init__(self, in_channels, out_channels, kernel_size=1, stride=1, dilation=1, relu=True,
                 arithmetic="torch", **bn):
        super().__init__()
        self.conv = convolution(arithmetic)(
            in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2 * dilation,
            dilation=dilation, bias=False)
        self.bn = (OriginalBatchNorm2d if arithmetic == "original" else SyncBatchNorm2d)(
            out_channels, **bn)
        self.relu = relu

    def forward(self, x):
        return self.normalize(self.conv(x))

    def normalize(self, x):
        """BN and ReLU of the convolution's output."""
        if isinstance(self.bn, SyncBatchNorm2d):
            return self.bn(x, self.relu)
        # A layer that convert_to_torch put there.
        return self.bn(x).relu_() if self.relu else self.bn(x)


class Bottleneck(nn.Module):
    """1x1 reduce, 3x3, 1x1 increase, plus the input (projected where shapes change), ReLU.

    Args:
        stride_in: "1x1" puts the stride into the reduction (released PSPNet50), "3x3" into the
            3x3 (released PSPNet101): the same weights fit both, results differ.
    """

    def __init__(self, in_channels, width, stride, dilation, stride_in, project, **bn):
        super().__init__()
        out_channels = width * EXPANSION
        first, second = (stride, 1) if stride_in == "1x1" else (1, stride)
        self.reduce = ConvBN(in_channels, width, 1, first, **bn)
        self.spatial = ConvBN(width, width, 3, second, dilation, **bn)
        self.increase = ConvBN(width, out_channels, 1, relu=False, **bn)
        self.project = (ConvBN(in_channels, out_channels, 1, stride, relu=False, **bn)
                        if project else None)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        shortcut = x if self.project is None else self.project(x)
        return self.relu(self.increase(self.spatial(self.reduce(x))) + shortcut)


class MaxPool(nn.Module):
    """pool1: MAX 3x3, stride 2, by the original's window rule."""

    def __init__(self, padding=1):
        super().__init__()
        self.padding = padding

    def forward(self, x):
        return ops.window_pool2d(x, 3, 2, self.padding, "max")


class ResNet(nn.Module):
    """Stem and stages 2 to 5 (the original's conv1 ... conv5).

    Args:
        blocks: bottlenecks a stage, four numbers of at least 1.
        stem: "deep" (3x3 stride 2, 3x3, 3x3) or "classic" (7x7 stride 2), then pool1.
        stem_width: channels of the stem's first convolutions; a deep stem ends with twice as many.
        widths: channels inside the bottlenecks of each stage, which leave it with four times as
            many; the released networks have 64, 128, 256, 512.
        strides, dilations: of the 3x3 convolutions of each stage; the released networks have
            strides 1, 2, 1, 1 and dilations 1, 1, 2, 4. A stage without dilation has stride 2,
            dilation 1.
        stride_in: "1x1" or "3x3", see Bottleneck.
        pool_padding: of pool1: 1 as in the released networks; many ImageNet networks have 0.
        bn: keyword arguments of SyncBatchNorm2d, and `arithmetic`, see PSPNet.

    `settings` holds the arguments but `bn`.
    """

    def __init__(self, blocks, stem="deep", stem_width=64, widths=WIDTHS, strides=(1, 2, 1, 1),
                 dilations=(1, 1, 2, 4), stride_in="1x1", pool_padding=1, **bn):
        super().__init__()
        self.settings = {"blocks": tuple(blocks), "stem": stem, "stem_width": stem_width,
                         "widths": tuple(widths), "strides": tuple(strides),
                         "dilations": tuple(dilations), "stride_in": stride_in,
                         "pool_padding": pool_padding}
        for name in ("blocks", "widths", "strides", "dilations"):
            value = self.settings[name]
            if len(value) != 4 or any(v < 1 for v in value):
                raise ValueError(f"{name} must be 4 numbers of at least 1, got {value}")
        if max(blocks) > MAX_BLOCKS:
            raise ValueError(f"blocks must be at most {MAX_BLOCKS}, got {tuple(blocks)}")
        if any(w > full * MAX_WIDTH for w, full in zip(widths, WIDTHS)):
            raise ValueError(f"widths must be at most {MAX_WIDTH} times {WIDTHS}, got "
                             f"{tuple(widths)}")
        check_stem_width(stem_width)
        if stem not in ("deep", "classic"):
            raise ValueError(f'stem must be "deep" or "classic", got {stem!r}')
        if stride_in not in ("1x1", "3x3"):
            raise ValueError(f'stride_in must be "1x1" or "3x3", got {stride_in!r}')
        if max(strides) == 1:
            self.settings["stride_in"] = "1x1"  # either place is the same
        if pool_padding not in (0, 1):
            raise ValueError(f"pool_padding must be 0 or 1, got {pool_padding!r}")
        if stem == "deep":
            channels = 2 * stem_width
            self.stem = nn.Sequential(ConvBN(3, stem_width, 3, 2, **bn),
                                      ConvBN(stem_width, stem_width, 3, **bn),
                                      ConvBN(stem_width, channels, 3, **bn))
        else:
            channels = stem_width
            self.stem = nn.Sequential(ConvBN(3, stem_width, 7, 2, **bn))
        self.pool = MaxPool(pool_padding)
        self.stride = 4 * math.prod(strides)
        self.stage_channels = []
        for k in range(4):
            stage = []
            for i in range(blocks[k]):
                stage.append(Bottleneck(channels, widths[k], strides[k] if i == 0 else 1,
                                        dilations[k], stride_in, project=i == 0, **bn))
                channels = widths[k] * EXPANSION
            setattr(self, f"stage{k + 2}", nn.Sequential(*stage))
            self.stage_channels.append(channels)

    def forward(self, x):
        """(N, 3, H, W) -> the outputs of stage 4 and stage 5."""
        x = self.stage3(self.stage2(self.pool(self.stem(x))))
        stage4 = self.stage4(x)
        # A view, so that what stage 5 returns to it is one sum before the auxiliary branch's joins.
        return stage4, self.stage5(stage4.view_as(stage4))

    def longest_path(self):
        """The modules with a window that a value passes, at most."""
        blocks = [block for stage in (self.stage2, self.stage3, self.stage4, self.stage5)
                  for block in stage]
        return [*self.stem, self.pool, *(unit for block in blocks for unit in
                                         (block.reduce, block.spatial, block.increase))]


class MiniBackbone(nn.Module):
    """The four convolutions of the recorded trainings' miniature network (tests/golden/solver).

    conv1 3x3 stride 2, pool1, conv2 3x3 stride 2, and conv3 3x3 with dilation 2 beside a shortcut.

    Args:
        stem_width: channels of conv1; conv2 and conv3 have twice as many.
        bn: keyword arguments of SyncBatchNorm2d, and `arithmetic`, see PSPNet.
    """

    stride = 8

    def __init__(self, stem_width=8, **bn):
        super().__init__()
        check_stem_width(stem_width)
        self.settings = {"stem_width": stem_width}
        channels = 2 * stem_width
        self.conv1 = ConvBN(3, stem_width, 3, 2, **bn)
        self.pool = MaxPool()
        self.conv2 = ConvBN(stem_width, channels, 3, 2, **bn)
        self.conv3 = ConvBN(channels, channels, 3, 1, 2, relu=False, **bn)
        self.relu = nn.ReLU(inplace=True)
        self.stage_channels = [channels, channels]

    def forward(self, x):
        """(N, 3, H, W) -> the outputs of conv2 and of the whole."""
        conv2 = self.conv2(self.pool(self.conv1(x)))
        within = conv2.view_as(conv2)  # as in ResNet
        return conv2, self.relu(self.conv3(within) + within)

    def longest_path(self):
        """The modules with a window that a value passes, at most."""
        return [self.conv1, self.pool, self.conv2, self.conv3]
