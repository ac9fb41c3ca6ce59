"""List files: one pair `image label` a line, paths relative to the data set's folder."""

import contextlib
import hashlib
import io
import os
import struct
import sys
import tempfile
import threading
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from pspnet_repro.errors import UsageError, UserError, first_line, printable, refuse_pipe
from pspnet_repro.loss import IGNORE_INDEX

MEAN_BGR = np.array([103.939, 116.779, 123.68], np.float32)


# What a value of a label file means, 256 bytes: a class, 255 for unlabelled, WRONG for none.
WRONG = 254
ZERO_IS_VOID = bytes([IGNORE_INDEX, *range(255)])


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
    refuse_pipe(path)
    try:
        # Some editors begin a file with a byte order mark.
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such list file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as text: {error}") from error
    lines = [(number, line.split(), line.strip()) for number, line
             in enumerate(text.splitlines(), 1) if line.split()]
    if not lines:
        raise UserError(f"{path}: lists no images")
    count = 1 if unlabelled and len(lines[0][1]) == 1 else 2
    for number, names, line in lines:
        if len(names) != count:
            raise UserError(f"{path}, line {number}: must name an image"
                            f"{' and a label' if count == 2 else ', as the lines before it'}, got "
                            f"{len(names)} name{'s' * (len(names) != 1)}: {line[:80]!r}")
    number, (name, *_), _ = lines[0]
    if name[0] == "/" and not (root / name.lstrip("/")).exists() and Path(name).exists():
        raise UserError(f"{path}, line {number}: paths start from {root}, with a leading slash "
                        f"too, as in the original's lists; got the path {name} of this machine")
    return [Pair(*[root / name.lstrip("/") for name in names], *[None] * (2 - count), table)
            for _, names, _ in lines]


def check_classes(classes):
    """Raise UsageError for more classes than 8-bit labels can name beside 254 and 255."""
    if not 1 <= classes <= 254:
        raise UsageError(f"classes must be 1 to 254 for 8-bit labels, got {classes}")


def list_digest(path):
    """SHA-256 of a list file's bytes, in hexadecimal. Raises UserError where it cannot be read."""
    refuse_pipe(path)
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error}") from error


# How files of a format begin, and what a whole one holds near its end.
_FORMATS = ((b"\x89PNG", b"IEND"), (b"\xff\xd8\xff", b"\xff\xd9"))


MAX_BYTES = 2 ** 30
# A square photograph of 11585 pixels a side: its RGB values take 400 MB.
MAX_PIXELS = 2 ** 27


def _read(path, what):
    refuse_pipe(path)
    try:
        found = path.stat()
        if found.st_size > MAX_BYTES:
            raise UserError(f"{path}: must have at most {MAX_BYTES} bytes, got {found.st_size}")
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such {what}") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    # OpenCV fills the missing rest of an image with black.
    for start, end in _FORMATS:
        if data.startswith(start) and end not in data:
            raise UserError(f"{path}: not an image that OpenCV can read: its end is missing")
    _check_pixels(path, data)
    return data


def _check_pixels(path, data):
    """Refuse a file whose header tells of more than MAX_PIXELS, before they are allocated."""
    try:
        with warnings.catch_warnings():
            # Pillow's own limits are others.
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data)) as image:
                columns, rows = image.size
    except Image.DecompressionBombError as error:
        raise UserError(f"{path}: must have at most {MAX_PIXELS} pixels: "
                        f"{first_line(error)}") from error
    except (OSError, SyntaxError, ValueError, OverflowError, struct.error):
        # A format that Pillow does not know, or no image: OpenCV says which.
        return
    if rows * columns > MAX_PIXELS:
        raise UserError(f"{path}: must have at most {MAX_PIXELS} pixels, has {rows} x {columns}")


def _is_whole_png(data):
    """Whether the pixel data of a PNG file with one channel reaches its last row."""
    width, height, bits, *_, interlaced = struct.unpack(">IIBBBBB", data[16:29])
    # (first column, column step, first row, row step) of the passes.
    passes = ((0, 8, 0, 8), (4, 8, 0, 8), (0, 4, 4, 8), (2, 4, 0, 4), (0, 2, 2, 4), (1, 2, 0, 2),
              (0, 1, 1, 2)) if interlaced else ((0, 1, 0, 1),)
    sizes = [(len(range(x, width, dx)), len(range(y, height, dy))) for x, dx, y, dy in passes]
    wanted = sum(rows * (-(-columns * bits // 8) + 1) for columns, rows in sizes if columns)
    decompress = zlib.decompressobj()
    place = 8
    while place + 8 <= len(data) and wanted > 0:
        length, kind = struct.unpack(">I4s", data[place:place + 8])
        if kind == b"IDAT":
            chunk = decompress.unconsumed_tail + data[place + 8:place + 8 + length]
            wanted -= len(decompress.decompress(chunk, wanted))
        place += length + 12
    return wanted <= 0


_STDERR = threading.Lock()


@contextlib.contextmanager
def _stderr_lines():
    """Takes what libraries in C write to stderr meanwhile: yields a list, filled at the end.

    One thread at a time: stderr is the whole process's.
    """
    lines = []
    try:
        before = os.dup(2)
    except OSError:
        # There is no stderr.
        yield lines
        return
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield lines
        finally:
            os.dup2(before, 2)
            os.close(before)
            file.seek(0)
            said = file.read(2 ** 16)
            if b"\r" in said:
                os.write(2, said)  # a progress bar's, from another thread
            else:
                lines += said.decode(errors="replace").splitlines()


def _decode(path, data, flags):
    try:
        with _STDERR, _stderr_lines() as lines:
            decoded = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    except cv2.error as error:
        raise UserError(f"{path}: not an image that OpenCV can read: {error.err}") from error
    why = f": {printable(lines[0], 200)}" if lines else ""
    # libjpeg fills the missing rest with grey.
    if decoded is None or any("premature end of data" in line for line in lines):
        raise UserError(f"{path}: not an image that OpenCV can read{why}")
    if why:
        # libpng and libjpeg do not name the file.
        print(f"{path}{why}", file=sys.stderr)
    return decoded


def read_image(path, upright=False):
    """A photograph: (H, W, 3) uint8, BGR, as OpenCV decodes it.

    Grey becomes three equal channels, 16 bits lose the lower 8, transparency is dropped, CMYK
    becomes RGB as (255 - ink) * (255 - black) / 255.

    Args:
        upright: turn it as its EXIF orientation says; False: as stored, which is what labels are
            drawn on.
    Raises:
        UserError: the file is missing, cut short or no image.
    """
    path = Path(path)
    return _decode(path, _read(path, "image"),
                   cv2.IMREAD_COLOR | (0 if upright else cv2.IMREAD_IGNORE_ORIENTATION))


def has_alpha(path):
    """Whether an image file holds a channel of transparency, which `read_image` drops."""
    path = Path(path)
    decoded = _decode(path, _read(path, "image"), cv2.IMREAD_UNCHANGED)
    return decoded.ndim == 3 and decoded.shape[2] == 4


def read_label_file(path):
    """The values of a label file, (H, W) uint8; those of a PNG with a palette are its indices.

    Raises:
        UserError: the file is missing, cut short, or no single-channel 8-bit image.
    """
    path = Path(path)
    data = _read(path, "label")
    if data.startswith(_FORMATS[0][0]):
        if data[25:26] == b"\x03":
            # OpenCV would look the colours up.
            try:
                label = np.array(Image.open(io.BytesIO(data)))
                # Pillow fills the missing rest with zeros.
                if not _is_whole_png(data):
                    raise ValueError("its pixel data is cut short")
                return label
            except (OSError, SyntaxError, ValueError, struct.error, zlib.error,
                    Image.DecompressionBombError) as error:
                raise UserError(f"{path}: not an image that can be read: "
                                f"{first_line(error)}") from error
        if data[24:25] not in (b"\x08", b"\x10"):
            # OpenCV would spread the values of fewer bits over 0..255.
            raise UserError(f"{path}: a label must be one channel of 8 bits, got {data[24]} bits")
    label = _decode(path, data, cv2.IMREAD_UNCHANGED)
    if label.ndim != 2:
        raise UserError(f"{path}: a label must be one channel of 8 bits, got shape {label.shape}")
    if label.dtype != np.uint8:
        raise UserError(f"{path}: a label must be one channel of 8 bits, got {label.dtype}")
    return label


def read_label(path, classes, zero_is_void=False, table=None):
    """(H, W) uint8 labels, 0..classes-1 or 255.

    Args:
        zero_is_void: files hold 0 for void and k + 1 for class k (ADE20K): a table for lists.
        table: see Pair; overrides zero_is_void.
    Raises:
        UserError: as read_label_file, or the file has other values.
    """
    values = read_label_file(path)
    table = table or (ZERO_IS_VOID if zero_is_void else bytes(range(256)))
    allowed = allowed_values(classes, table)
    wrong = np.flatnonzero(np.bincount(values.ravel(), minlength=256) * ~allowed)
    if wrong.size:
        got = ", ".join(map(str, wrong[:5]))
        raise UserError(f"{path}: labels must be {spans(np.flatnonzero(allowed))}, got {got}")
    return np.frombuffer(table, np.uint8)[values]


def allowed_values(classes, table):
    """(256,) bool: the values of label files that `table` gives a meaning among `classes`."""
    meaning = np.frombuffer(table, np.uint8)
    return (meaning < classes) | (meaning == IGNORE_INDEX)


def spans(values):
    """[0, 1, 2, 255] -> "0..2 or 255"."""
    values = np.asarray(values)
    parts = np.split(values, np.flatnonzero(np.diff(values) > 1) + 1)
    return " or ".join(str(p[0]) if len(p) == 1 else f"{p[0]}..{p[-1]}" for p in parts)


def read_pair(pair, classes, zero_is_void=False):
    """Image and label of a Pair. Raises UserError as their readers, or where sizes differ."""
    image = read_image(pair.image)
    label = read_label(pair.label, classes, zero_is_void, pair.table)
    if image.shape[:2] != label.shape:
        raise UserError(f"{pair.label}: size {label.shape[0]}x{label.shape[1]} differs from "
                        f"{image.shape[0]}x{image.shape[1]} of {pair.image}")
    return image, label
