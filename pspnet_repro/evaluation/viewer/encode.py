"""Pictures as data URLs of few bytes."""

import base64
import io
import struct
import zlib
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image


def scaled(height: int, width: int, side: int) -> tuple[int, int]:
    """(rows, columns) of a picture whose long side is at most `side`; never larger than it is."""
    scale = min(1, side / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def shrink(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Means over areas: (H, W) or (H, W, 3) -> `size` (rows, columns)."""
    return pixels if pixels.shape[:2] == size else cv2.resize(
        np.ascontiguousarray(pixels), size[::-1], interpolation=cv2.INTER_AREA)


def nearest(label: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The label at the middle of each area: (H, W) -> `size` (rows, columns)."""
    rows, columns = (((np.arange(new) + 0.5) * old / new).astype(int)
                     for old, new in zip(label.shape, size, strict=True))
    return label[rows[:, None], columns]


def jpeg_url(image_rgb: np.ndarray, quality: int) -> str:
    """(H, W, 3) uint8 -> a data URL."""
    buffer = io.BytesIO()
    Image.fromarray(image_rgb).save(buffer, "JPEG", quality=quality, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_url(values: np.ndarray, palette_rgb: Sequence[Sequence[int]] | None = None) -> str:
    """(H, W) uint8, grey or indices into a palette, -> a data URL of a PNG with one IDAT of rows
    without a filter. Indices past the palette's end are transparent.

    The page inflates these rows itself: a canvas would give colours, which a browser may manage.
    """
    height, width = values.shape
    rows = np.zeros((height, width + 1), np.uint8)
    rows[:, 1:] = values
    colours = b""
    if palette_rgb is not None:
        table = np.zeros((int(values.max()) + 1, 3), np.uint8)
        alpha = np.zeros(len(table), np.uint8)
        known = min(len(table), len(palette_rgb))
        table[:known], alpha[:known] = palette_rgb[:known], 255
        colours = _chunk(b"PLTE", table.tobytes()) + _chunk(b"tRNS", alpha.tobytes())
    header = struct.pack(">IIBBBBB", width, height, 8, 0 if palette_rgb is None else 3, 0, 0, 0)
    data = (b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + colours
            + _chunk(b"IDAT", zlib.compress(rows.tobytes(), 8)) + _chunk(b"IEND", b""))
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"
