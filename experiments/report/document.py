"""What a report is made of; page.py and markdown.py each put the same parts into a format."""

from collections.abc import Callable
from dataclasses import dataclass

from pspnet_repro.data.classes import Classes


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
class Gallery:
    """Attributes: name, of its file; title; images, ViewerImages of which the name is a caption."""

    name: str
    title: str
    images: tuple


@dataclass(frozen=True)
class Pictures:
    """Photographs, their truth and the predictions of networks.

    Attributes:
        classes: data.classes.Classes.
        networks: names, in order.
        galleries: Galleries.
    """

    classes: Classes
    networks: tuple
    galleries: tuple
