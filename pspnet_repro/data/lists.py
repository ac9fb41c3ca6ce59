"""List files: one pair `image label` a line, paths relative to the data set's folder."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from pspnet_repro.errors import UsageError, UserError
from pspnet_repro.loss import IGNORE_INDEX

MEAN_BGR = np.array([103.939, 116.779, 123.68], np.float32)


@dataclass(frozen=True)
class Pair:
    """One image and its label map; `image` and `label` are paths."""

    image: Path
    label: Path


def read_list(path, root=None):
    """The pairs of a list file.

    Args:
        path: text file; each line holds an image's and a label's path, separated by white space;
            a leading slash is dropped, as in the original's lists. Empty lines are skipped.
        root: folder that the paths start from; the list's own by default.
    Returns:
        A list of Pair.
    Raises:
        UserError: no such file or folder, a line without exactly two paths, an empty list.
    """
    path = Path(path)
    root = Path(root) if root is not None else path.parent
    if not root.is_dir():
        raise UserError(f"{root}: no such data folder")
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such list file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as text: {error}") from error
    pairs = []
    for number, line in enumerate(text.splitlines(), 1):
        names = line.split()
        if not names:
            continue
        if len(names) != 2:
            raise UserError(f"{path}, line {number}: must name an image and a label, got "
                            f"{len(names)} name{'s' * (len(names) != 1)}: {line.strip()[:80]!r}")
        pairs.append(Pair(*(root / name.lstrip("/") for name in names)))
    if not pairs:
        raise UserError(f"{path}: lists no images")
    return pairs


def check_classes(classes):
    """Raise UsageError for more classes than 8-bit labels can name beside 254 and 255."""
    if not 1 <= classes <= 254:
        raise UsageError(f"classes must be 1 to 254 for 8-bit labels, got {classes}")


def list_digest(path):
    """SHA-256 of a list file's bytes, in hexadecimal. Raises UserError where it cannot be read."""
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error}") from error


# How files of a format begin, and what a whole one holds near its end.
_FORMATS = ((b"\x89PNG", b"IEND"), (b"\xff\xd8\xff", b"\xff\xd9"))


def _read(path, what):
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such {what}") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    # OpenCV fills the missing rest of an image with black.
    for start, end in _FORMATS:
        if data.startswith(start) and end not in data:
            raise UserError(f"{path}: not an image that OpenCV can read: its end is missing")
    return data


def _decode(path, data, flags):
    try:
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    except cv2.error as error:
        raise UserError(f"{path}: not an image that OpenCV can read: {error.err}") from error
    if decoded is None:
        raise UserError(f"{path}: not an image that OpenCV can read")
    return decoded


def read_image(path):
    """(H, W, 3) uint8, BGR, as stored: labels are drawn on stored pixels, so EXIF turns nothing.

    Raises:
        UserError: the file is missing, cut short or no image.
    """
    path = Path(path)
    return _decode(path, _read(path, "image"),
                   cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)


def read_label(path, classes, zero_is_void=False):
    """(H, W) uint8 labels, 0..classes-1 or 255.

    Args:
        zero_is_void: files hold 0 for void and k + 1 for class k (ADE20K).
    Raises:
        UserError: the file is missing, no single-channel 8-bit image, or has other values.
    """
    path = Path(path)
    data = _read(path, "label")
    if data.startswith(_FORMATS[0][0]) and data[24:25] not in (b"\x08", b"\x10"):
        # OpenCV would spread the values of fewer bits over 0..255.
        raise UserError(f"{path}: a label must be one channel of 8 bits, got {data[24]} bits")
    label = _decode(path, data, cv2.IMREAD_UNCHANGED)
    if label.ndim != 2 or label.dtype != np.uint8:
        raise UserError(f"{path}: a label must be one channel of 8 bits, got shape {label.shape}, "
                        f"{label.dtype}")
    if zero_is_void:
        label = label - np.uint8(1)
    wrong = np.unique(label[(label >= classes) & (label != IGNORE_INDEX)])
    if wrong.size:
        values = ", ".join(str(int(v) + zero_is_void) for v in wrong[:5])
        allowed = f"0..{classes}" if zero_is_void else f"0..{classes - 1} or {IGNORE_INDEX}"
        raise UserError(f"{path}: labels must be {allowed}, got {values}")
    return label


def read_pair(pair, classes, zero_is_void=False):
    """Image and label of a Pair. Raises UserError as their readers, or where sizes differ."""
    image = read_image(pair.image)
    label = read_label(pair.label, classes, zero_is_void)
    if image.shape[:2] != label.shape:
        raise UserError(f"{pair.label}: size {label.shape[0]}x{label.shape[1]} differs from "
                        f"{image.shape[0]}x{image.shape[1]} of {pair.image}")
    return image, label
