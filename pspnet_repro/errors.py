"""The errors that commands report in one line."""

import contextlib
import os
import sys


class UserError(Exception):
    """A mistake in files, data or settings: the message names the thing, its value and the rule."""


class UsageError(UserError):
    """A mistake in the arguments themselves: commands end with exit code 2."""


def first_line(error):
    """What an exception says, without the lines that torch and numpy add."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def report(error):
    """Say in one line why a command ends; where only its reader has gone, end quietly.

    Returns:
        The exit code: 2 for a UsageError, else 1.
    """
    if not isinstance(error, BrokenPipeError):
        default = "not enough memory" if isinstance(error, MemoryError) else type(error).__name__
        print(f"error: {str(error) or default}", file=sys.stderr)
    try:
        sys.stdout.flush()
    except OSError:
        # The interpreter would try once more at its end, and complain.
        with contextlib.suppress(OSError), open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
    return 2 if isinstance(error, UsageError) else 1
