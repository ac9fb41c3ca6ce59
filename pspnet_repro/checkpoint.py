"""Files of weights and of training states: written atomically, read without unpickling code."""

import contextlib
import fcntl
import io
import os
import pickle
from pathlib import Path

import torch

from pspnet_repro.errors import UserError, first_line
from pspnet_repro.pspnet import PSPNet


def write_atomically(path, write):
    """Call write(file) on a new binary file that takes the name `path` only when it is complete.

    Raises:
        UserError: the file cannot be written (no space, no permission); nothing is left behind.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        _remove(part)
        raise UserError(f"{path}: cannot be written: {first_line(error)}") from error
    except BaseException:
        _remove(part)
        raise


def write_bytes(path, data):
    """`write_atomically` of bytes, or of text as UTF-8."""
    data = data.encode() if isinstance(data, str) else data
    write_atomically(path, lambda file: file.write(data))


def _remove(part):
    with contextlib.suppress(OSError):
        part.unlink()


def lock_folder(output, name=".lock"):
    """An open file that keeps other processes from working in the folder.

    Raises:
        UserError: another process holds it.
        OSError: the folder cannot be made or written.
    """
    output.mkdir(parents=True, exist_ok=True)
    lock = open(output / name, "w", encoding="utf-8")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise UserError(f"{output}: another process is at work in this folder") from error
    return lock


def save(path, content):
    """Save a dictionary of tensors, numbers, strings and containers of these."""
    # In memory first: torch's own writer hides what the system says of a full disk.
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_bytes(path, buffer.getbuffer())


def load(path, data=None):
    """Load what `save` wrote; tensors on the CPU.

    Args:
        path: the file.
        data: its bytes, where they have been read already.
    Raises:
        UserError: the file is missing, truncated, or holds anything else than plain data.
    """
    try:
        content = torch.load(path if data is None else io.BytesIO(data), map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except (OSError, RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError,
            OverflowError, MemoryError, pickle.UnpicklingError) as error:
        raise UserError(f"{path}: not a readable checkpoint: {first_line(error)}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: not a checkpoint: holds a {type(content).__name__}")
    return content


def save_model(path, model, **about):
    """Save a PSPNet's weights with its settings and further plain facts."""
    save(path, {"settings": model.settings, "weights": model.state_dict(), **about})


def load_model(path):
    """A PSPNet from a file of `save_model` or a training checkpoint.

    Raises:
        UserError: no such file, no settings in it, or weights that do not fit them.
    """
    content = load(path)
    missing = [key for key in ("settings", "weights") if key not in content]
    if missing:
        raise UserError(f"{path}: not a PSPNet file: lacks {' and '.join(missing)}")
    try:
        model = PSPNet(**content["settings"])
        model.load_state_dict(content["weights"])
    except (TypeError, ValueError, RuntimeError, AttributeError, OverflowError) as error:
        raise UserError(f"{path}: weights and settings do not fit: "
                        f"{' '.join(str(error).split())[:300]}") from error
    check_finite(model, path)
    return model.eval()


def check_finite(model, where):
    """Raise UserError where a parameter or buffer of a module holds NaN or infinity."""
    for name, tensor in model.state_dict().items():
        if not tensor.isfinite().all():
            raise UserError(f"{where}: {name} is not finite")
