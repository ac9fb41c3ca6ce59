"""The one error type that commands report in one line."""


class UserError(Exception):
    """A mistake in files, data or settings: the message names the thing, its value and the rule."""
