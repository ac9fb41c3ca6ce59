"""What the viewer page does in a browser."""

import io
import re

import numpy as np
import pytest
from helpers.viewer_pages import (
    CLASSES,
    HOSTILE,
    NETWORKS,
    SIZE,
    quarters,
    viewer_image,
    write_page,
)
from PIL import Image

from pspnet_repro.data.classes import Classes, numbered_classes


@pytest.fixture
def page(browser, tmp_path):
    """Opens a page of these pictures; what went wrong in it fails the test."""
    def open_page(*images, window=(1280, 900), dark=False, touch=False, **changes):
        write_page(tmp_path / "page.html", *images, **changes)
        browser.open(tmp_path / "page.html", *window, dark=dark, touch=touch)
        browser.wait("state.maps.length > 0")
        return browser

    yield open_page
    browser.check_log()


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


def test_viewer_reads_labels_exactly(page):
    classes = numbered_classes(255)
    label = np.random.default_rng(0).integers(0, 255, SIZE).astype(np.uint8)
    label.flat[:255] = range(255)
    truth = label.copy()
    truth[:, ::2] = 255
    page = page(viewer_image(predictions=dict.fromkeys(NETWORKS, label), truth=truth, iou=None,
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


def test_viewer_says_the_class_under_the_pointer(page):
    page = page(viewer_image())
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


def test_viewer_shows_the_colours_of_the_classes(page):
    page = page(viewer_image())
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


def test_viewer_switches_classes(page):
    page = page(viewer_image())
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


def test_viewer_shows_errors_only(page):
    page = page(viewer_image(), viewer_image(truth=None))
    page.click("#wrong")
    alphas = page.evaluate(
        "[2, 3].map(k => [[1, 1], [60, 1], [1, 38], [60, 38]].map(([x, y]) => figures[k]"
        ".querySelector('canvas').getContext('2d').getImageData(x, y, 1, 1).data[3]))")
    assert alphas == [[0, 0, 0, 0], [0, 0, 255, 0]]
    page.key("j")
    page.wait("state.maps[1] === undefined")
    assert page.evaluate("$('wrong').disabled && layerButtons[1].disabled")
    assert _read(page) == ["Photograph", "PSPNet50", "FCN"]


def test_viewer_slider(page):
    page = page(viewer_image())
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


def test_viewer_keys(page):
    page = page(viewer_image("a.jpg"), viewer_image("b.jpg"), viewer_image("c.jpg"))
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


def test_viewer_buttons_and_thumbnails(page):
    page = page(viewer_image("a.jpg"), viewer_image("b.jpg"), viewer_image("c.jpg"))
    page.click("#next")
    page.click("#items li:nth-child(3) .thumbnail")
    assert page.evaluate("[$('name').textContent, $('place').textContent]") == ["c.jpg", "3 of 3"]
    assert page.evaluate("$('next').disabled")
    page.click("#previous")
    page.wait("figures[2].querySelector('canvas').getAttribute('aria-label').startsWith("
              "'b.jpg, PSPNet50: sky 25%')")
    assert page.evaluate("document.querySelectorAll('[aria-current]').length") == 1


def test_viewer_touch(page):
    page = page(viewer_image(), window=(390, 844), touch=True)
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
def test_viewer_fits_the_window(page, width, dark):
    images = [viewer_image(name) for name in HOSTILE]
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
def test_viewer_text_is_readable(page, dark):
    page = page(viewer_image(), viewer_image(), dark=dark)
    page.click("#classes li:nth-child(1) button")
    page.key("?")
    ratios = page.evaluate(CONTRAST)
    assert len(ratios) > 30 and min(ratios)[0] >= 4.5


def test_viewer_can_be_used_by_tab_alone(page):
    """Every control can be reached, shows that it has the focus, and has a name."""
    page = page(viewer_image(), viewer_image("b.jpg"))
    page.click("#slider")
    page.evaluate("globalThis.controls = [...document.querySelectorAll('button, input, #stage')]"
                  ".filter(e => e.checkVisibility() && !e.disabled && e.tabIndex === 0)")
    count = page.evaluate("controls.length")
    reached = set()
    for _ in range(count + 1):
        page.key("Tab")
        number, outline, name = page.evaluate(
            "(e => [controls.indexOf(e), getComputedStyle(e).outlineWidth, e.ariaLabel "
            "|| e.closest('label, button')?.textContent])(document.activeElement)")
        if number >= 0:
            reached.add(number)
            assert outline == "3px" and name.strip()
    assert count > 15 and reached == set(range(count))


def test_viewer_shows_hostile_names_as_text(page):
    networks = [HOSTILE[1], HOSTILE[8]]
    images = [viewer_image(name, predictions=dict.fromkeys(networks, quarters(0, 1, 2, 3)),
                     confidence=None, iou=None) for name in HOSTILE]
    page = page(*images, title=HOSTILE[0], networks=networks,
                classes=Classes((HOSTILE[2], *CLASSES.names[1:]), CLASSES.palette_rgb))
    names = []
    for _ in HOSTILE:
        names.append(page.evaluate("$('name').textContent"))
        page.key("j")
    assert names[:3] == list(HOSTILE[:3]) and names[7:] == list(HOSTILE[7:])
    assert names[3:6] == ["line\\nbreak\\x00\\x1b[31m", "a\\u202egpj.exe", "\\udcff.png"]
    assert len(names[6]) < 210
    assert page.evaluate("document.title") == HOSTILE[0]
    assert page.evaluate("classButtons[0].textContent") == HOSTILE[2]
    assert page.evaluate("document.querySelectorAll('script').length") == 1


def test_viewer_prints_every_picture(page):
    page = page(*map(viewer_image, ("a.jpg", "b.jpg")), viewer_image("c", truth=None), dark=True)
    assert len(re.findall(rb"/Type\s*/Page\b(?!s)", page.pdf())) == 3
    page.evaluate("setOpacity(100)")
    page.call("Emulation.setEmulatedMedia", media="print")
    assert not page.evaluate("document.querySelector('.board').checkVisibility()")
    shown = [page.evaluate(f"[...document.querySelectorAll({query!r})]"
                           ".filter(e => e.checkVisibility()).length")
             for query in (".sheet", ".sheet svg", ".thumbnail", ".legend .swatch")]
    assert shown == [3, 11, 0, 18]
    point = page.point_of("#items li:nth-child(2) figure[data-layer='3'] svg", 0.25, 0.75)
    assert _colour_at(page, point) == CLASSES.palette_rgb[4]
    unlabelled = page.point_of("#items li:nth-child(2) figure[data-layer='1'] svg", 0.75, 0.75)
    assert np.abs(np.subtract(_colour_at(page, unlabelled), (10, 200, 90))).max() <= 4
    page.call("Emulation.setEmulatedMedia", media="")


def test_viewer_loads_nothing(page):
    page = page(viewer_image())
    assert page.evaluate("fetch('data:,x').then(() => 'loaded', () => 'refused')") == "refused"
    page.log.clear()
