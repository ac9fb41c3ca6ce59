"""The errors that commands report in one line."""


class UserError(Exception):
    """A mistake in files, data or settings: the message names the thing, its value and the rule."""


class UsageError(UserError):
    """A mistake in the arguments themselves: commands end with exit code 2."""


def first_line(error):
    """What an exception says, without the lines that torch and numpy add."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
