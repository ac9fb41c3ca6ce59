"""Files of kazuto1011's PyTorch conversion of the released caffemodels into our PSPNet."""

import os

from pspnet_repro.errors import UserError
from pspnet_repro.weights.adopt import Plan, size
from pspnet_repro.weights.ports import BINS, check_levels, classifier, pyramid

_PARTS = {"reduce": "reduce", "spatial": "conv3x3", "increase": "increase", "project": "proj"}


def plan(path: str | os.PathLike, state: dict, align_corners: bool = False) -> Plan:
    """The Plan of a state dict with kazuto1011's names."""
    def unit(ours, theirs):
        return {f"{ours}.conv": f"{theirs}.conv", f"{ours}.bn": f"{theirs}.bn"}

    modules, blocks = {}, []
    for k in range(3):
        modules |= unit(f"backbone.stem.{k}", f"fcn.layer1.conv{k + 1}")
    for stage in (2, 3, 4, 5):
        numbers = {name.split(".")[2] for name in state if name.startswith(f"fcn.layer{stage}.")}
        blocks.append(len(numbers))
        for k in range(len(numbers)):
            for part, theirs in _PARTS.items():
                modules |= unit(f"backbone.stage{stage}.{k}.{part}",
                                f"fcn.layer{stage}.block{k + 1}.{theirs}")
    if min(blocks) < 1:
        raise UserError(f"{path}: lacks fcn.layer{blocks.index(0) + 2}.block1")
    # Later versions of the program call the levels 0, 1, ...
    level = "ppm.stages.s%d" if any(name.startswith("ppm.stages.s0.") for name in state) else (
        "ppm.stages.%d")
    check_levels(path, state, level + ".")
    last = len(BINS) - 1
    modules |= pyramid(lambda k: (f"{level % (last - k)}.conv.conv",
                                  f"{level % (last - k)}.conv.bn"))
    modules |= classifier("head", "final.conv5_4.conv", "final.conv5_4.bn", "final.conv6")
    modules |= classifier("auxiliary", "aux.conv4_aux.conv", "aux.conv4_aux.bn", "aux.conv6_1")
    aux = any(name.startswith("aux.") for name in state)
    widths = (size(state, f"fcn.layer{stage}.block1.reduce.conv.weight")
              for stage in (2, 3, 4, 5))
    return Plan(
        {"classes": size(state, "final.conv6.weight"), "blocks": tuple(blocks), "bins": BINS,
         "stem": "deep", "stem_width": size(state, "fcn.layer1.conv1.conv.weight"),
         "widths": tuple(widths), "stride_in": "3x3", "aux": aux, "ceil_mode": False,
         "head_width": size(state, "final.conv5_4.conv.weight"),
         "aux_width": size(state, "aux.conv4_aux.conv.weight") if aux else None,
         "spatial_dropout": True, "variance": "torch"},
        modules, ("fcn.", "ppm.", "final.", "aux."),
        differences=(
            "stride: in the 3x3 convolutions at every depth (Caffe's PSPNet50, of which its "
            "ADE20K file is a conversion, has it in the 1x1: convert the caffemodel for that)",
            "first pooling: without a window for a last odd pixel (Caffe: with one)",
            "dropout: whole channels (Caffe: elements)",
            "BN: torch's, momentum 0.95 in torch's sense, which was meant in Caffe's: it stays "
            "0.05 in torch's sense (the same in tests)",
            "output: its program ends at an eighth of the size, which .logits gives; upsampling "
            "has aligned corners, as the torch of its time",
            "protocol: Caffe's is the default"),
        assumptions=("the bins are 6, 3, 2, 1, and the stride is in the 3x3 convolutions (its "
                     "first version had it in the 1x1)",),
        protocol="caffe")
