"""List files: one pair `image label` a line, paths relative to the data set's folder."""

import functools
import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from pspnet_repro.data.images import read_image
from pspnet_repro.data.labels import read_label
from pspnet_repro.data.text import read_text
from pspnet_repro.errors import UserError, first_line
from pspnet_repro.files import refuse_pipe

_LIST = "a text file with lines of an image and a label"


@dataclass(frozen=True)
class Pair:
    """One image and its label map.

    Attributes:
        image, label: paths; label is None in lists without labels.
        table: what the file's values mean, 256 bytes as in ZERO_IS_VOID; None: themselves.
        colours: what a picture's colours mean, as in data.labels.read_label_file; None: the file
            holds values.
    """

    image: Path
    label: Path | None
    table: bytes | None = None
    colours: tuple | None = None


def read_list(path, root=None, unlabelled=False, table=None):
    """The pairs of a list file.

    Args:
        path: text file; each line holds an image's and a label's path, separated by white space;
            a leading slash is dropped, as in the original's lists. Empty lines are skipped. Names
            may hold spaces: a line with tabs is split at tabs alone, and one with too many words
            at the only white space that leaves the names of two files.
        root: folder that the paths start from; the list's own by default.
        unlabelled: lines may hold an image alone, if all do.
        table: of every Pair.
    Returns:
        A list of Pair.
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
    first, count, pairs = lines[0][0], None, []
    for number, line in lines:
        readings = _readings(root, line, count, unlabelled)
        names = readings[0]
        count = count or (1 if unlabelled and len(names) == 1 else 2)
        advice = _advice(root, readings, line, count, number == first)
        if len(names) != count or advice:
            rule = ("an image and a label" if count == 2 else
                    "an image, or an image and a label" if number == first else
                    "an image, as the lines before it")
            raise UserError(f"{path}, line {number}: must name {rule}, got {len(names)} "
                            f"name{'s' * (len(names) != 1)}: {line[:80]!r}"
                            f"{'; ' * bool(advice)}{advice}")
        pairs.append(Pair(*[root / name.lstrip("/") for name in names], *[None] * (2 - count),
                          table))
        if (number == first and names[0][0] == "/" and os.path.exists(names[0])
                and not pairs[0].image.exists()):
            raise UserError(f"{path}, line {number}: paths start from {root}, with a leading "
                            f"slash too, as in the original's lists; got the path {names[0]} of "
                            "this machine: give --data-root / for such paths")
    return pairs


def _readings(root, line, count, unlabelled):
    """The ways to read a line, each a list of names; of several all name files.

    Args:
        count: names of the lines before; None for the first line.
        unlabelled: see read_list.
    """
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
    """How to mend a line of a list; empty where it seems right or nothing is known."""
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


def list_text(pairs, folder):
    """The text of a list of Pairs whose paths start from a folder, as read_list reads it.

    Names are separated by a space, or by a tab where one holds white space.

    Raises:
        UserError: a name has a tab or a line break, or is not of UTF-8.
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


def list_digest(path):
    """SHA-256 of a list file's bytes, in hexadecimal. Raises UserError where it cannot be read."""
    refuse_pipe(path)
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {first_line(error)}") from error


def read_pair(pair, classes, zero_is_void=False):
    """Image and label of a Pair. Raises UserError as their readers, or where sizes differ."""
    image = read_image(pair.image)
    label = read_label(pair.label, classes, zero_is_void, pair.table, pair.colours)
    if image.shape[:2] != label.shape:
        raise UserError(f"{pair.label}: size {label.shape[0]}x{label.shape[1]} differs from "
                        f"{image.shape[0]}x{image.shape[1]} of {pair.image}")
    return image, label
