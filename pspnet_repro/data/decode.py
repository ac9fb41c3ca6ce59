"""What OpenCV makes of image files, and whether files hold all of their pixels."""

import io
import re
import struct
import zlib

import cv2
import numpy as np
from PIL.JpegImagePlugin import JpegImageFile

PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
CUT_SHORT = "its pixel data is damaged or cut short"
_NO_END = "its end is missing"
# What Pillow raises for damaged files.
DAMAGED = (OSError, SyntaxError, ValueError, TypeError, IndexError, KeyError, EOFError,
           struct.error, zlib.error)

# Neither a byte 255 of coded pixels, nor one of the marks between them that a decoder counts.
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_COUNTED = re.compile(rb"\xff[\xd0-\xd7]")
_SCAN, _END = 0xda, 0xd9
_FRAMES = {*range(0xc0, 0xd0)} - {0xc4, 0xc8, 0xcc}
_HUFFMAN = (0xc0, 0xc1, 0xc2)
# As many bytes as libjpeg may read ahead.
_FILLER = b"\xfe" * 8


def _jpeg_layout(data):
    """Where the parts of the first image of a JPEG file lie.

    Returns:
        (scans, end, frame): (first, past the last) place of each scan's coded pixels, the place
        past the end mark, or None, and the code of the marker that says how they are coded.
    """
    scans, frame, place = [], None, 2
    while marker := _MARKER.search(data, place):
        code, place = data[marker.start() + 1], marker.end()
        if code == _END:
            return scans, place, frame
        place += int.from_bytes(data[place:place + 2], "big")
        if code in _FRAMES:
            frame = code
        if code == _SCAN and (following := _MARKER.search(data, place)):
            # Bytes 255 before a marker belong to it.
            stop = len(data[place:following.start()].rstrip(b"\xff")) + place
            scans.append((place, stop))
            place = following.start()
    return scans, None, frame


def decode(data: bytes, flags: int) -> np.ndarray | None:
    """What cv2.imdecode makes of an image file's bytes, None where it cannot read them.

    Where the pixels of a JPEG end at a marker before the image is full, libjpeg fills in grey and
    says so on stderr alone. Where the data ends, OpenCV (4.11 and later) refuses the file.

    Raises ValueError where the file is cut short, else as cv2.imdecode.
    """
    if data.startswith(PNG):
        check_png_end(data)
    elif data.startswith(_JPEG):
        scans, end, frame = _jpeg_layout(data)
        if end is None:
            raise ValueError(_NO_END)
        if frame in _HUFFMAN:
            return _decode_jpeg(data[:end], scans, flags)
    return _imdecode(data, flags)


def _decode_jpeg(data, scans, flags):
    if len(scans) == 1:
        # Without its end mark, so that nothing is filled in.
        image = _imdecode(data[:scans[0][1]] + _FILLER, flags)
        if image is not None:
            return image
    image = _imdecode(data, flags)
    # More bytes after the coded pixels change nothing, unless a decoder lacks pixels. The second
    # comparison is for images that Pillow rounds differently from OpenCV, or that were turned.
    filled = _pillow_bgr(_filled(data, scans))
    if filled is None or not (np.array_equal(filled, image)
                              or np.array_equal(filled, _pillow_bgr(data))):
        raise ValueError(CUT_SHORT)
    return image


def _imdecode(data, flags):
    return cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None


def _filled(data, scans):
    """A JPEG file with more bytes wherever its coded pixels end."""
    parts, place = [], 0
    for first, stop in scans:
        parts += [data[place:first],
                  _COUNTED.sub(lambda mark: _FILLER + mark[0], data[first:stop]), _FILLER]
        place = stop
    return b"".join([*parts, data[place:]])


def _pillow_bgr(data):
    """(H, W, 3) uint8, BGR, of a JPEG file, without a word on stderr; None for a damaged one."""
    try:
        rgb = np.asarray(JpegImageFile(io.BytesIO(data)).convert("RGB"))
    except DAMAGED:
        return None
    return cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)


def _png_chunks(data):
    """(kind, content, checksum) of the chunks of a PNG file that are there to their end."""
    data, place = memoryview(data), len(PNG)
    while place + 12 <= len(data):
        length, kind = struct.unpack(">I4s", data[place:place + 8])
        start, place = place + 8, place + 12 + length
        if place <= len(data):
            yield kind, data[start:place - 4], data[place - 4:place]


def check_png_end(data: bytes) -> None:
    """Raise ValueError where a PNG file lacks its end."""
    if all(kind != b"IEND" for kind, *_ in _png_chunks(data)):
        raise ValueError(_NO_END)


def check_png_pixels(data: bytes) -> None:
    """Raise ValueError where a PNG file's pixel data is damaged or ends before the last row."""
    width, height, bits, kind, *_, interlaced = struct.unpack(">IIBBBBB", data[16:29])
    bits *= {2: 3, 4: 2, 6: 4}.get(kind, 1)
    # (first column, column step, first row, row step) of the passes.
    passes = ((0, 8, 0, 8), (4, 8, 0, 8), (0, 4, 4, 8), (2, 4, 0, 4), (0, 2, 2, 4), (1, 2, 0, 2),
              (0, 1, 1, 2)) if interlaced else ((0, 1, 0, 1),)
    sizes = [(len(range(x, width, dx)), len(range(y, height, dy))) for x, dx, y, dy in passes]
    wanted = sum(rows * (-(-columns * bits // 8) + 1) for columns, rows in sizes if columns)
    decompress = zlib.decompressobj()
    for kind, content, checksum in _png_chunks(data):
        if kind == b"IDAT" and wanted > 0:
            if zlib.crc32(content, zlib.crc32(kind)) != int.from_bytes(checksum, "big"):
                raise ValueError(CUT_SHORT)
            try:
                wanted -= len(decompress.decompress(decompress.unconsumed_tail + content, wanted))
            except zlib.error as error:
                raise ValueError(CUT_SHORT) from error
    if wanted > 0:
        raise ValueError(CUT_SHORT)
