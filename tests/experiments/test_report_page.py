"""What a report's page does in a browser."""

import pytest
from helpers.report_runs import MINI, write_rows, write_tested
from helpers.viewer_pages import CLASSES, HOSTILE, NETWORKS, quarters, viewer_image

from experiments.experiment import Experiment
from experiments.report import write_report
from experiments.report.document import Gallery, Heading, Pictures
from experiments.report.page import page_text
from experiments.rows import BASELINE, FULL, TABLES
from pspnet_repro.data import scenes
from pspnet_repro.data.classes import Classes

STACK = "#stage figure:nth-of-type(4) .stack"


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """The page of Table 1's and 2's rows; all its pictures are gains, 00004.png the largest."""
    data = scenes.write_scenes(tmp_path_factory.mktemp("scenes"), train=1, val=2)
    names = dict.fromkeys(row.name for number in "12" for row in TABLES[number])
    folders = write_rows(tmp_path_factory.mktemp("runs"), names, seeds=1)
    for name, wrong in ((BASELINE, (2000, 3000)), (FULL, (0, 0))):
        write_tested(folders[name][0], data, wrong)
    output = tmp_path_factory.mktemp("report")
    write_report(Experiment(MINI, data, output), {number: TABLES[number] for number in "12"},
                 folders, output)
    return output / "report.html"


@pytest.fixture
def page(browser, path):
    """Opens the report; what went wrong in it fails the test."""
    def open_page(path=path, window=(1280, 900), **how):
        browser.open(path, *window, **how)
        browser.wait("state.maps.length > 0")
        return browser

    yield open_page
    browser.check_log()


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [320, 390, 1280])
def test_report_fits_the_window(page, width, dark):
    page = page(window=(width, 844), dark=dark, touch=width < 1000)
    for sliding in ("true", "false"):
        page.evaluate(f"$('help').hidden = false; setSliding({sliding})")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    channels = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g)"
                             ".map(Number)")
    assert (max(channels) < 60) if dark else (min(channels) > 200)


def test_report_says_class_and_iou_under_the_pointer(page):
    page = page()
    page.mouse("mouseMoved", page.point_of(STACK, 0.5, 0.01))
    said = page.evaluate("figures.map(f => f.querySelector('figcaption').textContent"
                         ".replace(/\\s+/g, ' ').trim())")
    assert said[0] == "Photograph x 92, y 1" and said[1] == "Truth sky"
    assert said[3] == "PSPNet sky · IoU 100.0%"
    # The baseline's first 3000 pixels are wrong: each has the next class.
    assert said[2].startswith("baseline sand · IoU ")


def test_report_keys_belong_to_the_viewer_in_focus(page):
    page = page()
    name = "$('name').textContent"
    first = page.evaluate(name)
    assert first.startswith("00002.png, pixel accuracy: baseline 91.2, PSPNet 100.0 (+8.8)")
    page.key("j")
    page.evaluate("document.querySelector('.scroll').focus()")
    page.key("ArrowRight")
    assert page.evaluate(name) == first
    page.click("#slider")
    page.key("j")
    assert page.evaluate(name).startswith("00001.png")
    assert page.evaluate("state.sliding")
    page.key("ArrowLeft")
    assert page.evaluate(name) == first


def test_report_slider_and_legend(page):
    page = page(window=(390, 844), touch=True)
    assert page.evaluate("state.sliding && layerButtons.filter(b => b.ariaPressed === 'true')"
                         ".map(b => b.textContent)") == ["baseline", "PSPNet"]
    x, y = page.point_of(STACK, 0.5, 0.5)
    page.touch((x, y), (x + 20, y), (x + 60, y), (x + 100, y))
    assert 70 <= int(page.evaluate("$('divide').value")) <= 85
    alphas = ("[2, 3].map(k => figures[k].querySelector('canvas').getContext('2d')"
              ".getImageData(92, 40, 1, 1).data[3])")
    assert page.evaluate(alphas) == [255, 255]
    page.evaluate("classButtons[state.maps[2].values[40 * 185 + 92]].click()")
    assert page.evaluate(alphas) == [0, 0]


def test_report_prints_every_picture(page):
    page = page(dark=True)
    assert page.pdf().startswith(b"%PDF")
    page.call("Emulation.setEmulatedMedia", media="print")
    shown = [page.evaluate(f"[...document.querySelectorAll({query!r})]"
                           ".filter(e => e.checkVisibility()).length")
             for query in (".sheet", ".sheet svg", ".thumbnail", ".board")]
    page.call("Emulation.setEmulatedMedia", media="")
    assert shown == [2, 8, 0, 0]


def test_report_shows_hostile_names_as_text(page, tmp_path):
    networks = (HOSTILE[1], HOSTILE[8])
    images = tuple(viewer_image(name, predictions=dict.fromkeys(networks, quarters(0, 1, 2, 3)),
                                confidence=None, iou=None) for name in HOSTILE)
    classes = Classes((HOSTILE[0], *CLASSES.names[1:]), CLASSES.palette_rgb)
    file = tmp_path / "a 'report'.html"
    file.write_text(page_text([Heading(1, HOSTILE[0]), Heading(2, HOSTILE[2]), Pictures(
        classes, networks, (Gallery("a", HOSTILE[8], images),))]), encoding="utf-8")
    page = page(file)
    assert page.evaluate("document.title") == HOSTILE[0]
    assert page.evaluate("classButtons[0].textContent") == HOSTILE[0]
    assert page.evaluate("layerButtons.slice(2).map(b => b.textContent)") == list(networks)
    page.key("Tab")
    page.evaluate("document.querySelector('.thumbnail').focus()")
    names = []
    for _ in HOSTILE:
        names.append(page.evaluate("$('name').textContent"))
        page.key("j")
    assert names[:3] == list(HOSTILE[:3]) and names[7:] == list(HOSTILE[7:])
    assert page.evaluate("document.querySelectorAll('script').length") == 1


def test_report_without_pictures_has_no_script():
    text, more = (page_text([Heading(1, "A"), Pictures(CLASSES, NETWORKS, (
        Gallery("a", "b", images),))]) for images in ((), (viewer_image(),)))
    assert "<script" not in text and "<script" in more
