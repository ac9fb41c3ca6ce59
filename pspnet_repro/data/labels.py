"""Label files: the class of every pixel."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from pspnet_repro.data.conventions import IGNORE_INDEX, strips, value_counts
from pspnet_repro.data.decode import CUT_SHORT, DAMAGED, PNG, check_png_end, check_png_pixels
from pspnet_repro.data.images import read_file
from pspnet_repro.errors import UsageError, UserError, first_line

# What a value of a label file means, 256 bytes: a class, 255 for unlabelled, WRONG for none.
WRONG = 254
IDENTITY = bytes(range(256))
ZERO_IS_VOID = bytes([IGNORE_INDEX, *range(255)])

Colours = Sequence[tuple[int, int, int, int]]  # (red, green, blue, value)
_WAY_ON = "save class indices as an 8-bit PNG of one channel"
_LOSSY = ("JPEG", "MPO", "JPEG2000", "WEBP", "AVIF")
_LOSSLESS_TIFF = ("raw", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "packbits", "lzma",
                  "zstd")
# (name, number, value) of tags whose other values change what a sample means or where it lies.
_PLAIN_TIFF = (("photometric interpretation", 262, (1, 2, 3)), ("fill order", 266, (1,)),
               ("orientation", 274, (1,)), ("sample format", 339, (1,)))


class LabelFormat(UserError):
    """A label file whose format does not keep class indices for certain."""


class LabelDepth(UserError):
    """A label file of more or less than one channel of 8 bits."""


class ColouredLabel(UserError):
    """A label file that is a picture."""


class LabelColour(UserError):
    """A label file with colours that have no meaning."""


def check_classes(classes: int) -> None:
    """Raise UsageError for more classes than 8-bit labels can name beside 254 and 255."""
    if not 1 <= classes <= 254:
        raise UsageError(f"classes must be 1 to 254 for 8-bit labels, got {classes}")


def read_label_file(path: Path | str, colours: Colours | None = None) -> np.ndarray:
    """The values of a label file, (H, W) uint8: of a palette the indices, whatever its colours.

    Args:
        colours: of pictures, tuples (red, green, blue, value): what each colour becomes. Then a
            palette gives colours, and grey has three equal parts.
        path: a PNG, BMP, TIFF or PGM file (its content says which) of one channel: a palette, or
            grey of 8 bits. Samples of a PGM are taken as they are, whatever its maximum. Other
            files are refused, because their indices are not certain.
    Raises:
        UserError: the file is missing, damaged or cut short; LabelFormat, LabelDepth,
            ColouredLabel, LabelColour: it is refused.
    """
    path = Path(path)
    data, image = read_file(path, "label")
    if image is None and data.startswith((PNG, b"BM", b"II*\0", b"MM\0*", b"P2", b"P5")):
        raise UserError(f"{path}: not an image that can be read: its header is damaged or of an "
                        f"unknown kind; {_WAY_ON}")
    try:
        with warnings.catch_warnings():
            # Of damaged parts; pixels that are damaged raise.
            warnings.simplefilter("ignore")
            _check_format(image, data)
            _check_depth(image, data)
            values = _READERS[image.format](image, data)
            if colours is None:
                _check_channels(values)
            else:
                values = _values_of(_colours(image, values), colours)
    except LabelColour as error:
        raise LabelColour(f"{path}: {error}") from None
    except (LabelFormat, LabelDepth, ColouredLabel) as error:
        raise type(error)(f"{path}: a label must be one channel of 8 bits, got {error}; "
                          f"{_WAY_ON}") from None
    except DAMAGED as error:
        raise UserError(f"{path}: not an image that can be read: {first_line(error)}") from error
    return values


def _check_format(image, data):
    """Raise LabelFormat, with what a file is, where its indices are not certain."""
    if image is None:
        raise LabelFormat("a NumPy array" if data.startswith(b"\x93NUMPY") else
                          "no image that is known")
    kind = image.format
    if kind in _LOSSY:
        raise LabelFormat(f"{kind}, which changes indices: go back to what it was made from")
    if kind not in _READERS:
        raise LabelFormat(f"{kind}, and only PNG, BMP, TIFF and PGM are read")
    if getattr(image, "n_frames", 1) > 1:
        raise LabelFormat(f"{image.n_frames} images in one file")
    if kind == "BMP" and image.info["compression"] in (1, 2):
        raise LabelFormat("a compressed BMP")
    if kind == "TIFF":
        if image.info["compression"] not in _LOSSLESS_TIFF:
            raise LabelFormat(f"a TIFF of compression {image.info['compression']}")
        for name, number, plain in _PLAIN_TIFF:
            for value in np.ravel(image.tag_v2.get(number, 1)):
                if value not in plain:
                    raise LabelFormat(f"a TIFF of {name} {value}")


def _check_depth(image, data):
    """Raise LabelDepth for other than 8 bits a channel; indices into a palette may have fewer."""
    if image.format == "PNG":
        bits = data[24]
    elif image.format == "TIFF":
        bits = image.tag_v2.get(258, (1,))[0]
    elif image.format == "PPM":
        bits = {"1": 1, "L": 8, "RGB": 8, "F": 32}.get(image.mode, 16)
    else:
        return
    if bits < 8 and image.mode != "P":
        raise LabelDepth(f"{bits} bit{'s' * (bits > 1)} of grey, whose values may be indices or "
                         f"brightness")
    if bits > 8:
        raise LabelDepth("float32" if image.mode == "F" else f"uint{bits}")


def _check_channels(values):
    """Raise LabelDepth for several channels that are equal, ColouredLabel for others."""
    if values.ndim == 2:
        return
    colours = values[..., :3] if values.shape[2] > 2 else values[..., :1]
    if (colours == colours[..., :1]).all():
        raise LabelDepth(f"shape {values.shape} without colours: keep one channel, "
                         f"PIL.Image.open(FILE).getchannel(0).save(NEW)")
    raise ColouredLabel(f"shape {values.shape}, a picture")


def _colours(image, values):
    """(H, W, 3) uint8 RGB of a picture, of an image with a palette, or of a grey one."""
    if image.mode == "P":
        return np.array(image.convert("RGB"))
    if values.ndim == 2:
        return np.repeat(values[..., None], 3, 2)
    if values.shape[2] == 4 and (values[..., 3] != 255).any():
        raise LabelColour("is transparent in places, so its colours are not certain; save it as "
                          "RGB without transparency")
    if values.shape[2] < 3 or image.mode not in ("RGB", "RGBA"):
        raise LabelColour(f"must be RGB to have the label map's colours, is {image.mode}")
    return values[..., :3]


def _values_of(rgb, colours):
    """(H, W) uint8, see read_label_file. Raises LabelColour for colours without a value."""
    known = np.array(colours, np.uint32)
    keys, meanings, wrong = colour_keys(known), known[:, 3].astype(np.uint8), []
    order, values = np.argsort(keys), np.empty(rgb.shape[:2], np.uint8)
    for rows in strips(*rgb.shape[:2]):
        seen = colour_keys(rgb[rows])
        places = order[np.searchsorted(keys, seen, sorter=order).clip(max=len(keys) - 1)]
        wrong = np.union1d(wrong, seen[keys[places] != seen])
        values[rows] = meanings[places]
    if len(wrong):
        shown = ", ".join(f"{key >> 16} {key >> 8 & 255} {key & 255}"
                          for key in wrong[:5].astype(int).tolist())
        raise LabelColour(f"holds colours that the label map does not name: {shown}"
                          f"{' and others' * (len(wrong) > 5)}; add a line RED GREEN BLUE CLASS, "
                          "or RED GREEN BLUE ignore, for each")
    return values


def colour_keys(rgb: np.ndarray) -> np.ndarray:
    """(...) uint32, 0xRRGGBB of (..., 3) colours of 0..255."""
    rgb = rgb.astype(np.uint32)
    return rgb[..., 0] << 16 | rgb[..., 1] << 8 | rgb[..., 2]


def _stored_bytes(data, offset, rows, stride):
    if len(data) < offset + rows * stride:
        raise ValueError(CUT_SHORT)
    return np.frombuffer(data, np.uint8, rows * stride, offset).reshape(rows, stride)


def _read_png(image, data):
    check_png_end(data)
    # Pillow fills the missing rest with zeros.
    check_png_pixels(data)
    return np.array(image)


def _read_bmp(image, data):
    """As other readers; Pillow takes the indices of some grey palettes wrongly."""
    # Sizes have two bytes in the oldest header.
    bits = data[24] if data[14] == 12 else data[28]
    if bits > 8:
        return np.array(image)
    _, (_, _, columns, rows), offset, (*_, direction) = image.tile[0]
    indices = _stored_bytes(data, offset, rows, (columns * bits + 31) // 32 * 4)
    if bits < 8:
        weights = 2 ** np.arange(bits, dtype=np.uint8)[::-1]
        indices = np.unpackbits(indices, axis=1).reshape(rows, -1, bits) @ weights
    return indices[::direction, :columns].copy()


def _read_tiff(image, _):
    try:
        return np.array(image)
    except OSError as error:
        if image.info["compression"] == "raw":
            raise
        # Pillow's error is a number; libtiff writes a line of its own to stderr.
        raise ValueError(CUT_SHORT) from error


def _read_pnm(image, data):
    """As other readers; Pillow would scale a PGM's samples up to 255."""
    if image.mode != "L":
        return np.array(image)
    decoder, (_, _, columns, rows), offset, args = image.tile[0]
    largest = 255 if decoder == "raw" else args[1]
    if decoder == "ppm_plain":
        return np.rint(np.array(image) * (largest / 255)).astype(np.uint8)
    samples = _stored_bytes(data, offset, rows, columns)
    if samples.max() > largest:
        raise ValueError(f"it holds {samples.max()}, above its maximum {largest}")
    return samples.copy()


# (PIL image, bytes of the file) -> array of the pixels as stored; they raise as Pillow does.
_READERS = {"PNG": _read_png, "BMP": _read_bmp, "TIFF": _read_tiff, "PPM": _read_pnm}


def read_label(path: Path | str, classes: int, table: bytes | None = None,
               colours: Colours | None = None) -> np.ndarray:
    """(H, W) uint8 labels, 0..classes-1 or 255; table, colours: see Pair.

    Raises UserError as read_label_file, or where the file has other values.
    """
    try:
        values = read_label_file(path, colours)
    except ColouredLabel as error:
        raise ColouredLabel(f"{error}, or say what each colour means with --label-map") from None
    table = table or IDENTITY
    allowed = allowed_values(classes, table)
    if cv2.LUT(values, (~allowed).astype(np.uint8)).any():
        wrong = np.flatnonzero(value_counts(values) * ~allowed)
        got = ", ".join(map(str, wrong[:5]))
        raise UserError(f"{path}: labels must be {spans(np.flatnonzero(allowed))}, got {got}; "
                        "--label-map and --ignore give values another meaning")
    return cv2.LUT(values, np.frombuffer(table, np.uint8))


def allowed_values(classes: int, table: bytes) -> np.ndarray:
    """(256,) bool: the values of label files that `table` gives a meaning among `classes`."""
    meaning = np.frombuffer(table, np.uint8)
    return (meaning < classes) | (meaning == IGNORE_INDEX)


def spans(values: Sequence[int] | np.ndarray) -> str:
    """[0, 1, 2, 255] -> "0..2 or 255"."""
    values = np.asarray(values)
    parts = np.split(values, np.flatnonzero(np.diff(values) > 1) + 1)
    return " or ".join(str(p[0]) if len(p) == 1 else f"{p[0]}..{p[-1]}" for p in parts)
