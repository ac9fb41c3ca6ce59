"""List files: one pair `image label` a line, paths relative to the data set's folder."""

import contextlib
import functools
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pspnet_repro.data.images import read_image
from pspnet_repro.data.labels import Colours, read_label
from pspnet_repro.data.text import read_text
from pspnet_repro.errors import UserError
from pspnet_repro.words import counted

_LIST = "a text file with lines of an image and a label"


@dataclass(frozen=True)
class Pair:
    """One image and its label map."""

    image: Path
    label: Path | None  # None in lists without labels
    # What the file's values mean, 256 bytes as in ZERO_IS_VOID; None: themselves.
    table: bytes | None = None
    # What a picture's colours mean, as in data.labels.read_label_file; None: the file holds values.
    colours: Colours | None = None
    # Folder that the paths of its list start from; None: they are no choice of the user.
    root: Path | None = field(default=None, compare=False)


def read_list(path: Path | str, root: Path | str | None = None, unlabelled: bool = False,
              table: bytes | None = None, bad_lines: list[UserError] | None = None) -> list[Pair]:
    """The pairs of a list file.

    Args:
        path: text file; each line holds an image's and a label's path, separated by white space;
            a leading slash is dropped, as in the original's lists. Empty lines are skipped. Names
            may hold spaces: a line with tabs is split at tabs alone, and one with too many words
            at the only white space that leaves the names of two files.
        root: folder that the paths start from; the list's own by default.
        unlabelled: lines may hold an image alone, if all do.
        table: of every Pair.
        bad_lines: a list that takes the UserErrors of lines, which are left out; None: the first
            is raised.
    Raises:
        UserError: no such file or folder, a line with another number of paths, an empty list.
    """
    path = Path(path)
    root = Path(root) if root is not None else path.parent
    if not root.is_dir():
        raise UserError(f"{root}: no such data folder")
    text = read_text(path, "list", _LIST, "make one of two folders with pspnet make-lists IMAGES "
                     f"LABELS -o {path.parent}, or give the folders as --images and --labels")
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1)
             if line.strip()]
    if not lines:
        raise UserError(f"{path}: lists no images")
    count, pairs = None, []
    for number, line in lines:
        try:
            names = _names(f"{path}, line {number}", root, line, count, unlabelled)
        except UserError as error:
            if bad_lines is None:
                raise
            bad_lines.append(error)
            continue
        count = len(names)
        pairs.append(Pair(*[root / name.lstrip("/") for name in names], *[None] * (2 - count),
                          table, root=root))
    return pairs


def _names(place, root, line, count, unlabelled):
    """The names in a line of a list, see read_list.

    Args:
        place: of the line, for messages.
        count: names of the lines before; None for the first line.
    Raises:
        UserError: another number of names, or what else is wrong with them.
    """
    readings = _readings(root, line, count, unlabelled)
    names = readings[0]
    wanted = count or (1 if unlabelled and len(names) == 1 else 2)
    advice = _advice(root, readings, line, wanted, count is None)
    if len(names) != wanted or advice:
        rule = ("an image and a label" if wanted == 2 else
                "an image, or an image and a label" if count is None else
                "an image, as the lines before it")
        raise UserError(f"{place}: must name {rule}, got {counted(len(names), 'name')}: "
                        f"{line[:80]!r}{'; ' * bool(advice)}{advice}")
    if (count is None and names[0][0] == "/" and os.path.exists(names[0])
            and not (root / names[0].lstrip("/")).exists()):
        raise UserError(f"{place}: paths start from {root}, with a leading slash too, as in the "
                        f"original's lists; got the path {names[0]} of this machine: give "
                        "--data-root / for such paths")
    return names


def _readings(root, line, count, unlabelled):
    """The ways to read a line, each a list of names, as _names; of several all name files."""
    if "\t" in line:
        return [[name.strip() for name in re.split("\t+", line)]]
    words = line.split()
    if len(words) == (count or 1) or len(words) == 2 and not (count or unlabelled):
        return [words]
    whole = [[line]] * (unlabelled and count != 2)
    splits = [[line[:space.start()], line[space.end():]] for space in re.finditer(r"\s+", line)]
    of_files = [names for names in whole + splits * (count != 1) if _are_files(root, *names)]
    return of_files or [words]


def _are_files(root, *names):
    # Path.is_file raises for names that are too long.
    return all(os.path.isfile(root / name.lstrip("/")) for name in names)


def _advice(root, readings, line, count, is_first):
    """How to repair a line of a list; empty where it seems right or nothing is known."""
    names = readings[0]
    if len(readings) > 1:
        return "it can be read in several ways: put a tab, and no space, between two names"
    if "\\" in line and not _are_files(root, *names):
        return "write / in place of \\"
    marks = line if len(names) == 1 else "".join(name[0] + name[-1] for name in names if name)
    if ("," in marks or ";" in marks) and not _are_files(root, *names):
        return "separate names by a space, with no comma, and leave out a line of headings"
    if len(names) > 2:
        return ("leave out quotes, and put a tab between names that hold spaces; no two names in "
                "this line are those of files")
    if len(names) == 2 and count == 2 and is_first and "\t" not in line and _are_files(root, line):
        return "this is the name of one file: put its label behind it, after a tab"
    if is_first and count == 2 and not any(Path(name).suffix for name in names) and not _are_files(
            root, *names):
        return "there are no such files; leave out a line of headings"
    return ""


def list_text(pairs: Iterable[Pair], folder: Path) -> str:
    """The text of a list of Pairs whose paths start from a folder, as read_list reads it.

    Names are separated by a space, or by a tab where one holds white space. Raises UserError where
    a name has a tab or a line break, or is not of UTF-8.
    """
    # From a link `..` leads elsewhere.
    real = functools.cache(os.path.realpath)
    lines = [[os.path.relpath(os.path.join(real(path.parent), path.name), real(folder))
              for path in (pair.image, pair.label)] for pair in pairs]
    for name in (name for names in lines for name in names):
        if name.splitlines() != [name] or "\t" in name or name != name.strip() or any(
                "\ud800" <= letter <= "\udfff" for letter in name):
            raise UserError(f"{name!r}: a list cannot name this file: rename it, without tabs, "
                            "line breaks, white space at its ends, and letters that are not UTF-8")
    mark = "\t" if any(len(name.split()) > 1 for names in lines for name in names) else " "
    return "".join(mark.join(names) + "\n" for names in lines)


def is_missing(error: UserError) -> bool:
    """Whether the UserError of a reader is of a file that is not there."""
    return isinstance(error.__cause__, FileNotFoundError)


@contextlib.contextmanager
def _rooted(pair):
    """A block that reads files of a Pair: of one that is not there it says where paths start."""
    try:
        yield
    except UserError as error:
        if pair.root is None or not is_missing(error):
            raise
        raise UserError(f"{error}; {start_of_paths(pair.root)}") from error


def start_of_paths(root: Path) -> str:
    """What to look at where files of a list are not there."""
    return (f"paths in the list start from {root}, unless --data-root of train, evaluate or "
            "check-data names another folder")


def read_label_of(pair: Pair, classes: int) -> np.ndarray:
    """The label of a Pair. Raises UserError as data.labels.read_label."""
    with _rooted(pair):
        return read_label(pair.label, classes, pair.table, pair.colours)


def read_pair(pair: Pair, classes: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Image and label of a Pair, None where it has none. Raises UserError as their readers, or
    where sizes differ."""
    with _rooted(pair):
        image = read_image(pair.image)
    if pair.label is None:
        return image, None
    label = read_label_of(pair, classes)
    if image.shape[:2] != label.shape:
        raise UserError(f"{pair.label}: size {label.shape[0]}x{label.shape[1]} differs from "
                        f"{image.shape[0]}x{image.shape[1]} of {pair.image}")
    return image, label
