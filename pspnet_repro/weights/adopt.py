"""State dicts of other programs into our networks: every tensor once, in its shape."""

import os
from dataclasses import dataclass
from typing import NamedTuple

import torch

from pspnet_repro.errors import UserError
from pspnet_repro.model.pspnet import PSPNet
from pspnet_repro.model.resnet import ResNet
from pspnet_repro.weights.model_file import check_finite, shape_differences

_SHOWN = 5  # of a list of differences
COUNTER = "num_batches_tracked"  # torch's BN counts its batches; nothing reads it


class Row(NamedTuple):
    """A line of the report: a layer of the file, the shape of its first tensor, where it went."""

    layer: str
    shape: str
    place: str


class Conversion(NamedTuple):
    """A network made of another program's files."""

    model: torch.nn.Module  # a PSPNet or a ResNet, in eval mode
    rows: list  # say what went where
    crop_size: int | None  # side in pixels of the file's input; None where it names none
    whose: str = "Caffe's network"  # program and network
    differences: tuple = ()  # sentences on what the source does otherwise than Caffe's program
    assumptions: tuple = ()  # sentences on what the file cannot tell
    protocol: str | None = None  # of its tests, a name of evaluation.protocol
    facts: dict | None = None  # further plain facts of a file of this program


@dataclass(frozen=True)
class Plan:
    """How the tensors of a state dict fill a network; the last fields are those of a Conversion."""

    settings: dict  # arguments of PSPNet, or of ResNet where they name no classes
    modules: dict  # {path of our convolution, BN or score: what their names begin with}
    # Beginnings of names that belong to the network: a tensor with such a name must have a place.
    # All others are left out, and said.
    parts: tuple
    left_out: tuple = ()  # beginnings of names in `parts` that are left out all the same
    levels_reversed: bool = False  # the pyramid's levels are concatenated from the first on
    differences: tuple = ()
    assumptions: tuple = ()
    protocol: str | None = None


def adopt(path: str | os.PathLike, state: dict, plan: Plan, whose: str) -> Conversion:
    """The Conversion of a state dict by its Plan, which may hold the state dict's tensors.

    Raises UserError for tensors that are missing, left over, of another shape or dtype, or not
    finite.
    """
    module = PSPNet if "classes" in plan.settings else ResNet
    try:
        with torch.device("meta"):
            model = module(**plan.settings)
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: {error}") from error
    sources = {name: f"{plan.modules[module]}.{kind}"
               for name in model.state_dict()
               for module, _, kind in [name.rpartition(".")]}
    wanted = {sources[name]: tensor for name, tensor in model.state_dict().items()}
    left_out = dict.fromkeys(name for name in state if name.startswith(plan.left_out)
                             or not name.startswith(plan.parts) and name not in wanted)
    given = {name: tensor for name, tensor in state.items()
             if name not in left_out and not name.endswith(COUNTER)}
    wrong = [f"{name} must be a dense floating tensor, got {what}" for name in given
             if (what := _not_dense(given[name]))]
    differences = wrong or shape_differences(wanted, given)
    if differences:
        more = len(differences) - _SHOWN
        raise UserError(f"{path}: not {whose} as this program knows it: "
                        f"{'; '.join(differences[:_SHOWN])}" + f"; and {more} more" * (more > 0))
    weights, taken = {}, set()
    for ours, name in sources.items():
        weights[ours] = tensor = state[name].float().contiguous()
        memory = tensor.untyped_storage()
        if memory.nbytes() != tensor.nbytes or memory.data_ptr() in taken:
            weights[ours] = tensor.clone()  # a mapped file's, or another tensor's too
        taken.add(memory.data_ptr())
    if plan.levels_reversed:
        weights["head.conv.conv.weight"] = reversed_levels(weights["head.conv.conv.weight"],
                                                           model)
    model.load_state_dict(weights, assign=True)
    check_finite(model, path)
    rows = [Row(name.removesuffix(".weight"), _shape(state[name]), ours.removesuffix(".weight"))
            for ours, name in sources.items() if ours.endswith(".weight")]
    rows += [Row(name, _shape(state[name]), "left out") for name in left_out
             if not name.endswith(COUNTER)]
    return Conversion(model.eval(), rows, None, whose, plan.differences, plan.assumptions,
                      plan.protocol)


def _not_dense(tensor):
    if not isinstance(tensor, torch.Tensor):
        return f"a {type(tensor).__name__}"
    dense = tensor.layout == torch.strided and tensor.device.type == "cpu"
    return "" if dense and tensor.is_floating_point() else f"{tensor.dtype}, {tensor.layout}"


def _shape(tensor):
    return "x".join(map(str, tensor.shape)) if isinstance(tensor, torch.Tensor) else (
        type(tensor).__name__)


def reversed_levels(weight: torch.Tensor, model: PSPNet) -> torch.Tensor:
    """A kernel (out, in, k, k) whose input channels are features, then the pyramid's levels, with
    the levels the other way round."""
    features = model.settings.channels[1]
    reduced = (weight.shape[1] - features) // len(model.pyramid.bins)
    own, *levels = weight.split([features, *[reduced] * len(model.pyramid.bins)], 1)
    return torch.cat([own, *reversed(levels)], 1)


def size(state: dict, name: str) -> int:
    """The first side of a tensor; 1 where it is missing or has none: `adopt` then says so."""
    tensor = state.get(name)
    return (isinstance(tensor, torch.Tensor) and tensor.dim() and tensor.shape[0]) or 1


def count(state: dict, pattern: str) -> int:
    """How many of `pattern % 0`, `pattern % 1`, ... begin names, up to the first that does not."""
    k = 0
    while any(name.startswith(pattern % k) for name in state):
        k += 1
    return k
