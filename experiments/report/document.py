"""What a report is made of; page.py and markdown.py each put the same parts into a format."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Heading:
    """Attributes: level, 1 for the report's own; text."""

    level: int
    text: str


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Table:
    """Text in rows and columns.

    Attributes:
        caption: what it shows.
        heads: a text a column; the first column names the rows.
        rows: tuples of texts.
        reported: numbers of the rows that are not ours.
        shades: for each row, a number in 0..1 for each column but the first, or None; or empty.
        folded: shown only when asked for.
    """

    caption: str
    heads: tuple
    rows: tuple
    reported: frozenset = frozenset()
    shades: tuple = ()
    folded: bool = False


@dataclass(frozen=True)
class Chart:
    """Attributes: name, of its file; alt, what it shows; figure: () -> matplotlib Figure."""

    name: str
    alt: str
    figure: Callable


@dataclass(frozen=True)
class Strip:
    """Pictures of one size, one beside another.

    Attributes:
        caption: what they show.
        titles: a text a picture.
        pixels: (H, W, 3) uint8 RGB each; the first is a photograph, the others have few colours.
        legend: (name, (red, green, blue)) of what the colours mean.
    """

    caption: str
    titles: tuple
    pixels: tuple[np.ndarray, ...]
    legend: tuple


@dataclass(frozen=True)
class Gallery:
    """Attributes: name, of its file; alt, what it shows; strips: Strips."""

    name: str
    alt: str
    strips: tuple
