"""Weights as options and arguments name them: one file, or Caffe's pair (prototxt, caffemodel)."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from pspnet_repro.errors import UsageError
from pspnet_repro.files import file_sha256
from pspnet_repro.weights.convert import convert_content, is_resnet
from pspnet_repro.weights.model_file import checked_content, kind_of
from pspnet_repro.weights.plain_file import load_content

Weights = Path | str | Sequence[Path | str]


def read_weights(weights: Weights, whole: bool | None = True) -> dict:
    """The content of weights, as model_file.read_model_file gives it.

    Args:
        weights: path of a file of model_file.save_model, or a pair (prototxt, caffemodel), which is
            converted.
        whole: of a pair: True for a PSPNet, False for the backbone of a classification network,
            None for the one that the prototxt describes; None also takes a file with a ResNet's
            state dict, see convert.convert_file.
    Raises:
        UserError: a file cannot be read, or holds another network.
        UsageError: a prototxt without a caffemodel, or neither a path nor a pair of paths.
    """
    paths = weights if isinstance(weights, (tuple, list)) else [weights]
    if (not all(isinstance(path, (str, os.PathLike)) for path in paths)
            or paths is weights and len(paths) != 2):
        raise UsageError("weights must be a path, or a pair of paths (prototxt, caffemodel), got "
                         f"{weights!r}")
    if paths is weights:
        # Only here does this package need the importer: for networks in Caffe's files.
        from prototxt_import.conversion.convert import convert_network
        return _content(convert_network(*map(Path, weights), whole=whole))
    if Path(weights).suffix == ".prototxt":
        raise UsageError(f"weights must name a caffemodel beside {weights}: "
                         f"{weights},W.caffemodel for a command, a pair of paths in Python")
    content = load_content(weights)
    if whole is None and is_resnet(content):
        return _content(convert_content(content, weights))
    return checked_content(content, weights)


def _content(made):
    return {"kind": kind_of(made.model), "settings": dict(made.model.settings),
            "weights": made.model.state_dict(), "crop_size": made.crop_size}


def weights_name(weights: Weights) -> str:
    """The file, or of a pair the caffemodel, that messages name."""
    return str(weights_files(weights)[-1])


def weights_files(weights: Weights) -> list[Path]:
    """The Paths of the files."""
    return list(map(Path, weights if isinstance(weights, (tuple, list)) else [weights]))


def weights_sha256(weights: Weights) -> str:
    """SHA-256 of the file; of a pair that of both digests."""
    first, *others = [file_sha256(path) for path in weights_files(weights)]
    return hashlib.sha256((first + others[0]).encode()).hexdigest() if others else first


def snapshot_weights(solverstate: str | os.PathLike) -> tuple[Path, Path]:
    """The weights that a solverstate of Caffe names, as a pair: the caffemodel, in which Caffe
    wrote the network too, twice. Raises UserError where it cannot be read, or is HDF5."""
    from prototxt_import.conversion.momentum import described_net
    caffemodel = described_net(solverstate)
    return caffemodel, caffemodel


def read_momentum(solverstate: str | os.PathLike, weights: tuple) -> tuple[int, dict]:
    """(steps taken, {name of a PSPNet's parameter: float32 array}) of a solverstate of Caffe, whose
    weights are the pair (prototxt, caffemodel) of the same snapshot.

    Raises:
        UserError: a file cannot be read, or is of another network or solver.
        UsageError: weights are no pair.
    """
    if not isinstance(weights, (tuple, list)):
        raise UsageError(f"initial_weights must be a pair (prototxt, caffemodel) beside a "
                         f"solverstate, got {weights}: leave them to the solverstate")
    from prototxt_import.conversion.momentum import convert_momentum
    return convert_momentum(solverstate, *weights)
