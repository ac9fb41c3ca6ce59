"""Whose network a state dict is: told by the names of its tensors."""

import re

import torch

CONVERT = "pspnet convert FILE -o OUT.safetensors makes a file for this program of it"
BACKBONE = (f"{CONVERT}, a backbone for train --initial-weights")
SEMSEG, MMSEG, KAZUTO, RESNET = (
    "semseg's PSPNet", "mmsegmentation's PSPNet", "kazuto1011's PSPNet", "torchvision's ResNet")
_RESNETS = "only ResNets of torchvision's bottlenecks (50, 101, 152) can be converted"
OTHER = ("it cannot be loaded; PSPNets of Caffe, semseg, mmsegmentation and kazuto1011 can be "
         "converted, and ResNets of torchvision's bottlenecks (50, 101, 152)")
_ALONE = ("it cannot be loaded; pspnet convert --backbone FILE -o OUT.safetensors takes its "
          "backbone alone")
_SETTINGS = ("its settings are missing: save the network with "
             "pspnet_repro.weights.model_file.save_model")
_ANOTHER = f"it has the name but is another network, {{}}; {OTHER}"

_NETWORKS = (  # whose, beginnings of names that it has, what can be done
    (SEMSEG, ("layer0.0.", "ppm.features.", "cls."), CONVERT),
    (MMSEG, ("backbone.", "decode_head.psp_modules."), CONVERT),
    (KAZUTO, ("fcn.layer1.", "ppm.stages.", "final.conv6."), CONVERT),
    ("Lextal's PSPNet", ("feats.", "psp.stages.", "up_1.conv."), _ANOTHER.format(
        "whose scores come after three learned upsamplings and whose pyramid keeps its width")),
    ("segmentation_models.pytorch's PSPNet", ("encoder.", "decoder.psp.blocks."), _ANOTHER.format(
        "whose encoder ends at an eighth of the size without its last stages")),
    ("pytorch-semseg's PSPNet", ("convbnrelu1_1.", "pyramid_pooling.paths."),
     "it cannot be loaded; it is a copy of a released caffemodel: convert that"),
    ("semseg's PSANet", ("layer0.0.", "psa."), OTHER),
    ("an mmsegmentation network other than PSPNet", ("backbone.layer4.", "decode_head."), _ALONE),
    ("an mmsegmentation network other than PSPNet", ("backbone.", "decode_head."), OTHER),
    ("torchvision's FCN or DeepLab", ("backbone.layer4.", "classifier."), _ALONE),
    ("a PSPNet of this program", ("backbone.", "head.score."), _SETTINGS),
    ("a backbone of this program", ("stem.0.conv.", "stage2.0.reduce."), _SETTINGS))
_NAMES = re.compile(r"(conv|bn)[123]\.\w+|(conv1|stem)\.\d\.\w+|(head\.)?fc\.\w+"
                    r"|layer[1-4]\.\d+\.((conv|bn)[123]|downsample\.[01])\.\w+")
_WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network",
             "checkpoint", "ema")
_PREFIXES = ("module.", "model.", "net.", "network.", "_orig_mod.")


def state_dict_of(content: dict) -> tuple[dict, str]:
    """The tensors by name in the dictionary that a program saved, which has them at a usual place.

    Returns:
        (dictionary without "module." and the like, which wrappers put before every name; words
        that say where the tensors were or "").
    """
    places = []
    while inner := _wrapper(content):
        content = content[inner]
        places.append(f"under {inner!r}")
    while prefix := next((prefix for prefix in _PREFIXES if content and all(
            str(name).startswith(prefix) for name in content)), None):
        content = {name.removeprefix(prefix): value for name, value in content.items()}
        places.append(f"after {prefix!r}")
    return content, ", ".join(places)


def has_tensors(content: object) -> bool:
    """Whether this is a dictionary with tensors among its values."""
    return isinstance(content, dict) and any(isinstance(value, torch.Tensor)
                                             for value in content.values())


def _wrapper(content):
    """The key of the dictionary that has the tensors: a usual one, or the only one."""
    usual = [key for key in _WRAPPERS if _holds_tensors(content.get(key))]
    others = [] if has_tensors(content) else [key for key in content if has_tensors(content[key])]
    return usual[0] if usual else others[0] if len(others) == 1 else None


def _holds_tensors(content):
    return has_tensors(content) or isinstance(content, dict) and any(
        has_tensors(content.get(key)) for key in _WRAPPERS)


def network_of(state: dict) -> tuple[str, str]:
    """(whose network has such tensors, what can be done about it; FILE stands for its path)."""
    names = [str(name) for name in state]

    def has(*starts):
        return all(any(name.startswith(start) for name in names) for start in starts)

    for whose, starts, way in _NETWORKS:
        if has(*starts):
            return whose, way
    if has("backbone.layer1.0.conv1.", "backbone.layer4.0.conv1."):
        state = {name.removeprefix("backbone."): tensor for name, tensor in state.items()}
        names = list(state)
    if not has("layer1.0.conv1.", "layer4.0.conv1."):
        return f"another network, such as {names[0][:80]!r}", OTHER
    if not any(".conv3." in name for name in names):
        return "a ResNet of basic blocks (18 or 34)", _RESNETS
    middle, last = (state.get(f"layer1.0.conv{k}.weight") for k in (2, 3))
    # Of what is missing `convert` says the name.
    plain = all(_NAMES.fullmatch(name) for name in names) and (
        middle is None or last is None or middle.dim() == last.dim() == 4
        and (middle.shape[1], last.shape[0]) == (middle.shape[0], 4 * middle.shape[0]))
    return (RESNET, BACKBONE) if plain else ("a ResNet other than torchvision's", _RESNETS)
