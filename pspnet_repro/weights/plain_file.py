"""Files of plain data and tensors: written atomically, read without unpickling code."""

import io
import json
import os
import pickle
from collections.abc import Mapping
from pathlib import Path

import safetensors
import torch

from pspnet_repro.errors import UsageError, UserError, first_line
from pspnet_repro.files import refuse_pipe, write_bytes
from pspnet_repro.weights import recognize
from pspnet_repro.weights.sizes import check_archive


def save(path: Path | str, content: Mapping[str, object]) -> None:
    """Save a dictionary of tensors, numbers, strings and containers of these."""
    write_bytes(path, saved(content))


def saved(content: Mapping[str, object]) -> memoryview:
    """What `save` writes."""
    # In memory first: torch's own writer hides what the system says of a full disk.
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getbuffer()


def load(path: Path | str, data: bytes | None = None) -> dict:
    """Load what `save` wrote; tensors on the CPU.

    Args:
        data: the file's bytes, where they have been read already.
    Raises:
        UserError: the file is missing, truncated, or holds anything else than plain data.
    """
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
        with safetensors.safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            facts = file.metadata() or {}
            if "settings" not in facts:  # of another program, whose facts may be no JSON
                return tensors
            return {**{name: json.loads(fact) for name, fact in facts.items() if name != "format"},
                    "weights": tensors}
    except (safetensors.SafetensorError, OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not a readable checkpoint: damaged or cut short "
                        f"({first_line(error)}); copy or download it again") from error
