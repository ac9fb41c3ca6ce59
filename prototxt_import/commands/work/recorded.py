"""Files of the original's recorded values, checked when they are read."""

import re
import tokenize
import zipfile
import zlib
from pathlib import Path

import numpy as np

from pspnet_repro.errors import UserError, first_line
from pspnet_repro.files import refuse_pipe

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
