"""The start of a training from a snapshot of Caffe: its steps and momentum."""

from pathlib import Path
from typing import NamedTuple

import torch

from pspnet_repro.errors import UsageError, UserError
from pspnet_repro.files import file_sha256
from pspnet_repro.model.pspnet import PSPNet
from pspnet_repro.training.settings import TrainSettings
from pspnet_repro.training.solver import CaffeSGD
from pspnet_repro.weights.source import read_momentum

_FRESH = "start from the weights alone, with --initial-weights"


class SnapshotStart(NamedTuple):
    """What a solverstate holds for a PSPNet."""

    path: str
    sha256: str  # of its bytes
    iteration: int  # steps taken
    buffers: dict  # {name of a parameter: float32 array} of the momentum

    def load(self, model: PSPNet, solver: CaffeSGD) -> list[str]:
        """Give a solver the momentum of every parameter that learns; sentences say what was loaded.
        Raises UserError where a parameter has none, or one of another shape."""
        learning = {id(p) for group in solver.param_groups for p in group["params"]}
        count = 0
        for name, parameter in model.named_parameters():
            if id(parameter) not in learning:
                continue
            array = self.buffers.get(name)
            if array is None or array.size != parameter.numel():
                shape = "none" if array is None else f"shape {array.shape}"
                raise UserError(f"{self.path}: momentum of {name} must have shape "
                                f"{tuple(parameter.shape)}, has {shape}: the snapshot is of "
                                f"another network; {_FRESH}")
            solver.state[parameter]["momentum_buffer"] = torch.tensor(
                array.reshape(parameter.shape)).to(parameter)
            count += 1
        return [f"resuming Caffe's training after step {self.iteration}: momentum of {count} "
                f"parameters from {self.path}",
                "note: images, their order and augmentation, rate and multipliers are this "
                "program's, not those of Caffe's solver file"]


def read_start(solverstate: str | Path, weights: tuple, settings: TrainSettings) -> SnapshotStart:
    """Read a solverstate of SGD for a training.

    Args:
        weights: the pair (prototxt, caffemodel) of the same snapshot.
    Raises:
        UserError: a file cannot be read, or is of another network or solver.
        UsageError: weights are no pair, the training has its rate outside the momentum, or fewer
            steps than the solverstate.
    """
    if not settings.rate_in_momentum:
        raise UsageError("rate_in_momentum must be true for a solverstate, whose momentum holds "
                         "the rate, got false")
    iteration, buffers = read_momentum(solverstate, weights)
    if iteration > settings.max_iter:
        raise UsageError(f"max_iter must be at least {iteration}, the steps that {solverstate} "
                         f"has taken, got {settings.max_iter}")
    return SnapshotStart(str(solverstate), file_sha256(solverstate), iteration, buffers)
