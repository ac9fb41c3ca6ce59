"""Our module names and the original's layer names, one to one."""

from pspnet_repro.model.resnet import MiniBackbone

_UNITS = {"reduce": "1x1_reduce", "spatial": "3x3", "increase": "1x1_increase",
          "project": "1x1_proj"}
_STEMS = {3: ("conv1_1_3x3_s2", "conv1_2_3x3", "conv1_3_3x3"), 1: ("conv1_7x7_s2",)}


def caffe_names(model):
    """Names of a PSPNet's convolutions and BNs in the original.

    Args:
        model: a PSPNet.
    Returns:
        A dictionary from module path, such as "backbone.stage2.0.reduce.conv", to layer name, such
        as "conv2_1_1x1_reduce", in the order of the network. A layer's blobs are the module's
        tensors: weight and bias of a convolution; weight, bias, running_mean and running_var of a
        BN.

    Source: the released prototxts. A classic stem has no name there; it gets the one of the
    ImageNet networks, conv1_7x7_s2. The miniature network's names are those of tests/golden/solver.
    """
    names = {}

    def unit(path, layer):
        names[f"{path}.conv"] = layer
        names[f"{path}.bn"] = f"{layer}/bn"

    backbone = model.backbone
    mini = isinstance(backbone, MiniBackbone)
    if mini:
        for part in ("conv1", "conv2", "conv3"):
            unit(f"backbone.{part}", part)
    else:
        _name_resnet(backbone, unit)
    if model.pyramid.reduce is not None:
        for k, bins in enumerate(model.pyramid.bins):
            unit(f"pyramid.reduce.{k}", f"{pyramid_prefix(model)}pool{bins}_conv")
    unit("head.conv", "conv5_4" if mini else f"conv5_{len(backbone.stage5) + 1}")
    names["head.score"] = "conv6"
    if model.auxiliary is not None:
        unit("auxiliary.conv", "conv_aux" if mini else f"conv4_{len(backbone.stage4) + 1}")
        names["auxiliary.score"] = "conv6_1"
    return names


def _name_resnet(backbone, unit):
    for k, layer in enumerate(_STEMS[len(backbone.stem)]):
        unit(f"backbone.stem.{k}", layer)
    for stage in (2, 3, 4, 5):
        for k, block in enumerate(getattr(backbone, f"stage{stage}")):
            for part, suffix in _UNITS.items():
                if getattr(block, part) is not None:
                    unit(f"backbone.stage{stage}.{k}.{part}", f"conv{stage}_{k + 1}_{suffix}")


def pyramid_prefix(model):
    """What the names of the pyramid's layers begin with: "conv5_3_" in the released networks."""
    if isinstance(model.backbone, MiniBackbone):
        return ""
    return f"conv5_{len(model.backbone.stage5)}_"
