"""The viewer page: its file, and what it does in a browser."""

import base64
import html.parser
import io
import re
import struct
import weakref
import zlib

import numpy as np
import pytest
from PIL import Image

from browser import Page
from pspnet_repro.data.classes import Classes, known_classes, numbered_classes
from pspnet_repro.errors import UserError
from pspnet_repro.evaluation.viewer import PICTURE_BYTES, ViewerImage, write_viewer

NETWORKS = ["PSPNet50", "FCN"]
ITEM = re.compile(r'<li><button type="button" class="thumbnail">.*?</section></li>\n', re.DOTALL)
CLASSES = known_classes("camvid")
SIZE = (40, 64)
HOSTILE = ("</script><script>document.title='broken'</script>",
           "\" onload=\"document.title='broken'",
           "<!-- items -->&lt;'`", "line\nbreak\x00\x1b[31m", "a\u202egpj.exe", "\udcff.png",
           "a" * 300, "שלום.jpg", "<img src=http://example.org/x>")


def _quarters(*labels):
    """Four labels: above left, above right, below left, below right."""
    rows, columns = SIZE[0] // 2, SIZE[1] // 2
    return np.kron(np.reshape(labels, (2, 2)), np.ones((rows, columns))).astype(np.uint8)


def _image(name="street.jpg", **changes):
    fields = dict(image_rgb=np.full((*SIZE, 3), (10, 200, 90), np.uint8),
                  predictions={"PSPNet50": _quarters(0, 1, 2, 3), "FCN": _quarters(0, 1, 4, 8)},
                  truth=_quarters(0, 1, 2, 255),
                  confidence={"PSPNet50": np.full(SIZE, 0.873), "FCN": np.full(SIZE, 0.5)},
                  iou={"PSPNet50": {"sky": 0.9126, "pole": float("nan")}})
    return ViewerImage(name, **(fields | changes))


def _write(path, *images, **changes):
    arguments = dict(title="Streets", classes=CLASSES, networks=NETWORKS) | changes
    return write_viewer(path, images=images, **arguments)


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
    assert _write(tmp_path / "page.html", _image()) == ""
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
    _write(tmp_path / "page.html", _image(predictions=dict.fromkeys(NETWORKS, label), truth=truth,
                                          iou=None), classes=classes)
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
    assert _write(tmp_path / "page.html", _noisy_image(rng, classes), classes=classes) == ""
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
    said = _write(path, _image(), _image(
        image_rgb=image_rgb, truth=noise, predictions=dict.fromkeys(NETWORKS, noise),
        confidence=dict.fromkeys(NETWORKS, rng.random((900, 1800)))))
    assert said == (f"{path}: 1 of its pictures are shown at less than 1024 pixels, because each "
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
    _write(tmp_path / "page.html", _image(
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
            image = _image(image_rgb=np.zeros((*SIZE, 3), np.uint8))
            last[0] = weakref.ref(image.image_rgb)
            yield image
            del image

    write_viewer(tmp_path / "page.html", "Streets", CLASSES, images(), NETWORKS)


@pytest.mark.parametrize("changes, said", [
    (dict(image_rgb=np.zeros((4, 4, 3), np.uint8)), r"'a.jpg', truth: must be \(4, 4\) uint8"),
    (dict(image_rgb=np.zeros(SIZE, np.uint8)), r"must be \(H, W, 3\) uint8, got \(40, 64\) uint8"),
    (dict(image_rgb=np.zeros((*SIZE, 3))), r"must be \(H, W, 3\) uint8, got .* float64"),
    (dict(image_rgb=np.zeros((0, 0, 3), np.uint8)), r"got \(0, 0, 3\)"),
    (dict(truth=_quarters(0, 1, 2, 11)), r"'a.jpg', truth: labels must be 0..10 or 255, got 11"),
    (dict(truth=np.zeros(SIZE, int)), r"truth: must be \(40, 64\) uint8 .* int64"),
    (dict(predictions={"PSPNet50": _quarters(0, 0, 0, 0), "FCN": _quarters(0, 0, 0, 255)}),
     r"predictions of FCN: labels must be 0..10, got 255; give the list"),
    (dict(predictions={"PSPNet50": _quarters(0, 0, 0, 0), "FCN": None}), "got .* NoneType"),
    (dict(predictions={"PSPNet50": _quarters(0, 0, 0, 0)}), "predictions must be of the networks"),
    (dict(iou={"other": {}}), r"iou must be of the networks .*, got \['other'\]"),
    (dict(confidence={"FCN": np.full(SIZE, 87.0)}), r"confidence of FCN: must be 0..1, got 87"),
    (dict(confidence={"FCN": np.full(SIZE, np.nan)}), "must be 0..1, got nan"),
    (dict(confidence={"FCN": np.ones((2, 2))}), r"must be \(40, 64\) as the photograph")])
def test_wrong_pictures_are_refused(tmp_path, changes, said):
    (tmp_path / "page.html").write_text("before")
    with pytest.raises(UserError, match=said) as error:
        _write(tmp_path / "page.html", _image(), _image("a.jpg", **changes))
    assert "\n" not in str(error.value)
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"]
    assert (tmp_path / "page.html").read_text() == "before"


@pytest.mark.parametrize("changes, said", [
    (dict(images=[]), "no images"), (dict(networks=["a", "a"]), "a name of its own"),
    (dict(classes=numbered_classes(256)), "1..255 classes, got 256")])
def test_wrong_arguments_are_refused(tmp_path, changes, said):
    arguments = dict(title="Streets", classes=CLASSES, images=[_image()], networks=NETWORKS)
    with pytest.raises(UserError, match=said):
        write_viewer(tmp_path / "page.html", **(arguments | changes))
    assert not list(tmp_path.iterdir())


def test_alternative_texts_name_picture_network_and_classes(tmp_path):
    unlabelled = _quarters(255, 255, 255, 255)
    _write(tmp_path / "page.html", _image("a & b.jpg"), _image("c.jpg", truth=unlabelled))
    elements = Elements((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert elements.values("svg", "aria-label")[:4] == [
        "a & b.jpg, photograph", "a & b.jpg, Truth: sky 25%, building 25%, pole 25%",
        "a & b.jpg, PSPNet50: sky 25%, building 25%, pole 25%",
        "a & b.jpg, FCN: sky 25%, building 25%, pavement 25%"]
    assert elements.values("svg", "aria-label")[5] == "c.jpg, Truth: unlabelled"
    assert elements.values("img", "alt")[0] == "a & b.jpg: sky 25%, building 25%, pole 25%"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Page(tmp_path_factory.mktemp("browser") / "profile") as page:
        yield page


@pytest.fixture
def page(browser, tmp_path):
    """Opens a page of these pictures; what went wrong in it fails the test."""
    def open_page(*images, window=(1280, 900), dark=False, touch=False, **changes):
        _write(tmp_path / "page.html", *images, **changes)
        browser.open(tmp_path / "page.html", *window, dark=dark, touch=touch)
        browser.wait("state.maps.length > 0")
        return browser

    yield open_page
    for event in browser.log:
        assert event.get("method") != "Runtime.exceptionThrown", event
        assert event.get("params", {}).get("entry", {}).get("level") != "error", event
        url = event.get("params", {}).get("request", {}).get("url", "data:")
        assert re.match(r"data:|about:blank$|file://.*/page\.html$", url), url


def _stack(layer):
    return f"#stage figure:nth-of-type({layer + 1}) .stack"


def _read(page):
    """The captions of the visible layers."""
    return page.evaluate("figures.filter(f => !f.hidden).map(f => f.querySelector('figcaption')"
                         ".textContent.replace(/\\s+/g, ' ').trim())")


def _pressed(page):
    return page.evaluate("layerButtons.filter(b => b.ariaPressed === 'true')"
                         ".map(b => b.textContent)")


def _colour_at(page, point, **how):
    pixels = Image.open(io.BytesIO(page.screenshot(**how))).convert("RGB")
    return pixels.getpixel(tuple(map(round, point)))


def test_browser_reads_labels_exactly(page):
    classes = numbered_classes(255)
    label = np.random.default_rng(0).integers(0, 255, SIZE).astype(np.uint8)
    label.flat[:255] = range(255)
    truth = label.copy()
    truth[:, ::2] = 255
    page = page(_image(predictions=dict.fromkeys(NETWORKS, label), truth=truth, iou=None,
                       confidence={"FCN": np.linspace(0, 1, label.size).reshape(SIZE)}),
                classes=classes)
    for layer, expected in ((1, truth), (2, label), (3, label)):
        values = page.evaluate(f"Array.from(state.maps[{layer}].values)")
        assert np.array_equal(np.reshape(values, SIZE), expected)
        painted = page.evaluate(
            f"Array.from(figures[{layer}].querySelector('canvas').getContext('2d')"
            f".getImageData(0, 0, {SIZE[1]}, {SIZE[0]}).data)")
        painted = np.reshape(painted, (*SIZE, 4))
        labelled = expected != 255
        assert np.array_equal(painted[..., 3], 255 * labelled)
        assert np.array_equal(painted[labelled][:, :3],
                              np.asarray(classes.palette_rgb)[expected[labelled]])
    quarter = np.linspace(0, 1, label.size).reshape(10, 4, 16, 4).mean((1, 3))
    values = page.evaluate("Array.from(state.maps[3].confidence.values)")
    assert np.abs(np.reshape(values, quarter.shape) - 100 * quarter).max() <= 0.51
    assert page.evaluate("state.maps[2].confidence") is None


def test_browser_says_the_class_under_the_pointer(page):
    page = page(_image())
    assert _read(page) == ["Photograph", "Truth", "PSPNet50", "FCN"]
    page.mouse("mouseMoved", page.point_of(_stack(2), 0.25, 0.25))
    assert _read(page) == ["Photograph x 16, y 10", "Truth sky",
                           "PSPNet50 sky · probability 87% · IoU 91.3%",
                           "FCN sky · probability 50%"]
    page.mouse("mouseMoved", page.point_of(_stack(0), 0.75, 0.75))
    assert _read(page)[1:] == ["Truth unlabelled", "PSPNet50 road · probability 87%",
                               "FCN car · probability 50%"]
    page.mouse("mouseMoved", page.point_of("h1"))
    assert _read(page) == ["Photograph", "Truth", "PSPNet50", "FCN"]


def test_browser_shows_the_colours_of_the_classes(page):
    page = page(_image())
    page.evaluate("$('opacity').value = 0; setOpacity(100)")
    below_left = page.point_of(_stack(3), 0.25, 0.75)
    assert _colour_at(page, below_left) == CLASSES.palette_rgb[4]
    for _ in range(5):
        page.key("-")
    assert page.evaluate("$('percent').textContent") == "50%"
    mixed = (np.array((10, 200, 90)) + CLASSES.palette_rgb[4]) / 2
    assert np.abs(_colour_at(page, below_left) - mixed).max() <= 4  # JPEG's rounding
    page.click("#opacity", 0)
    assert page.evaluate("$('percent').textContent") == "0%"
    assert np.abs(np.subtract(_colour_at(page, below_left), (10, 200, 90))).max() <= 4


def test_browser_switches_classes(page):
    page = page(_image())
    names = page.evaluate("classButtons.filter(b => !b.parentNode.hidden).map(b => b.textContent)")
    assert names == ["sky", "building", "pole", "road", "pavement", "car"]
    alpha = ("figures[2].querySelector('canvas').getContext('2d')"
             ".getImageData({0}, {1}, 1, 1).data[3]").format
    page.click("#classes li:nth-child(1) button")
    assert page.evaluate("classButtons[0].ariaPressed") == "false"
    assert (page.evaluate(alpha(1, 1)), page.evaluate(alpha(60, 1))) == (0, 255)
    page.click("#none")
    assert page.evaluate(alpha(60, 1)) == 0
    page.click("#classes li:nth-child(2) button")
    assert page.evaluate(alpha(60, 1)) == 255
    page.click("#all")
    assert page.evaluate(alpha(1, 1)) == 255


def test_browser_shows_errors_only(page):
    page = page(_image(), _image(truth=None))
    page.click("#wrong")
    alphas = page.evaluate(
        "[2, 3].map(k => [[1, 1], [60, 1], [1, 38], [60, 38]].map(([x, y]) => figures[k]"
        ".querySelector('canvas').getContext('2d').getImageData(x, y, 1, 1).data[3]))")
    assert alphas == [[0, 0, 0, 0], [0, 0, 255, 0]]
    page.key("j")
    page.wait("state.maps[1] === undefined")
    assert page.evaluate("$('wrong').disabled && layerButtons[1].disabled")
    assert _read(page) == ["Photograph", "PSPNet50", "FCN"]


def test_browser_slider(page):
    page = page(_image())
    page.click("#slider")
    assert _pressed(page) == NETWORKS
    page.evaluate("setOpacity(100)")
    left, right = (page.point_of(_stack(2), across, 0.75) for across in (0.2, 0.4))
    assert _colour_at(page, left) == _colour_at(page, right) == CLASSES.palette_rgb[2]
    page.drag(page.point_of(_stack(2), 0.5, 0.9), page.point_of(_stack(2), 0.3, 0.9))
    assert 29 <= int(page.evaluate("$('divide').value")) <= 31
    assert _colour_at(page, left) == CLASSES.palette_rgb[2]
    assert _colour_at(page, right) == CLASSES.palette_rgb[4]
    page.mouse("mouseMoved", right)
    assert [line.split(" · ")[0] for line in _read(page)] == ["PSPNet50 pole", "FCN pavement"]
    page.click("#divide", 0.1)
    assert int(page.evaluate("$('divide').value")) < 15
    assert _colour_at(page, left) == CLASSES.palette_rgb[4]
    page.key("1")
    assert _pressed(page) == ["Photograph", "FCN"]
    page.click("#layers button:nth-child(2)")
    assert _pressed(page) == ["Photograph", "Truth"]


def test_browser_keys(page):
    page = page(_image("a.jpg"), _image("b.jpg"), _image("c.jpg"))
    name = "$('name').textContent"
    for key, expected in (("ArrowRight", "b.jpg"), ("j", "c.jpg"), ("J", "c.jpg"), ("k", "b.jpg"),
                          ("ArrowLeft", "a.jpg"), ("ArrowLeft", "a.jpg")):
        page.key(key)
        assert page.evaluate(name) == expected
    page.key("2")
    page.key("4")
    assert _pressed(page) == ["Photograph", "PSPNet50"]
    page.key("4")
    assert _pressed(page) == ["Photograph", "PSPNet50", "FCN"]
    page.key("s")
    assert page.evaluate("state.sliding")
    page.key("+")
    assert page.evaluate("$('percent').textContent") == "65%"
    page.key("?")
    assert page.evaluate("!$('help').hidden && $('keys').ariaExpanded") == "true"
    page.key("?")
    assert page.evaluate("$('help').hidden")
    page.key("ArrowUp", "Shift")
    assert "pavement" not in page.evaluate("$('status').textContent")
    for _ in range(3):
        page.key("ArrowDown", "Shift")
    page.key("ArrowLeft", "Shift")
    assert "FCN pavement" in page.evaluate("$('status').textContent")
    page.evaluate("$('opacity').focus()")
    page.key("ArrowRight")
    assert page.evaluate(name) == "a.jpg"


def test_browser_buttons_and_thumbnails(page):
    page = page(_image("a.jpg"), _image("b.jpg"), _image("c.jpg"))
    page.click("#next")
    page.click("#items li:nth-child(3) .thumbnail")
    assert page.evaluate("[$('name').textContent, $('place').textContent]") == ["c.jpg", "3 of 3"]
    assert page.evaluate("$('next').disabled")
    page.click("#previous")
    page.wait("figures[2].querySelector('canvas').getAttribute('aria-label').startsWith("
              "'b.jpg, PSPNet50: sky 25%')")
    assert page.evaluate("document.querySelectorAll('[aria-current]').length") == 1


def test_browser_touch(page):
    page = page(_image(), window=(390, 844), touch=True)
    assert page.evaluate("state.sliding"), "a narrow window starts with the slider"
    page.touch(page.point_of(_stack(2), 0.25, 0.75))
    page.wait("state.point !== null")
    assert _read(page) == ["PSPNet50 pole · probability 87%", "FCN pavement · probability 50%"]
    assert page.evaluate("$('divide').value") == "50"
    x, y = page.point_of(_stack(2), 0.5, 0.5)
    page.touch((x, y), (x + 20, y), (x + 60, y), (x + 100, y))
    assert 70 <= int(page.evaluate("$('divide').value")) <= 85
    page.evaluate("setSliding(false)")
    page.touch(page.point_of(_stack(1), 0.75, 0.25))
    page.wait("state.point.y < 20")
    assert _read(page)[1] == "Truth building"


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [320, 390, 1280])
def test_browser_fits_the_window(page, width, dark):
    images = [_image(name) for name in HOSTILE]
    page = page(*images, window=(width, 844), dark=dark, touch=width < 1000, title=HOSTILE[6],
                networks=NETWORKS)
    for sliding in ("true", "false"):
        page.evaluate(f"$('help').hidden = false; setSliding({sliding})")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    corner = _colour_at(page, (width - 3, 3))
    assert (max(corner) < 60) if dark else (min(corner) > 200)


# WCAG 2's contrast of text: the ratio of luminances, 4.5 at least.
CONTRAST = """(() => {
  const luminance = css => {
    const [r, g, b] = css.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
      .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const ground = e => {
    const colour = getComputedStyle(e).backgroundColor;
    return colour === 'rgba(0, 0, 0, 0)' && e.parentElement ? ground(e.parentElement) : colour;
  };
  return [...document.querySelectorAll(
    'h1, h2, h2 span, h3, bdi, figcaption, .note, .help p, kbd, output, button:not(:disabled)')]
    .filter(e => e.checkVisibility() && e.textContent.trim()).map(e => {
      const [a, b] = [luminance(getComputedStyle(e).color), luminance(ground(e))].sort();
      return [(Math.max(a, b) + .05) / (Math.min(a, b) + .05), e.textContent];
    });
})()"""


@pytest.mark.parametrize("dark", [False, True])
def test_browser_text_is_readable(page, dark):
    page = page(_image(), _image(), dark=dark)
    page.click("#classes li:nth-child(1) button")
    page.key("?")
    ratios = page.evaluate(CONTRAST)
    assert len(ratios) > 30 and min(ratios)[0] >= 4.5


def test_browser_shows_hostile_names_as_text(page):
    networks = [HOSTILE[1], HOSTILE[8]]
    images = [_image(name, predictions=dict.fromkeys(networks, _quarters(0, 1, 2, 3)),
                     confidence=None, iou=None) for name in HOSTILE]
    page = page(*images, title=HOSTILE[0], networks=networks,
                classes=Classes((HOSTILE[2], *CLASSES.names[1:]), CLASSES.palette_rgb))
    names = []
    for k in range(len(HOSTILE)):
        names.append(page.evaluate("$('name').textContent"))
        page.key("j")
    assert names[:3] == list(HOSTILE[:3]) and names[7:] == list(HOSTILE[7:])
    assert names[3:6] == ["line\\nbreak\\x00\\x1b[31m", "a\\u202egpj.exe", "\\udcff.png"]
    assert len(names[6]) < 210
    assert page.evaluate("document.title") == HOSTILE[0]
    assert page.evaluate("classButtons[0].textContent") == HOSTILE[2]
    assert page.evaluate("document.querySelectorAll('script').length") == 1


def test_browser_prints_every_picture(page):
    page = page(_image("a.jpg"), _image("b.jpg"), _image("c.jpg", truth=None), dark=True)
    assert len(re.findall(rb"/Type\s*/Page\b(?!s)", page.pdf())) == 3
    page.evaluate("setOpacity(100)")
    page.call("Emulation.setEmulatedMedia", media="print")
    assert not page.evaluate("document.querySelector('main').checkVisibility()")
    shown = [page.evaluate(f"[...document.querySelectorAll({query!r})]"
                           ".filter(e => e.checkVisibility()).length")
             for query in (".sheet", ".sheet svg", ".thumbnail", ".legend .swatch")]
    assert shown == [3, 11, 0, 18]
    point = page.point_of("#items li:nth-child(2) figure[data-layer='3'] svg", 0.25, 0.75)
    assert _colour_at(page, point) == CLASSES.palette_rgb[4]
    unlabelled = page.point_of("#items li:nth-child(2) figure[data-layer='1'] svg", 0.75, 0.75)
    assert np.abs(np.subtract(_colour_at(page, unlabelled), (10, 200, 90))).max() <= 4
    page.call("Emulation.setEmulatedMedia", media="")
