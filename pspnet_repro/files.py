"""Files that are written whole, locks of folders, and digests."""

import contextlib
import fcntl
import hashlib
import os
from pathlib import Path

from pspnet_repro.errors import UserError, first_line, refuse_pipe


def write_atomically(path, write):
    """Call write(file) on a new binary file that takes the name `path` only when it is complete.

    Raises:
        UserError: the file cannot be written (no space, no permission), or the name is that of a
            device or pipe; nothing is left behind.
    """
    path = Path(path)
    refuse_pipe(path, "written")
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


def file_sha256(path):
    """SHA-256 of a file's bytes, in hexadecimal. Raises UserError where it cannot be read."""
    digest = hashlib.sha256()
    refuse_pipe(path)
    try:
        with open(path, "rb") as file:
            while block := file.read(2 ** 20):
                digest.update(block)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {first_line(error)}") from error
    return digest.hexdigest()
