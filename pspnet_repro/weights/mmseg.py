"""Files of mmsegmentation into our PSPNet."""

import os

from pspnet_repro.weights.adopt import Plan, size
from pspnet_repro.weights.ports import BINS, TRAINED, check_levels, classifier, pyramid
from pspnet_repro.weights.torchvision import INPUT, INPUT_WORDS, read_backbone


def plan(path: str | os.PathLike, state: dict, align_corners: bool = False) -> Plan:
    """The Plan of a state dict with mmsegmentation's names. `align_corners` is as in the
    configuration, which the file cannot tell."""
    settings, backbone = read_backbone(path, state, "backbone.")
    level = "decode_head.psp_modules.%d.1"
    check_levels(path, state, level + ".conv")
    aux = any(name.startswith("auxiliary_head.") for name in state)
    modules = {f"backbone.{ours}": theirs for ours, theirs in backbone.items()}
    modules |= pyramid(lambda k: (f"{level % k}.conv", f"{level % k}.bn"))
    for ours, head, unit in (("head", "decode_head", "bottleneck"),
                             ("auxiliary", "auxiliary_head", "convs.0")):
        modules |= classifier(ours, f"{head}.{unit}.conv", f"{head}.{unit}.bn", f"{head}.conv_seg")
    corners = "aligned corners" if align_corners else "half-pixel centres"
    return Plan(
        {"classes": size(state, "decode_head.conv_seg.weight"), **settings, **INPUT, "bins": BINS,
         "head_width": size(state, "decode_head.bottleneck.conv.weight"), "aux": aux,
         "aux_width": size(state, "auxiliary_head.convs.0.conv.weight") if aux else None,
         **TRAINED, "align_corners": align_corners,
         "contract_dilation": True, "ceil_mode": False},
        modules, ("backbone.", "decode_head.", "auxiliary_head."), ("backbone.fc.",),
        levels_reversed=True,
        differences=(
            "stride: in the 3x3 convolutions at every depth (Caffe's PSPNet50: in the 1x1)",
            "dilation: the first bottlenecks of stages 4 and 5 have 1 and 2 (Caffe: 2 and 4)",
            "first pooling: without a window for a last odd pixel (Caffe: with one), so images "
            "need not be 8k + 1 pixels",
            "pyramid: levels 1, 2, 3, 6 are concatenated in this order (Caffe: 6, 3, 2, 1); the "
            "columns of the 3x3 convolution after it are permuted, the sums are the same",
            f"upsampling: {corners}, in the pyramid and of the scores (Caffe: aligned corners)",
            "dropout: whole channels (Caffe: elements)",
            "BN: torch's, momentum 0.1 (Caffe: 0.05 in torch's sense)", INPUT_WORDS,
            "protocol: semseg's is the default; mmsegmentation's own tests are not imitated"),
        assumptions=(
            f"upsampling has {corners}: the 769x769 configurations have aligned corners, all "
            f"others half-pixel centres; {'leave out' if align_corners else 'give'} "
            f"--align-corners for the other",
            "the configuration is a -d8 one of style pytorch with contract_dilation: strides "
            "1, 2, 1, 1 in the 3x3 convolutions, dilations 1, 1, 2, 4",
            "the bins (pool_scales) are 1, 2, 3, 6, and the input is ImageNet's usual one"),
        protocol="semseg")
