"""The original's recorded values: their files, and the first blob that leaves them."""

import re
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch

from prototxt_import.net import CaffeNet
from pspnet_repro.errors import UserError, first_line
from pspnet_repro.files import refuse_pipe
from pspnet_repro.words import counted

# What numpy and zipfile raise for damaged files: for the archive (also a .npy, which is none, parts
# that are encrypted, or packed by unknown methods), for the Python literal that heads an array, and
# for an array that is cut short or too large.
_DAMAGE = (OSError, zipfile.BadZipFile, zlib.error, TypeError, RuntimeError, ValueError,
           SyntaxError, tokenize.TokenError, EOFError, MemoryError)

_SAMPLE = re.compile(r"((?:\d{1,9}/)?)sample/(.*)", re.S)


def read_recorded(path: Path) -> dict[str, np.ndarray]:
    """{name: array} of an .npz file; what `compare` and `run` use of it has its dtype and shape.

    Args:
        path: a file of "<item>/sample/<blob>" (n), n at least 1, each with a number
            "<item>/mean_abs/<blob>", "<item>/" left out for a single image; perhaps "data"
            (N, 3, H, W) or "image_bgr" (H, W, 3). Other entries may be anything.
    Raises:
        UserError: not such a file; the file, the entry and the rule are named.
    """
    arrays = _read(path)
    for name in arrays:
        found = _SAMPLE.fullmatch(name)
        if found:
            _check(path, arrays, name, ("n",))
            _check(path, arrays, f"{found[1]}mean_abs/{found[2]}", ())
    for name, shape in (("data", ("N", 3, "H", "W")), ("image_bgr", ("H", "W", 3))):
        if name in arrays:
            _check(path, arrays, name, shape)
    return arrays


def _check(path, arrays, name, wanted):
    """Real numbers of the wanted shape, in which a letter is any size of at least 1."""
    where = f"{path}: {name!r}"
    if name not in arrays:
        raise UserError(f"{where} is missing: each sample needs its mean of absolute values")
    array = arrays[name]
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "iuf":
        got = getattr(array, "dtype", "no array")
        raise UserError(f"{where} must be real numbers, is {str(got)[:40]}")
    if len(array.shape) != len(wanted) or not all(
            size >= 1 if isinstance(rule, str) else size == rule
            for size, rule in zip(array.shape, wanted)):
        rule = ", ".join(map(str, wanted))
        rule = f"of shape ({rule}), none empty" if wanted else "a single number"
        raise UserError(f"{where} must be {rule}, has shape {array.shape}")


def _read(path):
    where = f"{path}"
    refuse_pipe(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {}
            for name in file.files:
                where = f"{path}: {name!r}"
                arrays[name] = file[name]
            return arrays
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except _DAMAGE as error:
        # numpy's own words on Python objects are how to load them nevertheless.
        objects = "pickle" in str(error)
        raise UserError(f"{where}: not an .npz file of arrays"
                        + (" without Python objects" if objects else f": {first_line(error)}")
                        ) from error


def compare(net: CaffeNet, arrays: Mapping[str, np.ndarray], tolerance: float, path: Path) -> str:
    """A sentence that says how well the last pass agrees with recorded values.

    Raises:
        UserError: a blob deviates by more than `tolerance`, or nothing was recorded of this
            network. The first such blob in the network's order is named, with its layer.
    """
    errors = []
    for item, prefix in recorded_items(arrays).items():
        if any(item >= len(blob) for blob in net.blobs.values() if blob.ndim):
            raise UserError(f"{path}: holds image {item}, which the pass has not")
        for blob, error in deviations(net.blobs, arrays, item, prefix).items():
            if not error <= tolerance:
                layer = [step.layer for step in net.steps if blob in step.layer.top]
                made = f"made by layer {layer[-1].name!r} ({layer[-1].type})" if layer else "input"
                raise UserError(f"{path}: image {item}: the first blob that deviates is "
                                f"{blob!r}, {made}: by {error:.2g} of its largest value")
            errors.append((error, blob))
    if not errors:
        raise UserError(f"{path}: no recorded values of this network's blobs")
    count, (error, blob) = len(errors), max(errors, key=lambda item: item[0])
    return (f"{'the' if count == 1 else 'all'} "
            f"{counted(count, 'recorded blob agrees', 'recorded blobs agree')} within "
            f"{tolerance:g} of their largest values; worst: {blob}, {error:.2g}")


def recorded_items(arrays: Iterable[str]) -> dict[int, str]:
    """{index of an item in the batch: prefix of its arrays}: {0: ""} for a single image."""
    items = {int(found[1]): found[0] for found in (re.match(r"(\d{1,9})/", name) for name in arrays)
             if found}
    return items or {0: ""}


def deviations(blobs: Mapping[str, torch.Tensor], arrays: Mapping[str, np.ndarray], item: int = 0,
               prefix: str = "") -> dict[str, float]:
    """Compare blobs with samples of the original's, in the network's order.

    Args:
        blobs: {name: tensor} of a pass.
        arrays: "<prefix>sample/<blob>", values evenly spaced over the flattened blob of one item,
            and "<prefix>mean_abs/<blob>", the mean of its absolute values.
        item: index of the item in the batch.
    Returns:
        {blob: its largest error over its largest value}, of each recorded blob that the network
        has. Copies that the original makes of a blob with several readers are other names of the
        same values.
    """
    errors = {}
    for name, blob in blobs.items():
        sample = arrays.get(f"{prefix}sample/{name}")
        if sample is None:
            continue
        # Differences and absolute values of integers would wrap around.
        sample = sample.astype(np.result_type(sample, np.float32))
        ours = (blob[item] if blob.ndim else blob).detach().cpu().numpy().reshape(-1)
        at = np.linspace(0, ours.size - 1, sample.size).astype(np.int64)
        mean = float(arrays[f"{prefix}mean_abs/{name}"])
        largest = max(np.abs(ours).max(), np.abs(sample).max(), 1e-30)
        mean_error = abs(np.abs(ours).mean(dtype=np.float64) - mean) / max(mean, 1e-30)
        errors[name] = float(max(np.abs(ours[at] - sample).max() / largest, mean_error))
    return errors
