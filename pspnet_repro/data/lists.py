"""List files: one pair `image label` a line, paths relative to the data set's folder."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from pspnet_repro.errors import UserError
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


def list_digest(path):
    """SHA-256 of a list file's bytes, in hexadecimal. Raises UserError where it cannot be read."""
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error}") from error


def _read(path, flags, what):
    try:
        data = np.fromfile(path, np.uint8)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such {what}") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    decoded = cv2.imdecode(data, flags) if data.size else None
    if decoded is None:
        raise UserError(f"{path}: not an image that OpenCV can read")
    return decoded


def read_image(path):
    """(H, W, 3) uint8, BGR. Raises UserError where the file is missing or no image."""
    return _read(path, cv2.IMREAD_COLOR, "image")


def read_label(path, classes, zero_is_void=False):
    """(H, W) uint8 labels, 0..classes-1 or 255.

    Args:
        zero_is_void: files hold 0 for void and k + 1 for class k (ADE20K).
    Raises:
        UserError: the file is missing, no single-channel 8-bit image, or has other values.
    """
    label = _read(path, cv2.IMREAD_UNCHANGED, "label")
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
