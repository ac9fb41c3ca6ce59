"""Label files: the class of every pixel."""

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from pspnet_repro.data.conventions import IGNORE_INDEX
from pspnet_repro.data.images import PNG, decode, read_bytes
from pspnet_repro.errors import UsageError, UserError, first_line

# What a value of a label file means, 256 bytes: a class, 255 for unlabelled, WRONG for none.
WRONG = 254
ZERO_IS_VOID = bytes([IGNORE_INDEX, *range(255)])


def check_classes(classes):
    """Raise UsageError for more classes than 8-bit labels can name beside 254 and 255."""
    if not 1 <= classes <= 254:
        raise UsageError(f"classes must be 1 to 254 for 8-bit labels, got {classes}")


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


def read_label_file(path):
    """The values of a label file, (H, W) uint8; those of a PNG with a palette are its indices.

    Raises:
        UserError: the file is missing, cut short, or no single-channel 8-bit image.
    """
    path = Path(path)
    data = read_bytes(path, "label")
    if data.startswith(PNG):
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
    label = decode(path, data, cv2.IMREAD_UNCHANGED)
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
