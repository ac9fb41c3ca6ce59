"""Photographs: reading files and decoding them."""

import io
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from pspnet_repro.data.decode import DAMAGED, check_png_pixels, decode
from pspnet_repro.errors import UserError, first_line, printable
from pspnet_repro.files import refuse_pipe

_EXR = b"\x76\x2f\x31\x01"
_TIFF = (b"II", b"MM")
MAX_BYTES = 2 ** 30
# A square photograph of 11585 pixels a side: its RGB values take 400 MB.
MAX_PIXELS = 2 ** 27


def read_file(path: Path, what: str) -> tuple[bytes, Image.Image | None]:
    """The bytes of an image file, `what` in words, and the PIL image of them as open_header has it.
    Raises UserError where the file is missing or too large."""
    refuse_pipe(path)
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise UserError(f"{path}: must have at most {MAX_BYTES} bytes, got {size}")
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such {what}") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {first_line(error)}") from error
    # Before the pixels are allocated.
    return data, open_header(path, data)


def open_header(path: Path, data: bytes) -> Image.Image | None:
    """The PIL image of an image file's bytes, not decoded yet; None where Pillow knows none. Raises
    UserError where the header tells of more than MAX_PIXELS."""
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


def _decode(path, data, header, flags):
    """What OpenCV makes of an image file's bytes. Raises UserError: they are cut short, or are no
    image."""
    try:
        decoded = decode(data, flags)
        why = "" if decoded is not None else _damage(data, header)
    except (cv2.error, ValueError) as error:
        decoded, why = None, f": {getattr(error, 'err', error)}"
    if decoded is None:
        raise UserError(f"{path}: not an image that OpenCV can read{why}")
    return decoded


def _damage(data, header):
    """": " and why OpenCV cannot read an image, as far as Pillow knows, else ""."""
    # Of a TIFF Pillow has but a number, and libtiff would write to stderr.
    if header is None or header.format == "TIFF":
        return ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if header.format == "PNG":
                check_png_pixels(data)
            header.load()
    except DAMAGED as error:
        return f": {printable(first_line(error), 200)}"
    return ""


_SAVE = "scale it to 0..255 and save it as an 8-bit PNG or JPEG"


class ImageDepth(UserError):
    """A photograph whose values have no certain brightness."""


@dataclass(frozen=True)
class Photograph:
    """A photograph as it was read: (H, W, 3) uint8, BGR, and whether its file holds transparency,
    which is dropped."""

    image: np.ndarray
    had_alpha: bool


def read_image(path: Path | str, upright: bool = False) -> np.ndarray:
    """The image of `read_photograph`."""
    return read_photograph(path, upright).image


def read_photograph(path: Path | str, upright: bool = False) -> Photograph:
    """A Photograph, as OpenCV decodes it.

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
    data, header = read_file(path, "image")
    if data.startswith(_EXR):
        raise _no_range(path, "floats (OpenEXR)")
    flags = cv2.IMREAD_COLOR | (0 if upright else cv2.IMREAD_IGNORE_ORIENTATION)
    try:
        image = _decode(path, data, header, flags | cv2.IMREAD_ANYDEPTH)
    except UserError:
        if not data.startswith(_TIFF):
            raise
        # OpenCV makes no three channels of one of 32 bits.
        deep = _decode(path, data, header, cv2.IMREAD_UNCHANGED).dtype
        if deep.itemsize > 2:
            raise _no_range(path, deep) from None
        raise
    if image.dtype not in (np.uint8, np.uint16):
        raise _no_range(path, image.dtype)
    if image.dtype == np.uint16:
        image = _eight_bits(path, data, header, flags, image)
    return Photograph(image, _has_alpha(path, data, header))


def _eight_bits(path, data, header, flags, deep):
    """An image of 16 bits, `deep`, with 8. Raises ImageDepth: it would be nearly black."""
    # AVIF and JPEG 2000 tell of their 10 or 12 bits, and OpenCV scales those; colours of TIFF files
    # it rounds.
    drops = header is not None and header.format in ("PNG", "PPM")
    image = (deep >> 8).astype(np.uint8) if drops else _decode(path, data, header, flags)
    largest = deep.max()
    if 0 < largest < 4096 and image.max() <= 16:
        raise ImageDepth(f"{path}: has 16 bits a channel but no value above {largest}, and would "
                         f"be read as nearly black; {_SAVE}")
    return image


def _has_alpha(path, data, header):
    if header is None:
        decoded = _decode(path, data, header, cv2.IMREAD_UNCHANGED)
        return decoded.ndim == 3 and decoded.shape[2] == 4
    return header.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in header.info


def _no_range(path, kind):
    return ImageDepth(f"{path}: must have 8 or 16 unsigned bits a channel, got {kind}; {_SAVE}")


def png_bytes(pixels: np.ndarray) -> bytes:
    """(H, W) uint8 or (H, W, 3) uint8 RGB as a PNG file's bytes."""
    pixels = pixels if pixels.ndim == 2 else np.ascontiguousarray(pixels[:, :, ::-1])
    return cv2.imencode(".png", pixels)[1].tobytes()
