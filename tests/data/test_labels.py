"""Label files of every container: indices as they are stored, or a refusal."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from helpers.refusals import refused
from PIL import Image

from pspnet_repro.data.labels import (
    ZERO_IS_VOID,
    ColouredLabel,
    LabelDepth,
    LabelFormat,
    read_label,
    read_label_file,
)
from pspnet_repro.errors import UserError

LABEL = np.random.default_rng(0).integers(0, 16, (20, 31)).astype(np.uint8)
PALETTES = {
    "indices": [(k, k, k) for k in range(256)], "grey": [(17 * k % 256,) * 3 for k in range(256)],
    "inverted": [(255 - k,) * 3 for k in range(256)],
    "colours": [(k, 91 * k % 256, 37) for k in range(256)], "alike": [(9, 9, 9)] * 256,
    "black and white": [(0, 0, 0), (255, 255, 255)]}
WAY_ON = "; save class indices as an 8-bit PNG of one channel$"


def save(image, kind, **options):
    """The bytes of a PIL image's file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def palette_image(label, palette):
    image = Image.fromarray(label, "P")
    image.putpalette(np.uint8(palette).tobytes())
    return image


def packed(label, bits):
    """Rows of `bits` a pixel, first pixel first, filled up to bytes."""
    return np.packbits((label[..., None] >> np.arange(bits)[::-1] & 1).reshape(len(label), -1), 1)


def bmp(label, bits, palette, oldest=False, downwards=False):
    rows, columns = label.shape
    pixels = packed(label, bits)
    pixels = np.pad(pixels, ((0, 0), (0, -pixels.shape[1] % 4)))[::1 if downwards else -1].tobytes()
    palette = palette[:2 ** bits]
    if oldest:
        header = struct.pack("<IHHHH", 12, columns, rows, 1, bits)
        palette += [(0, 0, 0)] * (2 ** bits - len(palette))
    else:
        header = struct.pack("<IiiHHIIiiII", 40, columns, -rows if downwards else rows, 1, bits, 0,
                             len(pixels), 0, 0, len(palette), 0)
    colours = b"".join(bytes(colour) + b"\0" * (not oldest) for colour in palette)
    start = 14 + len(header) + len(colours)
    return (b"BM" + struct.pack("<IHHI", start + len(pixels), 0, 0, start) + header + colours
            + pixels)


def tiff(label, bits, photometric):
    """An uncompressed TIFF whose directory comes before the pixels."""
    pixels, colours = packed(label, bits).tobytes(), 2 ** bits * (photometric == 3)
    entries = [(256, 3, 1, label.shape[1]), (257, 3, 1, label.shape[0]), (258, 3, 1, bits),
               (259, 3, 1, 1), (262, 3, 1, photometric), (277, 3, 1, 1),
               (278, 3, 1, label.shape[0]), (279, 4, 1, len(pixels))]
    start = 8 + 2 + 12 * (len(entries) + 1 + bool(colours)) + 4
    if colours:
        entries.append((320, 3, 3 * colours, start))
    entries.append((273, 4, 1, start + 6 * colours))
    return (b"II*\0" + struct.pack("<IH", 8, len(entries))
            + b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries)) + bytes(4)
            + struct.pack(f"<{3 * colours}H", *range(3 * colours)) + pixels)


def grey_png(label, bits):
    def chunk(kind, content):
        return (struct.pack(">I", len(content)) + kind + content
                + struct.pack(">I", zlib.crc32(kind + content)))

    header = struct.pack(">IIBBBBB", label.shape[1], label.shape[0], bits, 0, 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in packed(label, bits))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows))
            + chunk(b"IEND", b""))


def read(tmp_path, data):
    path = tmp_path / "label.bin"  # the name says nothing
    path.write_bytes(data)
    return read_label_file(path)


def expect(tmp_path, error, data, words):
    with pytest.raises(error, match=f"label.bin: {words}") as caught:
        read(tmp_path, data)
    assert type(caught.value) is error and "\n" not in str(caught.value)


@pytest.mark.parametrize("palette", PALETTES.values(), ids=PALETTES)
@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_indices_of_palettes_are_the_labels(tmp_path, kind, palette):
    label = LABEL % min(16, len(palette))
    assert np.array_equal(read(tmp_path, save(palette_image(label, palette), kind)), label)


@pytest.mark.parametrize("palette", PALETTES.values(), ids=PALETTES)
@pytest.mark.parametrize("bits", [1, 4, 8])
def test_bmp_indices_of_every_depth(tmp_path, bits, palette):
    label = LABEL % min(16, 2 ** bits, len(palette))
    for options in ({}, {"oldest": True}, {"downwards": True}):
        data = bmp(label, bits, palette, **options)
        assert np.array_equal(read(tmp_path, data), label)
        expect(tmp_path, UserError, data[:-1], "not an image that can be read: .*cut short")


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_tiff_indices_of_every_depth(tmp_path, bits):
    label = LABEL % min(16, 2 ** bits)
    data = tiff(label, bits, photometric=3)
    assert np.array_equal(read(tmp_path, data), label)
    expect(tmp_path, UserError, data[:-1], "not an image that can be read: .*truncated")
    expect(tmp_path, LabelFormat, tiff(label, bits, photometric=0),
           f"a label must be .*, got a TIFF of photometric interpretation 0{WAY_ON}")


@pytest.mark.parametrize("kind, options", [
    ("PNG", {}), ("PNG", {"transparency": 3}), ("BMP", {}), ("PPM", {}), ("TIFF", {}),
    *(("TIFF", {"compression": name}) for name in ("tiff_lzw", "tiff_adobe_deflate", "packbits"))])
def test_grey_of_eight_bits_is_the_label(tmp_path, kind, options):
    label = np.arange(256, dtype=np.uint8).reshape(8, 32)
    assert np.array_equal(read(tmp_path, save(Image.fromarray(label), kind, **options)), label)


@pytest.mark.parametrize("largest", [1, 2, 20, 254, 255])
def test_samples_of_pgm_are_not_scaled(tmp_path, largest):
    label = np.arange(largest + 1, dtype=np.uint8)[None]
    header = f"{largest + 1} 1\n# a comment\n{largest}\n".encode()
    text = " ".join(map(str, label[0])).encode()
    assert np.array_equal(read(tmp_path, b"P5\n" + header + label.tobytes()), label)
    assert np.array_equal(read(tmp_path, b"P2\n" + header + text), label)
    damaged = "not an image that can be read"
    expect(tmp_path, UserError, b"P5\n" + header + label.tobytes()[1:], damaged)
    expect(tmp_path, UserError, b"P2\n" + header + text[2:], damaged)
    if largest < 255:
        # 255 may mean unlabelled, and must not become the largest class.
        expect(tmp_path, UserError, b"P5\n" + header + label.tobytes()[1:] + b"\xff",
               f"{damaged}: it holds 255, above its maximum {largest}")
        expect(tmp_path, UserError, b"P2\n" + header + text[2:] + b" 255", damaged)


@pytest.mark.parametrize("data, bits", [
    (grey_png(LABEL % 2, 1), "1 bit"), (grey_png(LABEL % 4, 2), "2 bits"),
    (grey_png(LABEL, 4), "4 bits"), (tiff(LABEL % 2, 1, 1), "1 bit"),
    (tiff(LABEL % 4, 2, 1), "2 bits"), (tiff(LABEL, 4, 1), "4 bits"),
    (b"P1\n2 1\n0 1\n", "1 bit"), (b"P4\n2 1\n\x40", "1 bit"),
    (save(Image.fromarray(LABEL % 2 > 0), "TIFF", compression="packbits"), "1 bit")])
def test_grey_of_fewer_bits_is_refused(tmp_path, data, bits):
    """White may be class 1, or 255 that a program packed."""
    expect(tmp_path, LabelDepth, data, f"a label must be one channel of 8 bits, got {bits} of grey,"
           f" whose values may be indices or brightness{WAY_ON}")


@pytest.mark.parametrize("data, got", [
    (cv2.imencode(".png", LABEL.astype(np.uint16))[1].tobytes(), "uint16"),
    (cv2.imencode(".png", np.dstack([LABEL] * 3).astype(np.uint16))[1].tobytes(), "uint16"),
    (cv2.imencode(".tiff", LABEL.astype(np.uint16))[1].tobytes(), "uint16"),
    (b"P5\n2 1\n4095\n\0\1\0\2", "uint16"),
    (b"Pf\n2 1\n-1.0\n" + np.ones(2, "<f4").tobytes(), "float32")])
def test_more_bits_are_refused(tmp_path, data, got):
    expect(tmp_path, LabelDepth, data, f"a label must be one channel of 8 bits, got {got}{WAY_ON}")


@pytest.mark.parametrize("kind, options, name", [
    ("JPEG", {"quality": 100}, "JPEG"), ("JPEG2000", {}, "JPEG2000"), ("WEBP", {}, "WEBP"),
    ("WEBP", {"lossless": True}, "WEBP"), ("AVIF", {"quality": 100}, "AVIF")])
def test_lossy_formats_are_refused(tmp_path, kind, options, name):
    if kind == "AVIF" and kind not in Image.SAVE:
        pytest.skip("this Pillow writes no AVIF")
    expect(tmp_path, LabelFormat, save(Image.fromarray(LABEL), kind, **options),
           f"a label must be .*, got {name}, which changes indices: go back to .*{WAY_ON}")


def _array_file():
    buffer = io.BytesIO()
    np.save(buffer, LABEL)
    return buffer.getvalue()


@pytest.mark.parametrize("data, got", [
    # Programs that write GIF number the colours anew.
    (save(palette_image(LABEL, PALETTES["colours"]), "GIF"), "GIF, and only PNG, BMP, TIFF"),
    (save(Image.fromarray(LABEL), "PCX"), "PCX, and only PNG, BMP, TIFF and PGM are read"),
    (_array_file(), "a NumPy array"), (b"some text\n", "no image that is known"),
    (b"P7\nWIDTH 1\nHEIGHT 1\nDEPTH 1\nMAXVAL 255\nENDHDR\n\1", "no image that is known"),
    (b"", "no image that is known"),
    (save(Image.fromarray(LABEL), "TIFF", compression="jpeg"), "a TIFF of compression jpeg"),
    (save(Image.fromarray(LABEL), "TIFF", tiffinfo={274: 6}), "a TIFF of orientation 6"),
    (save(Image.fromarray(LABEL), "TIFF", tiffinfo={266: 2}), "a TIFF of fill order 2"),
    (save(Image.fromarray(LABEL), "TIFF", tiffinfo={339: 2}), "a TIFF of sample format 2"),
    (save(Image.fromarray(LABEL.astype(np.float32)), "TIFF"), "a TIFF of sample format 3"),
    *((save(Image.fromarray(LABEL), kind, save_all=True,
            append_images=[Image.fromarray(15 - LABEL)]), "2 images in one file")
      for kind in ("TIFF", "PNG"))])
def test_other_formats_are_refused(tmp_path, data, got):
    expect(tmp_path, LabelFormat, data, f"a label must be .*, got {got}.*{WAY_ON}")


def test_compressed_bmp_is_refused(tmp_path):
    data = bytearray(bmp(LABEL, 8, PALETTES["indices"]))
    data[30] = 1
    expect(tmp_path, LabelFormat, bytes(data), f"a label must be .*, got a compressed BMP{WAY_ON}")


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_equal_channels_are_told_from_pictures(tmp_path, kind):
    expect(tmp_path, LabelDepth, save(Image.fromarray(np.dstack([LABEL] * 3)), kind),
           r"a label must be one channel of 8 bits, got shape \(20, 31, 3\) without colours: keep "
           rf"one channel, PIL.Image.open\(FILE\).getchannel\(0\).save\(NEW\){WAY_ON}")
    picture = np.dstack([LABEL, LABEL, LABEL + 1])
    expect(tmp_path, ColouredLabel, save(Image.fromarray(picture), kind),
           rf"a label must be one channel of 8 bits, got shape \(20, 31, 3\), a picture{WAY_ON}")


@pytest.mark.parametrize("channels", [2, 4])
def test_transparency_is_no_colour(tmp_path, channels):
    pixels = np.dstack([LABEL] * (channels - 1) + [255 - LABEL])
    expect(tmp_path, LabelDepth, save(Image.fromarray(pixels), "PNG"),
           rf"a label must be .*, got shape \(20, 31, {channels}\) without colours")


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_damaged_compressed_tiff_is_refused(tmp_path, compression):
    data = save(Image.fromarray(LABEL), "TIFF", compression=compression)
    with Image.open(io.BytesIO(data)) as image:
        (start,), (count,) = image.tag_v2[273], image.tag_v2[279]
    # 128 is no operation in PackBits, nothing that LZW or Deflate begin with.
    changed = data[:start] + b"\x80" * count + data[start + count:]
    expect(tmp_path, UserError, changed,
           "not an image that can be read: its pixel data is damaged or cut short")


@pytest.mark.parametrize("mode", ["L", "P"])
def test_damaged_png_is_refused(tmp_path, mode):
    data = save(Image.fromarray(LABEL) if mode == "L" else
                palette_image(LABEL, PALETTES["colours"]), "PNG")
    start = data.index(b"IDAT") + 4
    for place in range(start, len(data) - 16):
        changed = data[:place] + bytes([data[place] ^ 1]) + data[place + 1:]
        expect(tmp_path, UserError, changed, "not an image that can be read")


@pytest.mark.parametrize("start", [b"\x89PNG\r\n\x1a\nIEND", b"BM", b"II*\0", b"P5\n"])
def test_damaged_headers_are_named(tmp_path, start):
    expect(tmp_path, UserError, start + b"x" * 40, "not an image that can be read: its header is "
           f"damaged or of an unknown kind{WAY_ON}")


def test_read_label_with_void_zero(listed):
    cv2.imwrite(str(listed / "ade.png"), np.array([[0, 1, 150]], np.uint8))
    assert read_label(listed / "ade.png", 150, ZERO_IS_VOID).tolist() == [[255, 0, 149]]
    refused("labels must be 0..149, got 150", read_label, listed / "ade.png", 149, ZERO_IS_VOID)


def test_read_label_with_a_damaged_palette_file(tmp_path):
    path = tmp_path / "label.png"
    Image.fromarray(np.zeros((40, 40), np.uint8), "L").convert("P").save(path)
    data = bytearray(path.read_bytes())
    at = data.index(b"IDAT") + 8
    data[at:at + 10] = b"\0" * 10
    path.write_bytes(data)
    with pytest.raises(UserError, match="label.png: not an image that can be read") as caught:
        read_label(path, 3)
    assert "\n" not in str(caught.value)
