"""Files that are written whole, JSON lines, locks of folders, digests, and what is no file."""

import contextlib
import fcntl
import functools
import hashlib
import json
import os
import re
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, BinaryIO, TextIO

from pspnet_repro.errors import UserError, first_line

Content = bytes | str | Callable[[BinaryIO], object]  # of a file; a function fills it
_PART = re.compile(r"\.pspnet-[0-9a-f]{16}\.part")


def refuse_pipe(path: str | Path, purpose: str = "read") -> None:
    """Raise UserError for a pipe or a device, which may never end and must not be replaced by a
    file; other paths are left to those who open them."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise UserError(f"{path}: cannot be {purpose}: not a regular file")


def write_together(contents: Mapping[Path, Content],
                   ready: Callable[[dict[Path, BinaryIO]], None] = lambda parts: None) -> None:
    """Write files that take their names when all of them are complete: all do, or none.

    Until then each has a temporary name of its own, .pspnet-*.part in its folder, so that two
    processes or threads that write one file never meet: the last one's stays, whole. Temporary
    files of killed processes are removed at the next write in their folder.

    Args:
        contents: by path; text is written as UTF-8. Folders are made.
        ready: called with {path: open, complete temporary file} before the first takes its name.
    Raises:
        UserError: a file cannot be written (no space, no permission), or its name is that of a
            folder, device or pipe.
    """
    parts, placed = {}, []
    path = None
    try:
        with contextlib.ExitStack() as opened:
            for path, content in contents.items():
                refuse_pipe(path, "written")
                if path.is_dir():
                    raise UserError(f"{path}: cannot be written: is a folder")
                path.parent.mkdir(parents=True, exist_ok=True)
                _remove_abandoned(path.parent.resolve())
                parts[path] = opened.enter_context(_temporary(path.parent))
                _fill(parts[path], content)
            ready(parts)
            for path, part in parts.items():
                os.replace(part.name, path)
                placed.append(path)
    except OSError as error:
        for done in placed:
            done.unlink()
        raise UserError(f"{path}: cannot be written: {first_line(error)}") from error
    finally:
        for part in parts.values():
            with contextlib.suppress(FileNotFoundError):
                os.unlink(part.name)


def write_bytes(path: str | Path, content: Content) -> None:
    """`write_together` of one file."""
    write_together({Path(path): content})


def _fill(file, content):
    if callable(content):
        content(file)
    else:
        file.write(content.encode() if isinstance(content, str) else content)
    sync(file)


def sync(file: IO) -> None:
    """Return when what was written to an open file is on the disk."""
    file.flush()
    os.fsync(file.fileno())


def _temporary(folder):
    """A new binary file, locked for as long as it is open, with the mode of any new file."""
    while True:
        file = open(folder / f".pspnet-{os.urandom(8).hex()}.part", "xb")
        wait_for_lock(file)
        # Another process may have removed it before it was locked.
        if os.fstat(file.fileno()).st_nlink:
            return file
        file.close()


def wait_for_lock(file: IO) -> None:
    """Lock an open file until it is closed; where the file system has no locks, do without."""
    with contextlib.suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_EX)


@functools.cache
def _remove_abandoned(folder):
    """Remove temporary files whose process is gone: nobody holds their locks. Once per process and
    folder, as large folders take long to read."""
    with contextlib.suppress(PermissionError):  # of a folder that can be written only
        for path in folder.iterdir():
            if _PART.fullmatch(path.name) and path.is_file() and not path.is_symlink():
                # What is in use, or another user's, stays.
                with contextlib.suppress(OSError), open(path, "rb") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink()


def json_lines(data: bytes) -> list[tuple[str, dict | None]]:
    """The whole lines of a file of JSON lines, each as text and as the dictionary that it holds.

    A line that holds none has None; a last line that was cut off is dropped.
    """
    lines = [line.decode(errors="replace") for line in data.split(b"\n")[:-1]]
    return [(line, _dictionary(line)) for line in lines]


def _dictionary(line):
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def lock_folder(output: Path, name: str = ".lock") -> TextIO:
    """An open file that keeps other processes from working in the folder, which is made. Raises
    UserError where another process holds it, OSError where it cannot be made or written."""
    refuse_pipe(output / name, "written")
    output.mkdir(parents=True, exist_ok=True)
    # At its end: a file of this name may be anybody's.
    lock = open(output / name, "a", encoding="utf-8")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise UserError(f"{output}: another process is at work in this folder") from error
    return lock


def file_sha256(path: str | Path) -> str:
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
