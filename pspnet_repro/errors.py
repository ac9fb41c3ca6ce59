"""The errors that commands report in one line."""

import contextlib
import os
import stat
import sys


class UserError(Exception):
    """A mistake in files, data or settings: the message names the thing, its value and the rule."""


class UsageError(UserError):
    """A mistake in the arguments themselves: commands end with exit code 2."""


# What commands catch for `report`.
REPORTED = (UserError, MemoryError, OSError, RuntimeError)


def first_line(error):
    """What an exception says, without the lines that torch and numpy add."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def printable(text, limit=2000):
    """Text from files and names for a terminal: control characters escaped, cut to `limit`."""
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text if len(text) <= limit else f"{text[:limit // 2]} ... {text[-limit // 2:]}"


def refuse_pipe(path, purpose="read"):
    """Raise UserError for a pipe or a device, which may never end and must not be replaced by a
    file; other paths are left to those who open them."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise UserError(f"{path}: cannot be {purpose}: not a regular file")


def print_anything():
    """Let what a terminal's encoding lacks be escaped, in place of failing."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def report(error):
    """Say in one line why a command ends; where only its reader has gone, end quietly.

    Args:
        error: one of REPORTED.
    Returns:
        The exit code: 2 for a UsageError, else 1.
    Raises:
        error: a RuntimeError of another kind than torch's for memory, which is a bug.
    """
    if isinstance(error, RuntimeError) and not isinstance(error, UserError):
        # torch has a class of its own for it on a GPU only.
        if "can't allocate memory" not in str(error) and "out of memory" not in str(error):
            raise error
        error = MemoryError()
    if not isinstance(error, BrokenPipeError):
        default = "not enough memory" if isinstance(error, MemoryError) else type(error).__name__
        lines = f"error: {str(error) or default}".split("\n")
        print("\n".join(map(printable, lines)), file=sys.stderr)
    try:
        sys.stdout.flush()
    except OSError:
        # The interpreter would try once more at its end, and complain.
        with contextlib.suppress(OSError), open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
    return 2 if isinstance(error, UsageError) else 1
