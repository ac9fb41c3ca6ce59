"""Our module names and the original's layer names, one to one."""

from typing import NamedTuple

from torch import nn

_UNITS = {"reduce": "1x1_reduce", "spatial": "3x3", "increase": "1x1_increase",
          "project": "1x1_proj"}
_STEMS = {3: ("conv1_1_3x3_s2", "conv1_2_3x3", "conv1_3_3x3"), 1: ("conv1_7x7_s2",)}


class CaffeNames(NamedTuple):
    """What a backbone decides about names in the original."""

    units: dict[str, str]  # {path of a ConvBN in the backbone: layer}, in the order of the network
    pyramid: str  # what the names of the pyramid's layers begin with
    head: str  # the layer before the scores
    auxiliary: str  # the same of that branch


def resnet_names(backbone: nn.Module) -> CaffeNames:
    """The CaffeNames of a ResNet.

    Source: the released prototxts. A classic stem has no name there; it gets the one of the
    ImageNet networks, conv1_7x7_s2.
    """
    units = {f"stem.{k}": layer for k, layer in enumerate(_STEMS[len(backbone.stem)])}
    for stage in (2, 3, 4, 5):
        for k, block in enumerate(getattr(backbone, f"stage{stage}")):
            units |= {f"stage{stage}.{k}.{part}": f"conv{stage}_{k + 1}_{suffix}"
                      for part, suffix in _UNITS.items() if getattr(block, part) is not None}
    last = len(backbone.stage5)
    return CaffeNames(units, f"conv5_{last}_", f"conv5_{last + 1}",
                      f"conv4_{len(backbone.stage4) + 1}")


def caffe_names(model: nn.Module) -> dict[str, str]:
    """Names of a PSPNet's convolutions and BNs in the original.

    Returns:
        {module path, such as "backbone.stage2.0.reduce.conv": layer name, such as
        "conv2_1_1x1_reduce"} in the order of the network. A layer's blobs are the module's tensors:
        weight and bias of a convolution; weight, bias, running_mean and running_var of a BN.
    """
    names = {}

    def unit(path, layer):
        names[f"{path}.conv"] = layer
        names[f"{path}.bn"] = f"{layer}/bn"

    by_backbone = model.backbone.caffe_names()
    for path, layer in by_backbone.units.items():
        unit(f"backbone.{path}", layer)
    if model.pyramid.reduce is not None:
        for k, bins in enumerate(model.pyramid.bins):
            unit(f"pyramid.reduce.{k}", f"{by_backbone.pyramid}pool{bins}_conv")
    unit("head.conv", by_backbone.head)
    names["head.score"] = "conv6"
    if model.auxiliary is not None:
        unit("auxiliary.conv", by_backbone.auxiliary)
        names["auxiliary.score"] = "conv6_1"
    return names
