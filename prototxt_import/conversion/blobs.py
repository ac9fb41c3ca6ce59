"""The blobs of a caffemodel, each taken once, and BN made of them."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from prototxt_import.format.caffemodel import read_caffemodel
from pspnet_repro.errors import UserError
from pspnet_repro.words import counted

EPS = float(np.float32(1e-5))  # of every BN of ours
_NAMES, _SENTENCES = 3, 5  # of a list, that are shown


class Blobs:
    """Layers of a caffemodel with blobs, and what was wrong while they were taken."""

    def __init__(self, path: Path | str) -> None:
        self.path = path
        self.layers = {name: layer.blobs for name, layer in read_caffemodel(path).items()
                       if layer.blobs}
        self.problems = []
        self._missing = []
        self._asked = 0  # layers of the network
        self._left = dict.fromkeys(self.layers)

    def take(self, name: str, shapes: Sequence[Sequence[int]],
             norm: bool = False) -> list[np.ndarray]:
        """A layer's arrays in these shapes; what is wrong is kept for `check`, its arrays are ones.

        A shape may have ones before it, as in older files; blobs of BN (`norm`) may also be (1, C).
        """
        self._asked += 1
        ones = [np.broadcast_to(np.float32(1), shape) for shape in shapes]
        if name not in self.layers:
            self._missing.append(name)
            return ones
        self._left.pop(name, None)
        blobs = self.layers[name]
        if len(blobs) != len(shapes):
            self.problems.append(f"layer {name!r} must have "
                                 f"{counted(len(shapes), 'blob')}, has {len(blobs)}")
            return ones
        arrays = []
        for k, (blob, shape, one) in enumerate(zip(blobs, shapes, ones)):
            fits = _fits(blob.shape, tuple(shape), norm)
            if not fits:
                self.problems.append(f"layer {name!r}, blob {k} must be {tuple(shape)}, is "
                                     f"{blob.shape}")
            elif not np.isfinite(blob).all():
                self.problems.append(f"layer {name!r}, blob {k} is not finite")
                fits = False
            arrays.append(blob.reshape(shape) if fits else one)
        return arrays

    def drop(self, name: str) -> bool:
        """Count a layer as used; whether it was there and not used yet."""
        there = name in self._left
        self._left.pop(name, None)
        return there

    def check(self, prototxt: Path | str) -> None:
        """Raise the UserError of everything that was wrong, or is left over."""
        problems = list(self.problems)
        matching = self._asked - len(self._missing)
        if 2 * matching < self._asked:
            # Shapes and layers of another network tell nothing.
            raise UserError(f"{self.path}: fits another network: {matching} of "
                            f"{counted(self._asked, 'layer')} of {prototxt} "
                            f"{'matches' if matching == 1 else 'match'}; it lacks "
                            f"{listed(self._missing)}, and has {listed(self.layers)}")
        if self._left:
            problems.insert(0, f"has layers that {prototxt} has no place for: "
                               f"{listed(self._left)}")
        if self._missing:
            problems.insert(0, f"lacks layers {listed(self._missing)}")
        if problems:
            raise UserError(f"{self.path}: {listed(problems, '; ', _SENTENCES)}")


def listed(words: Iterable[str], separator: str = ", ", most: int = _NAMES) -> str:
    """Names, or sentences, in one line; the first ones where they are many."""
    words = [word if word.isprintable() else repr(word) for word in words]
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return separator.join(words[:most]) + more


def _fits(got, wanted, norm):
    if norm and len(wanted) == 4:
        return got in (wanted, wanted[:2])
    ones = len(got) - len(wanted)
    return ones >= 0 and tuple(got) == (1,) * ones + wanted


def merged_bn(mean: np.ndarray, var: np.ndarray, weight: np.ndarray, bias: np.ndarray, *,
              factor: float = 1.0, eps: float = EPS,
              shift: np.ndarray | float = 0.0) -> dict[str, np.ndarray]:
    """The tensors of our BN that does the same to x as a BN of another form does to x + shift.

    weight * (x + shift - mean / factor) / sqrt(var / factor + eps) + bias, all (C,), becomes a
    running mean of mean / factor - shift and a running variance of var / factor + eps - 1e-5,
    computed in float64: bits stay where nothing is to be changed.

    Raises:
        ValueError: the factor is 0, or a variance below 0, which no batch ever had.
    """
    if factor == 0:
        raise ValueError("its scale factor is 0: it never saw a batch")
    mean = np.asarray(mean, np.float64) / factor - shift
    var = np.asarray(var, np.float64) / factor
    if var.min() < 0 or (var + (eps - EPS)).min() < 0:
        raise ValueError(f"its variances plus eps must be at least 1e-5, the smallest is "
                         f"{var.min():.9g} + {eps:.9g}")
    arrays = {"weight": weight, "bias": bias, "running_mean": mean,
              "running_var": var + (eps - EPS)}
    return {name: np.asarray(array, np.float32).reshape(-1) for name, array in arrays.items()}
