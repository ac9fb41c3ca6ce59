"""Image and label files that are cut short, endless or no files."""

import io
import os
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from PIL import Image

from pspnet_repro.data.images import read_image, read_photograph
from pspnet_repro.data.labels import read_label_file
from pspnet_repro.errors import UserError
from pspnet_repro.files import write_bytes

LABEL = np.random.default_rng(0).integers(0, 16, (40, 31)).astype(np.uint8)


def _palette_png(bits):
    picture = Image.fromarray(LABEL & 2 ** bits - 1, "P")
    picture.putpalette(bytes(768))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", bits=bits)
    return buffer.getvalue()


def _chunk(kind, content):
    return (struct.pack(">I", len(content)) + kind + content
            + struct.pack(">I", zlib.crc32(kind + content)))


def _with_pixels(png, change):
    """The PNG file with its compressed pixel data changed, in chunks that are right."""
    place = 8
    result, pixels = png[:8], b""
    while place < len(png):
        length, kind = struct.unpack(">I4s", png[place:place + 8])
        content = png[place + 8:place + 8 + length]
        if kind == b"IDAT":
            pixels += content
        else:
            if kind == b"IEND":
                changed = change(pixels)
                half = len(changed) // 2
                result += _chunk(b"IDAT", changed[:half]) + _chunk(b"IDAT", changed[half:])
            result += _chunk(kind, content)
        place += length + 12
    return result


def _fewer_rows(pixels):
    rows = zlib.decompress(pixels)
    return zlib.compress(rows[:len(rows) // 2])


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_palette_label_is_whole_or_refused(tmp_path, bits):
    path = tmp_path / "label.png"
    path.write_bytes(_with_pixels(_palette_png(bits), lambda pixels: pixels))
    assert np.array_equal(read_label_file(path), LABEL & 2 ** bits - 1)
    for change in (lambda pixels: pixels[:len(pixels) // 2], lambda pixels: pixels[:-40],
                   lambda pixels: b"", _fewer_rows):
        path.write_bytes(_with_pixels(_palette_png(bits), change))
        with pytest.raises(UserError, match="label.png: not an image that can be read: "):
            read_label_file(path)


def test_interlaced_palette_label_is_whole_or_refused(tmp_path):
    png = _palette_png(8)
    passes = ((0, 8, 0, 8), (4, 8, 0, 8), (0, 4, 4, 8), (2, 4, 0, 4), (0, 2, 2, 4), (1, 2, 0, 2),
              (0, 1, 1, 2))
    raw = b"".join(b"\0" + row.tobytes() for x, dx, y, dy in passes for row in LABEL[y::dy, x::dx])
    png = png[:8] + _chunk(b"IHDR", png[16:28] + b"\1") + png[33:]
    path = tmp_path / "label.png"
    path.write_bytes(_with_pixels(png, lambda _: zlib.compress(raw)))
    assert np.array_equal(read_label_file(path), LABEL)
    path.write_bytes(_with_pixels(png, lambda _: zlib.compress(raw[:-1])))
    with pytest.raises(UserError, match="label.png: not an image that can be read: "):
        read_label_file(path)


def test_what_is_no_regular_file_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "folder.png").mkdir()
    for name in ("pipe.png", "zero.png", "folder.png"):
        for read in (read_image, read_label_file):
            with pytest.raises(UserError, match=f"{name}: cannot be read: "
                               f"{'.*directory' if name[0] == 'f' else 'not a regular file'}"):
                read(tmp_path / name)


def test_huge_files_are_not_read(tmp_path):
    path = tmp_path / "huge.png"
    with open(path, "wb") as file:
        file.truncate(2 ** 30 + 1)
    with pytest.raises(UserError, match="huge.png: must have at most 1073741824 bytes, got 107"):
        read_image(path)


def test_names_too_long_are_named(tmp_path):
    with pytest.raises(UserError, match="aaa.png: cannot be read: .*too long"):
        read_image(tmp_path / f"{'a' * 300}.png")


def _header_only(rows, columns):
    """A PNG file of a few bytes whose header tells of any size."""
    header = struct.pack(">IIBBBBB", columns, rows, 8, 2, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header)
            + _chunk(b"IDAT", zlib.compress(bytes(100))) + _chunk(b"IEND", b""))


@pytest.mark.parametrize("size", [(30000, 30000), (11586, 11585), (2 ** 30, 2 ** 30)])
@pytest.mark.parametrize("read", [read_image, read_label_file])
def test_too_many_pixels_are_refused_by_the_header(tmp_path, read, size):
    path = tmp_path / "bomb.png"
    path.write_bytes(_header_only(*size))
    with pytest.raises(UserError, match="bomb.png: must have at most 134217728 pixels"):
        read(path)


def test_long_and_large_photographs_are_read(tmp_path):
    for rows, columns in ((100, 20000), (10000, 10000)):
        path = tmp_path / "x.png"
        # One bit a pixel: 12 MB as it is packed.
        Image.new("1", (columns, rows), 1).save(path)
        assert read_image(path).shape == (rows, columns, 3)


def test_a_png_with_a_wrong_chunk_is_read_and_one_without_pixels_is_not(tmp_path):
    header = struct.pack(">IIBBBBB", 2, 2, 8, 0, 0, 0, 0)
    start, end = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header), _chunk(b"IEND", b"")
    pixels = _chunk(b"IDAT", zlib.compress(bytes(6)))
    path = tmp_path / "x.png"
    path.write_bytes(start + _chunk(b"gAMA", b"\0") + pixels + end)
    assert read_image(path).shape == (2, 2, 3)
    for damaged in (_chunk(b"IDAT", b"no pixels"), _chunk(b"IDAT", zlib.compress(bytes(3))),
                    pixels[:-1] + b"\0"):
        path.write_bytes(start + damaged + end)
        with pytest.raises(UserError, match="x.png: not an image that OpenCV can read: its pixel "
                           "data is damaged or cut short"):
            read_image(path)


def test_a_png_is_read_to_its_end(tmp_path):
    """Not to the letters IEND within it."""
    png = _palette_png(8)
    text = _chunk(b"tEXt", b"Comment\0IEND")
    path = tmp_path / "x.png"
    path.write_bytes(png[:33] + text + png[33:] + b"more")
    assert read_image(path).shape == (*LABEL.shape, 3)
    assert np.array_equal(read_label_file(path), LABEL)
    for data in (png[:-1], png[:33] + text + png[33:-12]):
        path.write_bytes(data)
        for read in (read_image, read_label_file):
            with pytest.raises(UserError, match="x.png: .*: its end is missing"):
                read(path)


def _jpeg(mode="RGB", **options):
    pixels = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (90, 121, 3), np.uint8),
                              (0, 0), 1.0)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, "JPEG", **options)
    return buffer.getvalue()


_EXIF = b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"
JPEGS = {"sequential": _jpeg(), "every sample": _jpeg(quality=95, subsampling=0),
         "progressive": _jpeg(progressive=True), "grey": _jpeg("L", optimize=True),
         "grey, progressive": _jpeg("L", progressive=True), "inks": _jpeg("CMYK"),
         "restarts": _jpeg(restart_marker_rows=1),
         # Its thumbnail has an end mark of its own.
         "thumbnail": _jpeg(exif=_EXIF + _jpeg("L"))}


@pytest.mark.parametrize("kind", JPEGS)
def test_a_jpeg_that_is_cut_short_is_refused(tmp_path, kind):
    path, data = tmp_path / "cut.jpg", JPEGS[kind]
    start, size = data.rindex(b"\xff\xda") + 20, len(data)
    for cut in (start, (start + size) // 2, size - 200, size - 20):
        # Sometimes a program ends a file that it could not finish with the mark of an end.
        for end, why in ((b"", "its end is missing"),
                         (b"\xff\xd9", "its pixel data is damaged or cut short")):
            path.write_bytes(data[:cut] + end)
            with pytest.raises(UserError, match="cut.jpg: not an image that OpenCV can read: "
                               f"{why}$"):
                read_image(path)


@pytest.mark.parametrize("kind", JPEGS)
def test_a_whole_jpeg_is_read_whatever_follows(tmp_path, kind):
    path, data = tmp_path / "whole.jpg", JPEGS[kind]
    wanted = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    for whole in (data, data + b"rest", data + b"\xff\xd9", data + data[:500], data + bytes(9),
                  data[:-2] + b"\xff\xff\xff\xd9", data[:-2] + b"\xff\xfe\0\x04ok\xff\xd9"):
        path.write_bytes(whole)
        assert np.array_equal(read_image(path), wanted)


@pytest.mark.parametrize("kind", ["sequential", "progressive"])
def test_a_marker_among_the_pixels_of_a_jpeg_is_refused(tmp_path, kind):
    path, data = tmp_path / "x.jpg", JPEGS[kind]
    place = data.rindex(b"\xff\xda") + 60
    path.write_bytes(data[:place] + b"\xff\xfe\0\x04ok" + data[place:])
    with pytest.raises(UserError, match="x.jpg: .*: its pixel data is damaged or cut short"):
        read_image(path)


def test_photographs_are_decoded_once(tmp_path, monkeypatch):
    sizes = []

    def decode(data, flags, imdecode=cv2.imdecode):
        sizes.append(len(data))
        return imdecode(data, flags)

    monkeypatch.setattr(cv2, "imdecode", decode)
    deep = np.full((4, 5, 3), 40000, np.uint16)
    for data in (JPEGS["sequential"], JPEGS["restarts"], _palette_png(8),
                 *(cv2.imencode(kind, deep)[1].tobytes() for kind in (".png", ".ppm"))):
        path = tmp_path / "x"
        path.write_bytes(data)
        sizes.clear()
        read_photograph(path, upright=True)
        assert len(sizes) == 1


def test_threads_that_read_images_leave_stderr_alone(tmp_path):
    sound, cut = tmp_path / "sound.png", tmp_path / "cut.jpg"
    cv2.imwrite(str(sound), np.zeros((8, 8, 3), np.uint8))
    cut.write_bytes(JPEGS["sequential"][:-200] + b"\xff\xd9")
    before = os.fstat(2)

    def read(number):
        if number % 2:
            with pytest.raises(UserError, match="cut.jpg.*cut short"):
                read_image(cut)
        else:
            assert read_image(sound).shape == (8, 8, 3)
        assert os.path.samestat(os.fstat(2), before)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(read, range(100)))


def test_devices_and_pipes_are_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="pipe: cannot be written: not a regular file"):
        write_bytes(tmp_path / "pipe", b"x")
    assert (tmp_path / "pipe").is_fifo()
