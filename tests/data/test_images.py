"""What becomes of every kind of photograph that OpenCV reads."""

import cv2
import numpy as np
import pytest
from PIL import Image

from pspnet_repro.data.images import ImageDepth, read_image, read_photograph
from pspnet_repro.errors import UserError


def save(path, picture, kind, **options):
    """Save a PIL image and return the path."""
    picture.save(path, kind, **options)
    return path


def has_alpha(path):
    return read_photograph(path).had_alpha


RAMP = np.arange(60, dtype=np.uint8).reshape(6, 10)


def test_grey_becomes_three_equal_channels(tmp_path):
    image = read_image(save(tmp_path / "grey.png", Image.fromarray(RAMP), "PNG"))
    assert image.dtype == np.uint8 and np.array_equal(image, np.dstack([RAMP] * 3))


def test_transparency_is_dropped(tmp_path):
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[..., :3], pixels[..., 3] = (10, 20, 30), [[0, 255], [7, 128]]
    path = save(tmp_path / "alpha.png", Image.fromarray(pixels, "RGBA"), "PNG")
    assert np.array_equal(read_image(path), np.broadcast_to(np.uint8([30, 20, 10]), (2, 2, 3)))
    assert has_alpha(path)
    assert not has_alpha(save(tmp_path / "rgb.png", Image.fromarray(pixels[..., :3]), "PNG"))
    assert not has_alpha(save(tmp_path / "grey.png", Image.fromarray(RAMP), "PNG"))


def test_sixteen_bits_lose_the_lower_eight(tmp_path):
    values = np.array([[0, 0x00FF, 0x0100, 0x9C40, 0xFFFF]], np.uint16)
    for name, pixels in (("grey", values), ("colour", np.dstack([values] * 3))):
        path = tmp_path / f"{name}.png"
        assert cv2.imwrite(str(path), pixels)
        assert read_image(path)[0, :, 0].tolist() == [0, 0, 1, 0x9C, 255]


@pytest.mark.parametrize("inks", [(0, 255, 255, 0), (100, 50, 200, 60), (0, 0, 0, 255)])
def test_cmyk_becomes_rgb(tmp_path, inks):
    path = save(tmp_path / "cmyk.jpg", Image.new("CMYK", (16, 16), inks), "JPEG", quality=100)
    *colours, black = (255 - ink for ink in inks)
    # Of one colour, so that JPEG loses at most a level or two.
    wanted = [colour * black / 255 for colour in reversed(colours)]
    assert np.abs(read_image(path) - np.array(wanted)).max() <= 2


@pytest.mark.parametrize("orientation, turned", [
    (1, RAMP), (2, RAMP[:, ::-1]), (3, RAMP[::-1, ::-1]), (4, RAMP[::-1]), (5, RAMP.T),
    (6, np.rot90(RAMP, -1)), (7, RAMP[::-1, ::-1].T), (8, np.rot90(RAMP))])
def test_exif_turns_photographs_only_when_asked(tmp_path, orientation, turned):
    exif = Image.Exif()
    exif[0x112] = orientation
    path = save(tmp_path / "turned.png", Image.fromarray(RAMP), "PNG", exif=exif)
    assert np.array_equal(read_image(path)[..., 0], RAMP)
    assert np.array_equal(read_image(path, upright=True)[..., 0], turned)


def test_extreme_sizes(tmp_path):
    for shape in ((1, 1), (20000, 100), (100, 20000)):
        path = tmp_path / "size.png"
        assert cv2.imwrite(str(path), np.zeros(shape, np.uint8))
        assert read_image(path).shape == (*shape, 3)


@pytest.mark.parametrize("kind", ["BMP", "GIF", "WEBP", "TIFF", "JPEG2000", "PPM"])
def test_other_formats(tmp_path, kind):
    picture = Image.fromarray(np.full((8, 9, 3), (200, 100, 50), np.uint8))
    options = {"lossless": True} if kind == "WEBP" else {}
    image = read_image(save(tmp_path / "picture", picture, kind, **options))
    assert image.shape == (8, 9, 3) and np.abs(image - np.array([50, 100, 200])).max() <= 4


def test_what_is_no_image_is_named(tmp_path):
    for name, data in (("text.jpg", b"no image"), ("empty.jpg", b"")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UserError, match=f"{name}: not an image that OpenCV can read"):
            read_image(tmp_path / name)


@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 3)])
@pytest.mark.parametrize("kind, dtype", [
    (".tiff", np.float32), (".tiff", np.float64), (".tiff", np.int32), (".tiff", np.uint32),
    (".tiff", np.int16), (".pfm", np.float32), (".hdr", np.float32)])
def test_floats_and_wide_integers_are_refused(tmp_path, kind, dtype, shape):
    pixels = np.linspace(0, 1 if dtype in (np.float32, np.float64) else 3000, np.prod(shape))
    path = tmp_path / "deep"
    path.write_bytes(cv2.imencode(kind, pixels.reshape(shape).astype(dtype))[1].tobytes())
    with pytest.raises(ImageDepth, match="deep: must have 8 or 16 unsigned bits a channel, got "
                       f"{np.dtype(dtype)}; scale it to 0..255 and save it as an 8-bit PNG"):
        read_image(path)


def test_openexr_is_refused(tmp_path):
    (tmp_path / "x.exr").write_bytes(b"\x76\x2f\x31\x01" + bytes(60))
    with pytest.raises(ImageDepth, match=r"x.exr: .* got floats \(OpenEXR\); scale it to 0..255"):
        read_image(tmp_path / "x.exr")


@pytest.mark.parametrize("kind", [".png", ".tiff", ".ppm", ".pgm"])
@pytest.mark.parametrize("largest, shown", [(0, 0), (1, None), (255, None), (4095, None),
                                            (4096, 16), (0xFFFF, 255)])
def test_twelve_bits_in_sixteen_are_refused(tmp_path, kind, largest, shown):
    path = tmp_path / "x"
    pixels = np.zeros((3, 4) if kind == ".pgm" else (3, 4, 3), np.uint16)
    pixels[1, 2] = largest
    path.write_bytes(cv2.imencode(kind, pixels)[1].tobytes())
    if shown is None:
        with pytest.raises(ImageDepth, match="x: has 16 bits a channel but no value above "
                           f"{largest}, and would be read as nearly black; scale it to 0..255"):
            read_image(path)
    else:
        assert read_image(path).max() == shown


def test_opaque_alpha_does_not_hide_twelve_bits(tmp_path):
    pixels = np.full((3, 4, 4), 4095, np.uint16)
    pixels[..., 3] = 0xFFFF
    assert cv2.imwrite(str(tmp_path / "x.png"), pixels)
    with pytest.raises(ImageDepth, match="no value above 4095"):
        read_image(tmp_path / "x.png")


def test_only_transparency_is_transparency(tmp_path):
    def alpha(mode, channels, kind, **options):
        pixels = np.zeros((3, 4, channels), np.uint8).squeeze()
        return has_alpha(save(tmp_path / "x", Image.fromarray(pixels).convert(mode) if channels < 4
                              else Image.fromarray(pixels, mode), kind, **options))

    assert not alpha("CMYK", 4, "TIFF") and not alpha("CMYK", 4, "JPEG")
    assert not alpha("RGB", 3, "TIFF") and not alpha("P", 1, "PNG") and not alpha("P", 1, "GIF")
    assert alpha("RGBA", 4, "TIFF") and alpha("RGBA", 4, "WEBP") and alpha("LA", 1, "PNG")
    assert alpha("P", 1, "PNG", transparency=0) and alpha("P", 1, "GIF", transparency=0)
    # Pillow reads no PAM files.
    (tmp_path / "x").write_bytes(b"P7\nWIDTH 1\nHEIGHT 1\nDEPTH 4\nMAXVAL 255\n"
                                 b"TUPLTYPE RGB_ALPHA\nENDHDR\n\1\2\3\4")
    assert has_alpha(tmp_path / "x")
