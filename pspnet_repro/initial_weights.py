"""Weights that a training starts from, from a file."""

import torch

from pspnet_repro.checkpoint import read_model_file, shape_differences
from pspnet_repro.errors import UserError

_SHAPES = ("stem", "stem_width", "widths", "blocks")
# Settings that change what a backbone computes, but no shape.
_PLACES = ("strides", "dilations", "stride_in", "pool_padding")


def _other_settings(model, settings, names):
    """(name, theirs, ours) of the settings of that name that a file's network has otherwise than a
    PSPNet's backbone."""
    for name in names:
        ours = model.backbone.settings.get(name)
        theirs = settings.get(name, ours)
        theirs = tuple(theirs) if isinstance(theirs, list) else theirs
        if theirs != ours:
            yield name, theirs, ours


@torch.no_grad()
def load_initial_weights(model, path):
    """Fill a PSPNet, or its backbone, with the weights of a file.

    A backbone file fills the backbone. A PSPNet's file fills every part (backbone, pyramid, head,
    auxiliary branch) that the network has; where the numbers of classes differ the score
    convolutions start afresh. All other names and shapes of a part that both have must agree.

    Args:
        model: the PSPNet, filled in place.
        path: a file of checkpoint.save_model.
    Returns:
        Sentences that say what was loaded, what starts afresh and what of the file was left out.
    Raises:
        UserError: no such file, another kind of file, names or shapes that do not agree, or
            weights that are not finite.
    """
    content = read_model_file(path)
    given, settings = content["weights"], content["settings"]
    if content["kind"] == "backbone":
        given = {f"backbone.{name}": tensor for name, tensor in given.items()}
    wanted = model.state_dict()
    here, there = ({name.partition(".")[0] for name in names} for names in (wanted, given))
    fresh = sorted(here - there)
    left_out = sorted(there - here)
    if content["kind"] == "pspnet" and settings.get("classes") != model.classes:
        fresh += [part for part in ("head.score", "auxiliary.score")
                  if part.partition(".")[0] in here & there]

    def of(parts, name):
        return any(name.startswith(f"{part}.") for part in parts)

    wanted = {name: tensor for name, tensor in wanted.items() if not of(fresh, name)}
    given = {name: tensor for name, tensor in given.items() if not of(fresh + left_out, name)}
    differences = shape_differences(wanted, given)
    if differences:
        differences = [f"{name} is {theirs} there, {ours} here" for name, theirs, ours in
                       _other_settings(model, settings, _SHAPES)] or differences
    if differences or not given:
        raise UserError(f"{path}: does not fit this network: "
                        f"{'; '.join(differences[:5]) or 'no part of it'}"
                        + (f"; and {len(differences) - 5} more" if len(differences) > 5 else ""))
    for name, tensor in given.items():
        if not tensor.isfinite().all():
            raise UserError(f"{path}: {name} is not finite")
        wanted[name].copy_(tensor)
    report = [f"initial weights: {len(given)} tensors of {path} loaded into "
              f"{', '.join(sorted({name.partition('.')[0] for name in given}))}"]
    if fresh:
        report.append(f"starting afresh: {', '.join(fresh)}")
    if left_out:
        report.append(f"left out of the file: {', '.join(left_out)}")
    return report + [f"note: the file's network has {name} {theirs}, this one {ours}"
                     for name, theirs, ours in _other_settings(model, settings, _PLACES)]
