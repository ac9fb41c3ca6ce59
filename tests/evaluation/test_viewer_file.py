"""The file of the viewer page."""

import base64
import html.parser
import io
import re
import struct
import weakref
import zlib

import numpy as np
import pytest
from helpers.viewer_pages import CLASSES, NETWORKS, SIZE, quarters, viewer_image, write_page
from PIL import Image

from pspnet_repro.data.classes import known_classes, numbered_classes
from pspnet_repro.errors import UserError
from pspnet_repro.evaluation.viewer import ViewerImage, write_viewer
from pspnet_repro.evaluation.viewer.markup import PICTURE_BYTES

ITEM = re.compile(r'<li><button type="button" class="thumbnail">.*?</section></li>\n', re.DOTALL)


class Elements(html.parser.HTMLParser):
    """The elements of a page: (tag, attributes)."""

    def __init__(self, text):
        super().__init__()
        self.all = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.all.append((tag, dict(attrs)))

    def values(self, tag, name):
        return [attributes[name] for t, attributes in self.all if t == tag and name in attributes]


def _pixels(url):
    """A PNG or JPEG of a data URL as Pillow opens it."""
    return Image.open(io.BytesIO(base64.b64decode(url.split(",")[1])))


def test_page_needs_nothing_else(tmp_path):
    assert write_page(tmp_path / "page.html", viewer_image()) == ""
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    elements = Elements(text)
    assert "default-src 'none'" in elements.values("meta", "content")[0]
    for attribute in ("src", "href"):
        for tag in {tag for tag, _ in elements.all}:
            assert all(re.match(r"data:image/(png|jpeg);base64,|#p\d+$", value)
                       for value in elements.values(tag, attribute))
    assert not {"link", "iframe", "object", "embed"} & {tag for tag, _ in elements.all}
    assert not re.search(r"https?://|@import|<!-- \w+ -->", text)


def test_label_maps_are_exact(tmp_path):
    classes = numbered_classes(255)
    label = np.random.default_rng(0).integers(0, 255, SIZE).astype(np.uint8)
    label.flat[:255] = range(255)
    truth = label.copy()
    truth[:, ::2] = 255
    image = viewer_image(predictions=dict.fromkeys(NETWORKS, label), truth=truth, iou=None)
    write_page(tmp_path / "page.html", image, classes=classes)
    urls = Elements((tmp_path / "page.html").read_text(encoding="utf-8")).values("image", "href")
    for url, expected in zip(urls[1:], (truth, label, label), strict=True):
        assert np.array_equal(np.asarray(_pixels(url)), expected)
        colours = np.asarray(_pixels(url).convert("RGBA"))
        labelled = expected != 255
        assert np.array_equal(colours[..., 3], 255 * labelled)
        assert np.array_equal(colours[labelled][:, :3],
                              np.asarray(classes.palette_rgb)[expected[labelled]])
        data = base64.b64decode(url.split(",")[1])
        at = data.index(b"IDAT")
        rows = zlib.decompress(data[at + 4:at + 4 + struct.unpack(">I", data[at - 4:at])[0]])
        assert set(rows[::SIZE[1] + 1]) == {0}, "the page's script reads rows without a filter"


def _noise(rng, slope, height=1024, width=2048):
    """(H, W) of deviation 1 whose amplitude falls with the frequency to the power `slope`."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)) + 1 / width
    plane = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((height, width))) / frequency ** slope,
                          (height, width))
    return plane / plane.std()


def _noisy_image(rng, classes):
    """A photograph of more bytes than CamVid's, by area, and label maps of twice as many."""
    light = 128 + 50 * _noise(rng, 1.2)[..., None] * (1, 0.95, 0.9)
    image_rgb = (light + rng.normal(0, 4, light.shape)).clip(0, 255).astype(np.uint8)
    scene = _noise(rng, 2.4)
    labels = [(3 * field + 9.5).clip(0, len(classes.names) - 1).astype(np.uint8)
              for field in (scene, scene + _noise(rng, 2.4) / 20, scene + _noise(rng, 2.4) / 9)]
    confidence = dict.fromkeys(NETWORKS, 1 - abs(np.tanh(scene)) / 2)
    return ViewerImage("photograph.png", image_rgb, dict(zip(NETWORKS, labels[1:])), labels[0],
                       confidence)


def test_hundred_photographs_take_thirty_megabytes(tmp_path):
    rng = np.random.default_rng(0)
    classes = known_classes("cityscapes")
    assert write_page(tmp_path / "page.html", _noisy_image(rng, classes), classes=classes) == ""
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    items = ITEM.findall(text)
    sizes = [len(item.encode()) for item in items]
    assert len(sizes) == 1 and sizes[0] > 200_000, "too easy to say anything of photographs"
    assert len(text.encode()) + 99 * sizes[0] < 30e6
    assert {_pixels(url).size for url in Elements(text).values("image", "href")} == {(1024, 512)}


def test_pictures_that_are_too_large_are_shown_smaller(tmp_path):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 11, (900, 1800)).astype(np.uint8)
    image_rgb = rng.integers(0, 256, (900, 1800, 3)).astype(np.uint8)
    path = tmp_path / "page.html"
    said = write_page(path, viewer_image(), viewer_image(
        image_rgb=image_rgb, truth=noise, predictions=dict.fromkeys(NETWORKS, noise),
        confidence=dict.fromkeys(NETWORKS, rng.random((900, 1800)))))
    assert said == (f"{path}: 1 of its pictures had to shrink below 1024 pixels, because each "
                    "may take 299 kB")
    text = path.read_text(encoding="utf-8")
    items = ITEM.findall(text)
    assert len(items) == 2 and all(len(item.encode()) <= PICTURE_BYTES for item in items)
    width, height = map(int, re.search(r"Shown at (\d+) × (\d+) pixels", text).groups())
    maps = [_pixels(url).size for url in Elements(text).values("image", "href")]
    assert maps == [SIZE[::-1]] * 4 + [(width, height)] * 4 and 128 <= width < 1024
    assert width == 2 * height


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (3000, 2)])
def test_odd_sizes(tmp_path, size):
    label = np.zeros(size, np.uint8)
    write_page(tmp_path / "page.html", viewer_image(
        image_rgb=np.zeros((*size, 3), np.uint8), truth=None,
        predictions=dict.fromkeys(NETWORKS, label),
        confidence=dict.fromkeys(NETWORKS, np.ones(size))))
    urls = Elements((tmp_path / "page.html").read_text(encoding="utf-8")).values("image", "href")
    assert len({_pixels(url).size for url in urls}) == 1 and max(_pixels(urls[0]).size) <= 1024


def test_one_picture_is_in_memory_at_a_time(tmp_path):
    last = [lambda: None]

    def images():
        for _ in range(3):
            assert last[0]() is None, "the page still holds the picture before"
            image = viewer_image(image_rgb=np.zeros((*SIZE, 3), np.uint8))
            last[0] = weakref.ref(image.image_rgb)
            yield image
            del image

    write_viewer(tmp_path / "page.html", "Streets", CLASSES, images(), NETWORKS)


@pytest.mark.parametrize("changes, said", [
    (dict(image_rgb=np.zeros((4, 4, 3), np.uint8)), r"'a.jpg', truth: must be \(4, 4\) uint8"),
    (dict(image_rgb=np.zeros(SIZE, np.uint8)), r"must be \(H, W, 3\) uint8, got \(40, 64\) uint8"),
    (dict(image_rgb=np.zeros((*SIZE, 3))), r"must be \(H, W, 3\) uint8, got .* float64"),
    (dict(image_rgb=np.zeros((0, 0, 3), np.uint8)), r"got \(0, 0, 3\)"),
    (dict(truth=quarters(0, 1, 2, 11)), r"'a.jpg', truth: labels must be 0..10 or 255, got 11"),
    (dict(truth=np.zeros(SIZE, int)), r"truth: must be \(40, 64\) uint8 .* int64"),
    (dict(predictions={"PSPNet50": quarters(0, 0, 0, 0), "FCN": quarters(0, 0, 0, 255)}),
     r"predictions of FCN: labels must be 0..10, got 255; give the list"),
    (dict(predictions={"PSPNet50": quarters(0, 0, 0, 0), "FCN": None}), "got .* NoneType"),
    (dict(predictions={"PSPNet50": quarters(0, 0, 0, 0)}), "predictions must be of the networks"),
    (dict(iou={"other": {}}), r"iou must be of the networks .*, got \['other'\]"),
    (dict(confidence={"FCN": np.full(SIZE, 87.0)}), r"confidence of FCN: must be 0..1, got 87"),
    (dict(confidence={"FCN": np.full(SIZE, np.nan)}), "must be 0..1, got nan"),
    (dict(confidence={"FCN": np.ones((2, 2))}), r"must be \(40, 64\) as the photograph")])
def test_wrong_pictures_are_refused(tmp_path, changes, said):
    (tmp_path / "page.html").write_text("before")
    with pytest.raises(UserError, match=said) as error:
        write_page(tmp_path / "page.html", viewer_image(), viewer_image("a.jpg", **changes))
    assert "\n" not in str(error.value)
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"]
    assert (tmp_path / "page.html").read_text() == "before"


@pytest.mark.parametrize("changes, said", [
    (dict(images=[]), "no images"), (dict(networks=["a", "a"]), "a name of its own"),
    (dict(classes=numbered_classes(256)), "1..255 classes, got 256")])
def test_wrong_arguments_are_refused(tmp_path, changes, said):
    arguments = dict(title="Streets", classes=CLASSES, images=[viewer_image()], networks=NETWORKS)
    with pytest.raises(UserError, match=said):
        write_viewer(tmp_path / "page.html", **(arguments | changes))
    assert not list(tmp_path.iterdir())


def test_alternative_texts_name_picture_network_and_classes(tmp_path):
    unlabelled = quarters(255, 255, 255, 255)
    write_page(tmp_path / "page.html", viewer_image("a & b.jpg"),
               viewer_image("c.jpg", truth=unlabelled))
    elements = Elements((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert elements.values("svg", "aria-label")[:4] == [
        "a & b.jpg, photograph", "a & b.jpg, Truth: sky 25%, building 25%, pole 25%",
        "a & b.jpg, PSPNet50: sky 25%, building 25%, pole 25%",
        "a & b.jpg, FCN: sky 25%, building 25%, pavement 25%"]
    assert elements.values("svg", "aria-label")[5] == "c.jpg, Truth: unlabelled"
    assert elements.values("img", "alt")[0] == "a & b.jpg: sky 25%, building 25%, pole 25%"
