"""What the modules of the ports share: the parts of a PSPNet under other names."""

import os
from collections.abc import Callable

from pspnet_repro.errors import UserError
from pspnet_repro.weights.adopt import count

BINS = (1, 2, 3, 6)
# Settings of a training with torch's layers.
TRAINED = {"spatial_dropout": True, "variance": "torch", "bn_momentum": 0.1}


def check_levels(path: str | os.PathLike, state: dict, pattern: str) -> None:
    """Raise UserError unless the pyramid's names, `pattern % k`, are of four levels."""
    levels = count(state, pattern)
    if levels != len(BINS):
        raise UserError(f"{path}: its pyramid has {levels} levels, {pattern % 0} and on, must have "
                        f"{len(BINS)}: which bins others have the file cannot tell")


def pyramid(names: Callable[[int], tuple[str, str]]) -> dict:
    """{our module: theirs} of the pyramid; `names(k)` gives convolution and BN of our level k."""
    modules = {}
    for k in range(len(BINS)):
        conv, bn = names(k)
        modules |= {f"pyramid.reduce.{k}.conv": conv, f"pyramid.reduce.{k}.bn": bn}
    return modules


def classifier(ours: str, conv: str, bn: str, score: str) -> dict:
    """{our module: theirs} of a branch that ends in scores."""
    return {f"{ours}.conv.conv": conv, f"{ours}.conv.bn": bn, f"{ours}.score": score}
