"""Files of semseg, the authors' later PyTorch program, into our PSPNet."""

import os

from pspnet_repro.weights.adopt import Plan, size
from pspnet_repro.weights.ports import BINS, check_levels, classifier, pyramid
from pspnet_repro.weights.torchvision import INPUT, INPUT_WORDS, read_backbone


def plan(path: str | os.PathLike, state: dict, align_corners: bool = False) -> Plan:
    """The Plan of a state dict with semseg's names."""
    settings, backbone = read_backbone(path, state)
    check_levels(path, state, "ppm.features.%d.")
    aux = any(name.startswith("aux.") for name in state)
    modules = {f"backbone.{ours}": theirs for ours, theirs in backbone.items()}
    modules |= pyramid(lambda k: (f"ppm.features.{k}.1", f"ppm.features.{k}.2"))
    modules |= classifier("head", "cls.0", "cls.1", "cls.4")
    modules |= classifier("auxiliary", "aux.0", "aux.1", "aux.4")
    return Plan(
        {"classes": size(state, "cls.4.weight"), **settings, **INPUT, "bins": BINS, "aux": aux,
         "head_width": size(state, "cls.0.weight"),
         "aux_width": size(state, "aux.0.weight") if aux else None,
         "spatial_dropout": True, "variance": "torch"},
        modules, ("layer", "ppm.", "cls.", "aux."), levels_reversed=True,
        differences=(
            "stride: in the 3x3 convolutions at every depth (Caffe's PSPNet50: in the 1x1)",
            "pyramid: levels 1, 2, 3, 6 are concatenated in this order (Caffe: 6, 3, 2, 1); the "
            "columns of the 3x3 convolution after it are permuted, the sums are the same",
            "dropout: whole channels (Caffe: elements)",
            "BN: torch's, momentum 0.1 (Caffe: 0.05 in torch's sense)", INPUT_WORDS,
            "protocol: semseg's tests, which the file's network has as its default"),
        assumptions=("the bins are 1, 2, 3, 6, and stages 4 and 5 have dilations 2 and 4 (zoom "
                     "factor 8), as in all of its configurations",),
        protocol="semseg")
