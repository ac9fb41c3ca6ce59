"""The rows of the tables: data, one line a row."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Row:
    """One trained and tested network.

    Attributes:
        name: what `--rows` takes, and the key in paper.json.
        model: keyword arguments of PSPNet that make the row.
    """

    name: str
    model: dict = field(default_factory=dict)


TABLES = {
    "1": (
        Row("baseline", {"bins": ()}),
        Row("b1-max", {"bins": (1,), "pool": "max", "reduce": False}),
        Row("b1-ave", {"bins": (1,), "pool": "ave", "reduce": False}),
        Row("b1236-max", {"bins": (1, 2, 3, 6), "pool": "max", "reduce": False}),
        Row("b1236-ave", {"bins": (1, 2, 3, 6), "pool": "ave", "reduce": False}),
        Row("b1236-max-dr", {"bins": (1, 2, 3, 6), "pool": "max", "reduce": True}),
        Row("b1236-ave-dr", {"bins": (1, 2, 3, 6), "pool": "ave", "reduce": True}),
    ),
}
# What pictures and curves compare.
BASELINE, FULL = "baseline", "b1236-ave-dr"
