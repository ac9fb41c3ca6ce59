"""Files of semseg, the authors' later PyTorch program, into our PSPNet, and the way back."""

import os

import torch

from pspnet_repro.errors import UserError
from pspnet_repro.model.pspnet import PSPNet
from pspnet_repro.weights import torchvision
from pspnet_repro.weights.adopt import COUNTER, Plan, reversed_levels, size
from pspnet_repro.weights.ports import BINS, TRAINED, check_levels, classifier, pyramid

# What all of semseg's PSPNets have, whatever their weights.
_FIXED = {"backbone": "resnet", "stem": "deep", "strides": (1, 2, 1, 1),
          "dilations": (1, 1, 2, 4), "stride_in": "3x3", "contract_dilation": False,
          "align_corners": True, "bins": BINS, "pool": "ave", "reduce": True, "aux": True}


def plan(path: str | os.PathLike, state: dict, align_corners: bool = False) -> Plan:
    """The Plan of a state dict with semseg's names."""
    settings, backbone = torchvision.read_backbone(path, state)
    check_levels(path, state, "ppm.features.%d.")
    aux = any(name.startswith("aux.") for name in state)
    return Plan(
        {"classes": size(state, "cls.4.weight"), **settings, **torchvision.INPUT, "bins": BINS,
         "aux": aux, "head_width": size(state, "cls.0.weight"),
         "aux_width": size(state, "aux.0.weight") if aux else None,
         **TRAINED},
        _modules(backbone), ("layer", "ppm.", "cls.", "aux."), levels_reversed=True,
        differences=(
            "stride: in the 3x3 convolutions at every depth (Caffe's PSPNet50: in the 1x1)",
            "pyramid: levels 1, 2, 3, 6 are concatenated in this order (Caffe: 6, 3, 2, 1); the "
            "columns of the 3x3 convolution after it are permuted, the sums are the same",
            "dropout: whole channels (Caffe: elements)",
            "BN: torch's, momentum 0.1 (Caffe: 0.05 in torch's sense)", torchvision.INPUT_WORDS,
            "protocol: semseg's tests, which the file's network has as its default"),
        assumptions=("the bins are 1, 2, 3, 6, and stages 4 and 5 have dilations 2 and 4 (zoom "
                     "factor 8), as in all of its configurations",),
        protocol="semseg")


def _modules(backbone):
    """{our module: semseg's}, with those of the ResNet."""
    modules = {f"backbone.{ours}": theirs for ours, theirs in backbone.items()}
    modules |= pyramid(lambda k: (f"ppm.features.{k}.1", f"ppm.features.{k}.2"))
    modules |= classifier("head", "cls.0", "cls.1", "cls.4")
    return modules | classifier("auxiliary", "aux.0", "aux.1", "aux.4")


def state_for_semseg(net: PSPNet) -> dict[str, torch.Tensor]:
    """The state dict that makes semseg's network the same as ours: `plan` the other way round.

    Every tensor of semseg's network is there, with the auxiliary branch and BN's counters (0), so
    it loads strictly.

    Raises:
        UserError: a network that computes otherwise than semseg's.
    """
    settings = net.settings
    if wrong := [name for name, value in _FIXED.items() if getattr(settings, name) != value]:
        raise UserError("not a network of semseg's program: "
                        + ", ".join(f"{name} must be {_FIXED[name]!r}, is "
                                    f"{getattr(settings, name)!r}" for name in wrong)
                        + "; pspnet export --onnx NET.onnx takes every network")
    modules = _modules(torchvision.backbone_modules(torchvision.SEMSEG_STEM, settings.blocks))
    state = {}
    for name, tensor in net.state_dict().items():
        module, _, kind = name.rpartition(".")
        if name == "head.conv.conv.weight":
            tensor = reversed_levels(tensor, net)
        state[f"{modules[module]}.{kind}"] = tensor
        if kind == "running_var":
            state[f"{modules[module]}.{COUNTER}"] = torch.tensor(0)
    return state
