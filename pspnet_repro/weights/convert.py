"""A file of another program, told by its content, into a network of ours."""

import os

import torch

from pspnet_repro.errors import UsageError, UserError
from pspnet_repro.model.pspnet import PSPNet
from pspnet_repro.model.resnet import ResNet
from pspnet_repro.model.settings import BackboneSettings
from pspnet_repro.weights import kazuto, mmseg, names, recognize, semseg, torchvision
from pspnet_repro.weights.adopt import Conversion, adopt
from pspnet_repro.weights.model_file import checked_content, crop_size_of, model_of
from pspnet_repro.weights.plain_file import load_content
from pspnet_repro.weights.sizes import check_tensors

_PLANS = {names.SEMSEG: semseg.plan, names.MMSEG: mmseg.plan, names.KAZUTO: kazuto.plan,
          names.RESNET: torchvision.plan}
_FACTS = ("names", "palette_rgb", "base_size", "training")  # of our files, that commands read


def convert_file(path: str | os.PathLike, backbone: bool = False,
                 align_corners: bool = False) -> Conversion:
    """The Conversion of one file: a PSPNet of semseg, mmsegmentation or kazuto1011, a ResNet with
    torchvision's names, or a file of this program, read without running code.

    Tensors may stand under "state_dict", "model" and the like, and after "module." and the like.
    Nothing of the network is folded: `PSPNet.prepare` applies order, mean and deviation of the
    input.

    Args:
        backbone: the backbone alone.
        align_corners: as in the configuration of an mmsegmentation file.
    Raises:
        UserError: a file that cannot be read, names or shapes of another network, or numbers that
            are not finite.
        UsageError: `align_corners` for another file than mmsegmentation's.
    """
    return convert_content(load_content(path), path, backbone, align_corners)


def convert_content(content: dict, path: str | os.PathLike, backbone: bool = False,
                    align_corners: bool = False) -> Conversion:
    """`convert_file` of what plain_file.load_content gave."""
    if {"settings", "weights"} & content.keys():
        content = checked_content(content, path)
        model = model_of(content, path, ResNet if content["kind"] == "backbone" else PSPNet)
        made = Conversion(model, [], crop_size_of(content), "this program's network",
                          protocol=content.get("protocol"),
                          facts={name: content[name] for name in _FACTS if name in content})
    else:
        state, whose = _state_and_network(content)
        if backbone and whose not in _PLANS and "backbone.layer1.0.conv3.weight" in state:
            whose = names.RESNET
        if whose not in _PLANS:
            raise UserError(recognize.refusal(path, content))
        check_tensors(path, {name: value for name, value in state.items()
                             if isinstance(value, torch.Tensor)})
        made = adopt(path, state, _PLANS[whose](path, state, align_corners), whose)
    if align_corners and made.whose != names.MMSEG:
        raise UsageError(f"--align-corners is for files of mmsegmentation, which do not say how "
                         f"they upsample: {path} holds {made.whose}, leave it out")
    return _backbone_of(made) if backbone and not isinstance(made.model, ResNet) else made


@torch.no_grad()
def _backbone_of(made):
    """A Conversion's backbone alone."""
    settings, weights = made.model.settings, made.model.backbone.state_dict()
    with torch.device("meta"):
        model = ResNet(**{name: getattr(settings, name) for name in BackboneSettings.arguments()})
    model.load_state_dict(weights, assign=True)
    rows = [row._replace(place=row.place.removeprefix("backbone.")
                         if row.place.startswith("backbone.") else "left out")
            for row in made.rows]
    return made._replace(model=model.eval(), rows=rows, protocol=None)


def _state_and_network(content):
    state, _ = names.state_dict_of(content)
    return state, names.network_of(state)[0] if state else ""


def is_resnet(content: dict) -> bool:
    """Whether the content of a file is a ResNet's state dict, of another program."""
    return "settings" not in content and _state_and_network(content)[1] == names.RESNET
