"""ResNets with the names of torchvision, timm and mmsegmentation into our backbone."""

import os
from collections.abc import Sequence

from pspnet_repro.errors import UserError
from pspnet_repro.weights.adopt import Plan, count, size

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # RGB, of 0..255
INPUT = {"input_order": "rgb", "input_mean": MEAN, "input_std": STD}
INPUT_WORDS = f"input: RGB minus {MEAN}, divided by {STD} (Caffe: BGR minus a mean)"
_PARTS = {"reduce": ("conv1", "bn1"), "spatial": ("conv2", "bn2"), "increase": ("conv3", "bn3"),
          "project": ("downsample.0", "downsample.1")}
SEMSEG_STEM = [(f"layer0.{k}", f"layer0.{k + 1}") for k in (0, 3, 6)]
# Names of the stem's convolutions and BNs, by the first of them.
_STEMS = {"conv3.weight": [(f"conv{k}", f"bn{k}") for k in (1, 2, 3)],  # semseg's ImageNet networks
          "conv1.weight": [("conv1", "bn1")],
          "conv1.0.weight": [("conv1.0", "conv1.1"), ("conv1.3", "conv1.4"), ("conv1.6", "bn1")],
          "stem.0.weight": [(f"stem.{k}", f"stem.{k + 1}") for k in (0, 3, 6)],
          "layer0.0.weight": SEMSEG_STEM}


def read_backbone(path: str | os.PathLike, state: dict, prefix: str = "") -> tuple[dict, dict]:
    """(settings, modules) of the ResNet in a state dict, see Plan; names begin with `prefix`.

    Settings are blocks, widths, stem and the place of the stride. Raises UserError for a ResNet of
    another kind.
    """
    def fail(what):
        raise UserError(f"{path}: not a ResNet of bottlenecks: {what}")

    stem = next((names for first, names in _STEMS.items() if prefix + first in state), None)
    if stem is None:
        fail(f"lacks {prefix}conv1.weight")
    blocks = tuple(count(state, f"{prefix}layer{s}.%d.") for s in (1, 2, 3, 4))
    for s, number in enumerate(blocks, 1):
        for k in (1, 3):
            if not number or f"{prefix}layer{s}.0.conv{k}.weight" not in state:
                fail(f"lacks {prefix}layer{s}.0.conv{k}.weight")
    if f"{prefix}layer2.0.downsample.2.weight" in state:
        fail("its projections average first (ResNet-D), as no network here")
    return {"blocks": blocks, "stem": "deep" if len(stem) == 3 else "classic",
            "stem_width": size(state, f"{prefix}{stem[0][0]}.weight"),
            "widths": tuple(size(state, f"{prefix}layer{s}.0.conv1.weight") for s in (1, 2, 3, 4)),
            "stride_in": "3x3"}, backbone_modules(stem, blocks, prefix)


def backbone_modules(stem: list[tuple[str, str]], blocks: Sequence[int],
                     prefix: str = "") -> dict[str, str]:
    """{our module of a ResNet: theirs} for the names of the stem's convolutions and BNs."""
    modules = {}
    for k, (conv, bn) in enumerate(stem):
        modules |= {f"stem.{k}.conv": prefix + conv, f"stem.{k}.bn": prefix + bn}
    for s, number in enumerate(blocks, 1):
        for k in range(number):
            for part, (conv, bn) in _PARTS.items():
                ours, theirs = f"stage{s + 1}.{k}.{part}", f"{prefix}layer{s}.{k}."
                modules |= {f"{ours}.conv": theirs + conv, f"{ours}.bn": theirs + bn}
    return modules


def plan(path: str | os.PathLike, state: dict, align_corners: bool = False) -> Plan:
    """The Plan of an ImageNet ResNet: strides 1, 2, 2, 2; its classifier is left out."""
    prefix = "backbone." if any(name.startswith("backbone.") for name in state) else ""
    settings, modules = read_backbone(path, state, prefix)
    parts = (prefix,) if prefix else ("",)
    return Plan(
        {**settings, "strides": (1, 2, 2, 2), "dilations": (1, 1, 1, 1), "ceil_mode": False,
         **INPUT},
        modules, parts, tuple(prefix + name for name in ("fc.", "head.")),
        differences=(INPUT_WORDS, "first pooling: without a window for a last odd pixel (Caffe: "
                                  "with one)", "stride: in the 3x3 convolutions"),
        assumptions=("strides 1, 2, 2, 2 are in the 3x3 convolutions, as torchvision, timm and "
                     "style pytorch have them", "the input is ImageNet's usual one"))
