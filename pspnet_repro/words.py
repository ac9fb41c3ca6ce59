"""English for messages."""


def counted(number: int, one: str, many: str | None = None) -> str:
    """A number with its words: "1 image", "2 images", "2 classes"; `many` where the plural has no
    s at its end."""
    return f"{number} {one if number == 1 else many or one + ('es' if one[-1] == 's' else 's')}"


def plain(value: object) -> object:
    """Python's own numbers for numpy's, and a tuple for a list or an array."""
    if type(value).__module__ == "numpy":
        value = value.tolist()
    return tuple(map(plain, value)) if isinstance(value, (list, tuple)) else value
