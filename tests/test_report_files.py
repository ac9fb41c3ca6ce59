"""The report's files: one page that needs nothing else, Markdown, JSON, pictures."""

import html.parser
import json
import re
import shutil
import subprocess

import cv2
import numpy as np
import pytest
from report_runs import MINI, figures, renamed, result, write_predictions, write_rows, write_run

from experiments.report import write_report
from experiments.report.document import Gallery
from experiments.report.pictures import picture_blocks
from experiments.report.results import Results
from experiments.rows import BASELINE, FULL, TABLES
from pspnet_repro.data import scenes
from pspnet_repro.errors import UserError
from pspnet_repro.outputs import LIST

ALL = {**TABLES, "5": ()}
VOID = {"area", "base", "br", "col", "hr", "img", "input", "link", "meta", "source", "wbr"}


class Page(html.parser.HTMLParser):
    """Collects tags and text, and asserts that every tag is closed where it must be."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.text = [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return scenes.write_scenes(tmp_path_factory.mktemp("scenes"), train=2, val=3)


@pytest.fixture(scope="module")
def folders(data, tmp_path_factory):
    """Two seeds of all rows; the first image is a loss, the others are gains of the full row."""
    names = dict.fromkeys(row.name for rows in TABLES.values() for row in rows)
    folders = write_rows(tmp_path_factory.mktemp("runs"), names, seeds=2)
    for name, wrong in ((BASELINE, (0, 3000, 2000)), (FULL, (100, 0, 0))):
        test = folders[name][0]
        matrix = write_predictions(test, data, wrong)
        (test / "result.json").write_text(json.dumps(result(0, 0, 0) | figures(matrix)))
    return folders


@pytest.fixture(scope="module")
def report(folders, data, tmp_path_factory):
    output = tmp_path_factory.mktemp("report")
    return output, write_report(ALL, folders, MINI, data, output)


def test_page_needs_nothing_else(report):
    output, _ = report
    page = Page((output / "report.html").read_text(encoding="utf-8"))
    tags = {tag for tag, _ in page.tags}
    assert {"h1", "h2", "h3", "table", "svg", "img", "details", "main", "nav"} <= tags
    assert not tags & {"script", "link", "iframe", "object"}
    for tag, attributes in page.tags:
        for name in ("src", "href", "xlink:href"):
            assert re.match("#|data:image/(png|jpeg);base64,", attributes.get(name, "#")), tag
        assert not any(name.startswith("on") for name in attributes)
        assert tag != "img" or attributes["alt"]
    text = (output / "report.html").read_text(encoding="utf-8")
    assert "@import" not in text and not re.search(r"url\((?!#)", text)


def test_page_links_and_ids_fit(report):
    page = Page((report[0] / "report.html").read_text(encoding="utf-8"))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = {link[1:] for _, attributes in page.tags for name in ("href", "xlink:href")
             if (link := attributes.get(name, "")).startswith("#")}
    assert links <= set(ids) and {"table-1", "table-5", "provenance"} <= links


def test_page_and_markdown_say_the_same(report):
    output, lines = report
    page = Page((output / "report.html").read_text(encoding="utf-8"))
    text = " ".join(" ".join(page.text).split())
    markdown = (output / "report.md").read_text(encoding="utf-8")
    for words in (MINI.differs, "Fidelity: what each deviation costs", "Figure 5, in percent",
                  "dddddddddd+changes; test: cccccccccc", "One beyond it is a hint"):
        assert words in text and words in markdown
    assert "\n".join(lines[2:6]) in markdown
    for name in re.findall(r"\]\((.*?)\)", markdown):
        assert cv2.imread(str(output / name)) is not None, name
    assert {p.name for p in output.iterdir()} == {
        LIST, "report.html", "report.md", "report.json", *re.findall(r"\]\((.*?)\)", markdown)}


def test_printed_tables_are_those_asked_for(folders, data, tmp_path, report):
    heads = [line for line in report[1] if line.startswith("Table") and ", " in line]
    assert [head[:7] for head in heads] == ["Table 1", "Table 2", "Table 3", "Table 4", "Table 5"]
    assert "The same network, tested otherwise: figures in percent" in report[1]
    rows = [row for row in TABLES["2"] if row.name in ("no-aux", "aux-0.6")]
    few = {row.name: folders[row.name] for row in rows}
    lines = write_report({"2": tuple(rows)}, few, MINI, data, tmp_path)
    shown = [line for line in lines if line.startswith("| ResNet50 (")]
    assert sum("| - | - | - | - | - |" in line for line in shown) == 3
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "Pictures need the rows baseline and b1236-ave-dr" in text


def test_same_results_give_the_same_bytes(folders, data, report, tmp_path):
    write_report(ALL, folders, MINI, data, tmp_path)
    for path in report[0].iterdir():
        assert path.read_bytes() == (tmp_path / path.name).read_bytes(), path.name


def test_json_holds_all_results(report, folders):
    content = json.loads((report[0] / "report.json").read_text(encoding="utf-8"))
    assert set(content["results"]) == set(folders)
    read = [json.loads((folder / "result.json").read_text()) for folder in folders[BASELINE]]
    assert content["results"][BASELINE] == read
    assert content["tables"]["4"]["paper"]["fcn"]["reported"]
    assert len(content["tables"]["1"]["orderings"]) == 42
    cost = content["tables"]["fidelity"]["costs"]["test-no-flip"]["mean_iou"]
    assert cost["mean"] == pytest.approx(np.mean(list(cost["by_seed"].values())))


def test_names_are_escaped(data, tmp_path):
    classes = ("<b>sky</b>", "a | b", *MINI.classes[2:])
    profile = renamed(classes=classes, differs="this & <i>that</i>")
    test = write_run(tmp_path / "run-0", result(0, 0.5, profile=profile))
    write_report({"1": (TABLES["1"][0],)}, {BASELINE: [test]}, profile, data, tmp_path)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;sky&lt;/b&gt;" in text and "<b>" not in text and "<i>" not in text
    assert "this &amp; &lt;i&gt;that" in text
    assert "a \\| b" in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_report_of_no_runs_says_so(data, tmp_path):
    write_report({"1": TABLES["1"], "fidelity": TABLES["fidelity"]}, {}, MINI, data, tmp_path)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "No two rows were run" in text and "was not run, so that no cost is known" in text


def test_pictures_are_chosen_by_pixel_accuracy(folders, data):
    results = Results({name: folders[name] for name in (BASELINE, FULL)}, MINI)
    blocks = picture_blocks(results, MINI, data, progress=False)
    assert "Of 3 validation images PSPNet gains on 2 over the baseline and loses on 1" in (
        blocks[1].text)
    gain, loss = [block for block in blocks if isinstance(block, Gallery)]
    total = scenes.SIZE ** 2
    assert [strip.titles[2:] for strip in gain.strips] == [
        (f"baseline {100 - 100 * wrong / total:.1f}", "PSPNet 100.0") for wrong in (3000, 2000)]
    assert loss.strips[0].titles[2:] == ("baseline 100.0", f"PSPNet {100 - 1e4 / total:.1f}")
    truth, base, full = gain.strips[0].pixels[1:]
    assert (truth == full).all()
    assert (truth != base).any(-1).sum() == 3000
    shown = {tuple(colour) for m in (truth, base) for colour in m.reshape(-1, 3).tolist()}
    assert {colour for _, colour in gain.strips[0].legend} == shown


@pytest.mark.parametrize("damage, said", [
    (lambda path: path.unlink(), "no such"),
    (lambda path: path.write_bytes(b"nothing"), "must be one channel of 8 bits, got no image"),
    (lambda path: cv2.imwrite(str(path), np.zeros((5, 6), np.uint8)), "size 5x6 differs from"),
    (lambda path: cv2.imwrite(str(path), np.full((scenes.SIZE,) * 2, 77, np.uint8)),
     "labels must be"),
    (lambda path: cv2.imwrite(str(path), np.full((scenes.SIZE,) * 2, 255, np.uint8)),
     "predictions must be 0..11, got 255")])
def test_damaged_predictions_are_reported(folders, data, tmp_path, damage, said):
    test = tmp_path / "copy"
    shutil.copytree(folders[FULL][0], test)
    damage(sorted((test / "predictions").iterdir())[1])
    results = Results({BASELINE: folders[BASELINE][:1], FULL: [test]}, MINI)
    with pytest.raises(UserError, match=said) as error:
        picture_blocks(results, MINI, data, progress=False)
    assert "\n" not in str(error.value) and str(test) in str(error.value)


def test_report_that_cannot_be_written_is_reported(folders, data, tmp_path):
    output = tmp_path / "file"
    output.write_text("in the way")
    with pytest.raises(UserError, match="file: must be a folder"):
        write_report({"2": TABLES["2"]}, folders, MINI, data, output)


def _overflow(text, width, folder):
    """Pixels by which a page is wider than a window of `width` pixels, as a browser has it."""
    (folder / "page.html").write_text(text.replace(
        "</body>", "<script>const page = document.documentElement; parent.postMessage("
        "page.scrollWidth - page.clientWidth, '*')</script></body>"), encoding="utf-8")
    (folder / "frame.html").write_text(
        "<p id='said'></p><script>onmessage = e => said.textContent = 'over ' + e.data</script>"
        f"<iframe src='page.html' width='{width}' height='800' style='border:0'></iframe>")
    said = subprocess.run(
        ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync",
         f"--user-data-dir={folder / 'browser'}", "--virtual-time-budget=10000", "--dump-dom",
         (folder / "frame.html").as_uri()], capture_output=True, text=True, timeout=120,
        check=True).stdout
    return int(re.search(r"over (\d+)", said)[1])


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
def test_page_fits_the_window(report, tmp_path, width):
    if shutil.which("chromium") is None:
        pytest.skip("no chromium")
    text = (report[0] / "report.html").read_text(encoding="utf-8")
    assert _overflow(text, width, tmp_path) == 0
    wide = text.replace("</main>", "<div style='width: 2000px'>wide</div></main>")
    assert _overflow(wide, width, tmp_path) > 0
