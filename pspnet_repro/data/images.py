"""Photographs: reading files and decoding them."""

import contextlib
import io
import os
import struct
import sys
import tempfile
import threading
import warnings
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from pspnet_repro.errors import UserError, first_line, printable, refuse_pipe

# How files of a format begin, and what a whole one holds near its end.
PNG = b"\x89PNG"
_FORMATS = ((PNG, b"IEND"), (b"\xff\xd8\xff", b"\xff\xd9"))
MAX_BYTES = 2 ** 30
# A square photograph of 11585 pixels a side: its RGB values take 400 MB.
MAX_PIXELS = 2 ** 27


def read_bytes(path, what):
    """The bytes of an image file, `what` in words. Raises UserError: it is missing, cut short or
    too large."""
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


def decode(path, data, flags):
    """What OpenCV makes of an image file's bytes. Raises UserError: they are cut short, or are no
    image."""
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
    return decode(path, read_bytes(path, "image"),
                  cv2.IMREAD_COLOR | (0 if upright else cv2.IMREAD_IGNORE_ORIENTATION))


def has_alpha(path):
    """Whether an image file holds a channel of transparency, which `read_image` drops."""
    path = Path(path)
    decoded = decode(path, read_bytes(path, "image"), cv2.IMREAD_UNCHANGED)
    return decoded.ndim == 3 and decoded.shape[2] == 4
