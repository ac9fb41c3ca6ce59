"""List files: one pair `image label` a line, paths relative to the data set's folder."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from pspnet_repro.data.images import open_header, read_image
from pspnet_repro.data.labels import read_label
from pspnet_repro.errors import UserError, refuse_pipe

_LIST = "a text file with lines of an image and a label"


@dataclass(frozen=True)
class Pair:
    """One image and its label map.

    Attributes:
        image, label: paths; label is None in lists without labels.
        table: what the file's values mean, 256 bytes as in ZERO_IS_VOID; None: themselves.
    """

    image: Path
    label: Path | None
    table: bytes | None = None


def read_list(path, root=None, unlabelled=False, table=None):
    """The pairs of a list file.

    Args:
        path: text file; each line holds an image's and a label's path, separated by white space;
            a leading slash is dropped, as in the original's lists. Empty lines are skipped.
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
    lines = [(number, line.split(), line.strip()) for number, line
             in enumerate(_read_text(path).splitlines(), 1) if line.split()]
    if not lines:
        raise UserError(f"{path}: lists no images")
    count = 1 if unlabelled and len(lines[0][1]) == 1 else 2
    for number, names, line in lines:
        advice = _advice(root, names, line, count, number == lines[0][0])
        if len(names) != count or advice:
            rule = ("an image and a label" if count == 2 else
                    "an image, or an image and a label" if number == lines[0][0] else
                    "an image, as the lines before it")
            raise UserError(f"{path}, line {number}: must name {rule}, got {len(names)} "
                            f"name{'s' * (len(names) != 1)}: {line[:80]!r}"
                            f"{'; ' * bool(advice)}{advice}")
    number, (name, *_), _ = lines[0]
    if name[0] == "/" and not (root / name.lstrip("/")).exists() and Path(name).exists():
        raise UserError(f"{path}, line {number}: paths start from {root}, with a leading slash "
                        f"too, as in the original's lists; got the path {name} of this machine")
    return [Pair(*[root / name.lstrip("/") for name in names], *[None] * (2 - count), table)
            for _, names, _ in lines]


def _read_text(path):
    refuse_pipe(path)
    if path.is_dir():
        raise UserError(f"{path}: is a folder, and must be {_LIST}")
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such list file") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read as text: {error}") from error
    try:
        # Some editors begin a file with a byte order mark.
        text, bad = data.decode("utf-8-sig"), data.find(b"\0")
    except UnicodeDecodeError as error:
        text, bad = "", error.start
    if bad < 0:
        return text
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UserError(f"{path}: cannot be read as text: it is UTF-16; save it as UTF-8")
    image = open_header(path, data)
    if image is not None:
        raise UserError(f"{path}: is an image ({image.format}), and must be {_LIST}")
    raise UserError(f"{path}, line {data.count(10, 0, bad) + 1}: must be text in UTF-8, got the "
                    f"byte 0x{data[bad]:02x}; save the list as UTF-8")


def _advice(root, names, line, count, is_first):
    """How to mend a line of a list; empty where it seems right or nothing is known."""
    def missing(*names):
        return not all((root / name.lstrip("/")).exists() for name in names)

    if "\\" in line and missing(*names):
        return "write / in place of \\"
    marks = line if len(names) == 1 else "".join(name[0] + name[-1] for name in names)
    if ("," in marks or ";" in marks) and missing(*names):
        return "separate names by a space, with no comma, and leave out a line of headings"
    if len(names) > 2 or len(names) == 2 and (count == 1 or is_first) and not missing(line):
        return "a name must have no spaces: rename the file"
    if is_first and count == 2 and not any(Path(name).suffix for name in names) and missing(*names):
        return "there are no such files; leave out a line of headings"
    return ""


def list_digest(path):
    """SHA-256 of a list file's bytes, in hexadecimal. Raises UserError where it cannot be read."""
    refuse_pipe(path)
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error}") from error


def read_pair(pair, classes, zero_is_void=False):
    """Image and label of a Pair. Raises UserError as their readers, or where sizes differ."""
    image = read_image(pair.image)
    label = read_label(pair.label, classes, zero_is_void, pair.table)
    if image.shape[:2] != label.shape:
        raise UserError(f"{pair.label}: size {label.shape[0]}x{label.shape[1]} differs from "
                        f"{image.shape[0]}x{image.shape[1]} of {pair.image}")
    return image, label
