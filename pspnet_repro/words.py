"""English for messages."""

import json
from collections.abc import Sequence


def counted(number: int, one: str, many: str | None = None) -> str:
    """A number with its words: "1 image", "2 images", "2 classes"; `many` where the plural has no
    s at its end."""
    return f"{number} {one if number == 1 else many or one + ('es' if one[-1] == 's' else 's')}"


def gib(size: float) -> str:
    """Bytes in words: "1.5 GiB"."""
    return f"{size / 2 ** 30:.3g} GiB"


def check_choice(name: str, value: object, choices: Sequence) -> None:
    """Raise ValueError unless the value of an argument is one of two or more choices."""
    if value not in choices:
        words = (f"one of {', '.join(map(str, choices))}" if len(choices) > 2 else
                 " or ".join(map(json.dumps, choices)))
        raise ValueError(f"{name} must be {words}, got {value!r}")


def plain(value: object) -> object:
    """Python's own numbers for numpy's, and a tuple for a list or an array."""
    if type(value).__module__ == "numpy":
        value = value.tolist()
    return tuple(map(plain, value)) if isinstance(value, (list, tuple)) else value
