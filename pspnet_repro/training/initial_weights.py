"""Weights that a training starts from, from a file."""

from dataclasses import dataclass
from pathlib import Path

import torch

from pspnet_repro.errors import UsageError, UserError, first_line
from pspnet_repro.model.pspnet import PSPNet
from pspnet_repro.model.settings import BLOCKS, BackboneSettings, NetworkSettings
from pspnet_repro.weights.model_file import shape_differences, without_memory
from pspnet_repro.weights.source import read_weights, weights_name, weights_sha256

Weights = str | Path | tuple[str | Path, str | Path]  # a file, or (prototxt, caffemodel)
# Arguments that a shorter one stands for.
_SHORT = {"widths": "width", "blocks": "depth"}
_DEPTHS = {blocks: depth for depth, blocks in BLOCKS.items()}


@dataclass(frozen=True)
class Structure:
    """What a file of weights was made for."""

    path: str  # of the file, for messages
    sha256: str  # see weights_sha256
    # Arguments of PSPNet that decide about the result beside the weights: stem, widths, blocks and
    # the place of the stride of any file, and the strides, dilations, pyramid, head, dropout and
    # batch normalization of a PSPNet's.
    settings: dict
    # See weights.source.read_weights; `load_initial_weights` takes the weights out.
    content: dict | None = None
    network: BackboneSettings | None = None  # settings of the file's network


def read_structure(weights: Weights) -> Structure:
    """What a file of model_file.save_model, or of Caffe, was made for. Raises UserError for another
    kind of file, or one whose settings make no network."""
    content, path = read_weights(weights, whole=None), weights_name(weights)
    settings = without_memory(content, path).settings
    names = settings.STRUCTURE
    if content["kind"] == "pspnet":
        names += settings.WHOLE + settings.TRAINED + (settings.PYRAMID if settings.bins else ())
    return Structure(path, weights_sha256(weights),
                     {name: getattr(settings, name) for name in names
                      if name in settings or name in settings.OTHERS}, content, settings)


def with_structure(model: dict, structure: Structure) -> dict:
    """Keyword arguments of PSPNet, completed by a Structure where they are open or None.

    Raises:
        UsageError: `model` asks for another structure than the file has. Another dropout or batch
            normalization in training it may ask for.
    """
    given = {name: value for name, value in model.items() if value is not None}
    try:
        wanted = NetworkSettings(**given)
    except (TypeError, ValueError) as error:
        raise UsageError(first_line(error)) from error
    asked = given.keys() | {name for name, short in _SHORT.items() if short in given}
    completed = dict(model)
    for name, theirs in structure.settings.items():
        if name in NetworkSettings.PYRAMID and not wanted.bins:
            continue  # a network without the pyramid can start from one with it
        ours = getattr(wanted, name)
        if name not in asked:
            if name not in NetworkSettings.OTHERS + NetworkSettings.TRAINED or ours != theirs:
                completed[name] = theirs
        elif ours != theirs and name not in NetworkSettings.TRAINED:
            shown, rule = (name, theirs) if name in given else (
                _SHORT[name], _DEPTHS.get(theirs, f"that of {name} {theirs}"))
            raise UsageError(
                f"{shown} must be {rule}, for which the weights of {structure.path} were made, "
                f"got {given[shown]}: leave it to the file, or start from other weights")
    return completed


def _other_settings(model, settings, names):
    """(name, theirs, ours) of the settings of that name that a file's network has otherwise than a
    PSPNet."""
    for name in names:
        ours = getattr(model.settings, name)
        theirs = (getattr(settings, name) if name in settings or name in settings.OTHERS
                  or name == "pool_padding" else ours)
        if theirs != ours:
            yield name, theirs, ours


@torch.no_grad()
def load_initial_weights(model: PSPNet, weights: Weights | Structure) -> list[str]:
    """Fill a PSPNet, or its backbone, with the weights of a file, or of its Structure once.

    A backbone file fills the backbone. A PSPNet's file fills every part (backbone, pyramid, head,
    auxiliary branch) that the network has; where the numbers of classes differ the score
    convolutions start afresh. All other names and shapes of a part that both have must agree, and
    so must the structure, see `with_structure`.

    Returns:
        Sentences that say what was loaded, what starts afresh and what of the file was left out.
    Raises:
        UserError: no such file, another kind of file, names or shapes that do not agree, or
            weights that are not finite.
    """
    start = weights if isinstance(weights, Structure) else read_structure(weights)
    path, settings, whole = start.path, start.network, start.content["kind"] == "pspnet"
    given = start.content.pop("weights")
    if not whole:
        given = {f"backbone.{name}": tensor for name, tensor in given.items()}
    wanted = model.state_dict()
    here, there = ({name.partition(".")[0] for name in names} for names in (wanted, given))
    fresh, left_out = sorted(here - there), sorted(there - here)
    if whole and settings.classes != model.classes:
        fresh += [part for part in ("head.score", "auxiliary.score")
                  if part.partition(".")[0] in here & there]

    def of(parts, name):
        return any(name.startswith(f"{part}.") for part in parts)

    wanted = {name: tensor for name, tensor in wanted.items() if not of(fresh, name)}
    given = {name: tensor for name, tensor in given.items() if not of(fresh + left_out, name)}
    names = settings.STRUCTURE + ("contract_dilation", "align_corners") * whole
    if any(name.startswith("pyramid.") for name in given):
        names += settings.PYRAMID
    differences = [f"{name} is {theirs} there, {ours} here" for name, theirs, ours in
                   _other_settings(model, settings, names)] or shape_differences(wanted, given)
    if differences or not given:
        raise UserError(f"{path}: does not fit this network: "
                        f"{'; '.join(differences[:5]) or 'no part of it'}"
                        + (f"; and {len(differences) - 5} more" if len(differences) > 5 else ""))
    for name, tensor in given.items():
        # As this network has it: 1e300 is not finite as float32.
        if not tensor.to(wanted[name].dtype).isfinite().all():
            raise UserError(f"{path}: {name} is not finite as {wanted[name].dtype}; take the file "
                            "from its source again, or start from other weights")
        wanted[name].copy_(tensor)
    report = [f"initial weights: {len(given)} tensors of {path} loaded into "
              f"{', '.join(sorted({name.partition('.')[0] for name in given}))}"]
    if fresh:
        report.append(f"starting afresh: {', '.join(fresh)}")
    if left_out:
        report.append(f"left out of the file: {', '.join(left_out)}")
    return report + [f"note: the file's network has {name} {theirs}, this one {ours}"
                     for name, theirs, ours in _other_settings(
                         model, settings, settings.DILATED + (settings.TRAINED if whole else ()))]
