"""What a report is made of; page.py and markdown.py each put the same parts into a format."""

from collections.abc import Callable
from dataclasses import dataclass

from matplotlib.figure import Figure

from pspnet_repro.data.classes import Classes
from pspnet_repro.evaluation.viewer import ViewerImage


@dataclass(frozen=True)
class Heading:
    level: int  # 1 for the report's own
    text: str


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Table:
    """Text in rows and columns."""

    caption: str
    heads: tuple[str, ...]  # a text per column; the first column names the rows
    rows: tuple[tuple[str, ...], ...]
    reported: frozenset[int] = frozenset()  # numbers of the rows that are not ours
    # For each row, a number in 0..1 for each column but the first, or None; or empty.
    shades: tuple[tuple[float | None, ...], ...] = ()
    folded: bool = False  # shown only when asked for


@dataclass(frozen=True)
class Chart:
    name: str  # of its file
    alt: str
    figure: Callable[[], Figure]


@dataclass(frozen=True)
class Gallery:
    name: str  # of its file
    title: str
    images: tuple[ViewerImage, ...]  # their names are captions


@dataclass(frozen=True)
class Pictures:
    """Photographs, their truth and the predictions of networks."""

    classes: Classes
    networks: tuple[str, ...]
    galleries: tuple[Gallery, ...]


Block = Heading | Text | Table | Chart | Pictures
