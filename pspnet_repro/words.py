"""English for messages."""


def counted(number: int, one: str, many: str | None = None) -> str:
    """A number with its words: "1 image", "2 images", "2 classes"; `many` where the plural has no
    s at its end."""
    return f"{number} {one if number == 1 else many or one + ('es' if one[-1] == 's' else 's')}"
