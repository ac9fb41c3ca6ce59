"""What becomes of every kind of photograph that OpenCV reads."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from pspnet_repro.data.images import has_alpha, read_image
from pspnet_repro.errors import UserError


def save(path, picture, kind, **options):
    """Save a PIL image and return the path."""
    picture.save(path, kind, **options)
    return path


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
    for name, data in (("text.jpg", b"no image"), ("empty.jpg", b""),
                       ("float.tiff", _float_tiff())):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UserError, match=f"{name}: not an image that OpenCV can read"):
            read_image(tmp_path / name)


def _float_tiff():
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((3, 3), np.float32), "F").save(buffer, "TIFF")
    return buffer.getvalue()
