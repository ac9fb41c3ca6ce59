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

from pspnet_repro.errors import UserError, first_line, printable
from pspnet_repro.files import refuse_pipe

# How files of a format begin, and what a whole one holds near its end.
PNG = b"\x89PNG"
_FORMATS = ((PNG, b"IEND"), (b"\xff\xd8\xff", b"\xff\xd9"))
_EXR = b"\x76\x2f\x31\x01"
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
    # Before the pixels are allocated.
    open_header(path, data)
    return data


def open_header(path, data):
    """The PIL image of an image file's bytes, not decoded yet; None where Pillow knows none.

    Raises:
        UserError: the header tells of more than MAX_PIXELS.
    """
    try:
        with warnings.catch_warnings():
            # Pillow's own limits are others.
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data))
    except Image.DecompressionBombError as error:
        raise UserError(f"{path}: must have at most {MAX_PIXELS} pixels: "
                        f"{first_line(error)}") from error
    except (OSError, SyntaxError, ValueError, OverflowError, struct.error):
        return None
    columns, rows = image.size
    if rows * columns > MAX_PIXELS:
        raise UserError(f"{path}: must have at most {MAX_PIXELS} pixels, has {rows} x {columns}")
    return image


_STDERR = threading.Lock()


@contextlib.contextmanager
def stderr_lines():
    """Takes what libraries in C write to stderr meanwhile: yields a list, filled at the end.

    One thread at a time: stderr is the whole process's.
    """
    lines = []
    with _STDERR, contextlib.ExitStack() as stack:
        try:
            before = os.dup(2)
        except OSError:
            # There is no stderr.
            yield lines
            return
        file = stack.enter_context(tempfile.TemporaryFile())
        os.dup2(file.fileno(), 2)
        try:
            yield lines
        finally:
            os.dup2(before, 2)
            os.close(before)
            file.seek(0)
            said = file.read(2 ** 16)
            if b"\r" in said:
                # A progress bar's, from another thread.
                sys.stderr.write(said.decode(errors="replace"))
            else:
                lines += said.decode(errors="replace").splitlines()


def decode(path, data, flags):
    """What OpenCV makes of an image file's bytes. Raises UserError: they are cut short, or are no
    image."""
    try:
        with stderr_lines() as lines:
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


_SAVE = "scale it to 0..255 and save it as an 8-bit PNG or JPEG"


class ImageDepth(UserError):
    """A photograph whose values have no certain brightness."""


def read_image(path, upright=False):
    """A photograph: (H, W, 3) uint8, BGR, as OpenCV decodes it.

    Grey becomes three equal channels, transparency is dropped, CMYK becomes RGB as
    (255 - ink) * (255 - black) / 255. 16 bits lose the lower 8; where that leaves a file nearly
    black, because its largest value is below 4096 (12 bits or fewer), it is refused. So are
    floats and integers of 32 bits, of which no range is certain.

    Args:
        upright: turn it as its EXIF orientation says; False: as stored, which is what labels are
            drawn on.
    Raises:
        UserError: the file is missing, cut short or no image; ImageDepth: it is refused.
    """
    path = Path(path)
    data = read_bytes(path, "image")
    if data.startswith(_EXR):
        raise _no_range(path, "floats (OpenEXR)")
    flags = cv2.IMREAD_COLOR | (0 if upright else cv2.IMREAD_IGNORE_ORIENTATION)
    try:
        image = decode(path, data, flags | cv2.IMREAD_ANYDEPTH)
    except UserError:
        # OpenCV makes no three channels of one of 32 bits.
        deep = decode(path, data, cv2.IMREAD_UNCHANGED).dtype
        if deep.itemsize > 2:
            raise _no_range(path, deep) from None
        raise
    if image.dtype == np.uint8:
        return image
    if image.dtype != np.uint16:
        raise _no_range(path, image.dtype)
    largest = image.max()
    image = decode(path, data, flags)
    # AVIF and JPEG 2000 tell of their 10 or 12 bits, and OpenCV scales those.
    if 0 < largest < 4096 and image.max() <= 16:
        raise ImageDepth(f"{path}: has 16 bits a channel but no value above {largest}, and would "
                         f"be read as nearly black; {_SAVE}")
    return image


def _no_range(path, kind):
    return ImageDepth(f"{path}: must have 8 or 16 unsigned bits a channel, got {kind}; {_SAVE}")


def has_alpha(path):
    """Whether an image file holds transparency, which `read_image` drops."""
    path = Path(path)
    data = read_bytes(path, "image")
    image = open_header(path, data)
    if image is None:
        decoded = decode(path, data, cv2.IMREAD_UNCHANGED)
        return decoded.ndim == 3 and decoded.shape[2] == 4
    return image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info


def png_bytes(pixels):
    """(H, W) uint8 or (H, W, 3) uint8 RGB as a PNG file's bytes."""
    pixels = pixels if pixels.ndim == 2 else np.ascontiguousarray(pixels[:, :, ::-1])
    return cv2.imencode(".png", pixels)[1].tobytes()
