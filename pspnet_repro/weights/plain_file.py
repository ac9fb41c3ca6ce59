"""Files of plain data and tensors: written atomically, read without unpickling code."""

import io
import json
import os
import pickle
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

import safetensors
import torch

from pspnet_repro.errors import UsageError, UserError, first_line
from pspnet_repro.files import refuse_pipe, write_bytes
from pspnet_repro.weights import recognize
from pspnet_repro.weights.sizes import check_archive

_MAPPED = 2 ** 25


def save(path: Path | str, content: Mapping[str, object]) -> None:
    """Save a dictionary of tensors, numbers, strings and containers of these."""
    write_bytes(path, writer(content))


class _Told:
    """A binary file that keeps what the system says of a full disk: torch's writer hides it."""

    def __init__(self, file):
        self._file, self.error = file, None

    def write(self, data):
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self):
        pass


def writer(content: Mapping[str, object]) -> Callable[[BinaryIO], None]:
    """A function that writes what `save` writes to a binary file."""
    def write(file):
        told = _Told(file)
        try:
            torch.save(content, told)
        except RuntimeError as error:
            raise told.error or error from None

    return write


def load(path: Path | str, data: bytes | None = None) -> dict:
    """Load what `save` wrote, tensors on the CPU, from a file or its bytes. Raises UserError where
    it is missing, truncated, or holds anything else than plain data."""
    if data is None:
        refuse_pipe(path)
    try:
        # An open file: torch would choose a format by the path's suffix.
        with open(path, "rb") if data is None else io.BytesIO(data) as file:
            kind = recognize.kind_of(file)
            if kind is not recognize.PYTORCH:
                raise UserError(recognize.sentence(path, kind))
            check_archive(path, file)
            file.seek(0)
            content = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except IsADirectoryError as error:
        raise UserError(recognize.refusal(path)) from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {first_line(error)}") from error
    except pickle.UnpicklingError as error:
        # In our own words: torch advises to unpickle whatever the file holds.
        raise UserError(recognize.sentence(path, recognize.with_objects(error))) from error
    except (EOFError, RuntimeError, ValueError, LookupError, TypeError, AttributeError,
            OverflowError, MemoryError) as error:
        raise UserError(f"{path}: not a readable checkpoint: damaged or cut short "
                        f"({first_line(error)}); copy or download it again") from error
    if not isinstance(content, dict):
        raise UserError(recognize.sentence(path, recognize.kind_of_content(content)))
    return content


def load_content(path: Path | str) -> dict:
    """`load` of a file in either format: of safetensors with our settings what was saved, of others
    the tensors by name. Raises UsageError for what is no path."""
    if not isinstance(path, (str, os.PathLike)):
        raise UsageError(f"weights must be the path of a file, got {path!r}")
    refuse_pipe(path)
    return _load_safetensors(path) if _is_safetensors(path) else load(path)


def _is_safetensors(path):
    try:
        with open(path, "rb") as file:
            return recognize.kind_of(file) is recognize.SAFETENSORS
    except OSError:
        return False  # `load` says why


def _load_safetensors(path):
    try:
        before = _state(path)
        with safetensors.safe_open(path, "pt") as file:
            facts = file.metadata() or {}
            names = file.keys()
        tensors = _tensors(path, names)
        if _state(path) != before:
            raise UserError(f"{path}: was changed while it was read: run the command again")
        if "settings" not in facts:  # of another program, whose facts may be no JSON
            return tensors
        return {**{name: json.loads(fact) for name, fact in facts.items() if name != "format"},
                "weights": tensors}
    except (safetensors.SafetensorError, OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not a readable checkpoint: damaged or cut short "
                        f"({first_line(error)}); copy or download it again") from error


def _state(path):
    """What differs once a file was replaced or written to."""
    status = os.stat(path)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _tensors(path, names):
    """{name: tensor}, in mappings of the file, one for each _MAPPED bytes: pages of a mapping leave
    the memory with its last tensor, so that a network is in memory once while it is copied."""
    tensors, names = {}, deque(names)
    while names:
        size = 0
        with safetensors.safe_open(path, "pt") as file:
            while names and size < _MAPPED:
                name = names.popleft()
                tensors[name] = file.get_tensor(name)
                size += tensors[name].nbytes
    return tensors
