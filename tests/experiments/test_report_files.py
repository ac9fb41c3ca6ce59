"""The report's files: one page that needs nothing else, Markdown, JSON, pictures."""

import html.parser
import json
import re
import shutil

import cv2
import numpy as np
import pytest
from helpers.report_runs import MINI, renamed, result, write_rows, write_run, write_tested

from experiments.experiment import Experiment
from experiments.report import write_report
from experiments.report.pictures import compared_rows, picture_blocks
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


def _experiment(data):
    return Experiment(MINI, data, data / "runs")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return scenes.write_scenes(tmp_path_factory.mktemp("scenes"), train=2, val=3)


@pytest.fixture(scope="module")
def folders(data, tmp_path_factory):
    """Two seeds of all rows; the first image is a loss, the others are gains of the full row."""
    names = dict.fromkeys(row.name for rows in TABLES.values() for row in rows)
    folders = write_rows(tmp_path_factory.mktemp("runs"), names, seeds=2)
    for name, wrong in ((BASELINE, (0, 3000, 2000)), (FULL, (100, 0, 0)),
                        ("no-aux", (40, 40, 40)), ("aux-0.6", (30, 20, 10))):
        write_tested(folders[name][0], data, wrong)
    return folders


@pytest.fixture(scope="module")
def report(folders, data, tmp_path_factory):
    output = tmp_path_factory.mktemp("report")
    return output, write_report(_experiment(data), ALL, folders, output)


def test_page_needs_nothing_else(report):
    output, _ = report
    page = Page((output / "report.html").read_text(encoding="utf-8"))
    tags = {tag for tag, _ in page.tags}
    assert {"h1", "h2", "h3", "table", "svg", "img", "details", "main", "nav"} <= tags
    assert not tags & {"link", "iframe", "object"} and [tag for tag, _ in page.tags].count(
        "script") == 1
    assert any("default-src 'none'" in attributes.get("content", "") for _, attributes in page.tags)
    for tag, attributes in page.tags:
        for name in ("src", "href", "xlink:href"):
            assert re.match("#|data:image/(png|jpeg);base64,", attributes.get(name, "#")), tag
        assert not any(name.startswith("on") for name in attributes)
        assert tag != "img" or "alt" in attributes
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
    for words in (MINI.differs, "Cost of each deviation", "Figure 5: scores in percent",
                  "dddddddddd+changes; test: cccccccccc", "is a hint, not a proof"):
        assert words in text and words in markdown
    assert "\n".join(lines[2:6]) in markdown
    for name in re.findall(r"\]\((.*?)\)", markdown):
        assert cv2.imread(str(output / name)) is not None, name
    assert {p.name for p in output.iterdir()} == {
        LIST, "report.html", "report.md", "report.json", *re.findall(r"\]\((.*?)\)", markdown)}


def test_printed_tables_are_those_asked_for(folders, data, tmp_path, report):
    heads = [line for line in report[1] if line.startswith("Table") and ": " in line]
    assert [head[:7] for head in heads] == ["Table 1", "Table 2", "Table 3", "Table 4", "Table 5"]
    assert "Same training, different test: figures in percent" in report[1]
    rows = [row for row in TABLES["2"] if row.name in ("no-aux", "aux-0.6")]
    few = {row.name: folders[row.name] for row in rows}
    lines = write_report(_experiment(data), {"2": tuple(rows)}, few, tmp_path)
    shown = [line for line in lines if line.startswith("| ResNet50 (")]
    assert sum("| - | - | - | - | - |" in line for line in shown) == 3
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "aux-0.6 against no-aux: more pixels are right on 3 of 3 test images" in text


def test_same_results_give_the_same_bytes(folders, data, report, tmp_path):
    write_report(_experiment(data), ALL, folders, tmp_path)
    for path in report[0].iterdir():
        assert path.read_bytes() == (tmp_path / path.name).read_bytes(), path.name


def test_json_holds_all_results(report, folders):
    content = json.loads((report[0] / "report.json").read_text(encoding="utf-8"))
    assert set(content["results"]) == set(folders)
    read = [json.loads((folder / "result.json").read_text()) for folder in folders[BASELINE]]
    assert content["results"][BASELINE] == read
    assert content["tables"]["4"]["paper"]["cascadenet"]["reported"]
    assert len(content["tables"]["1"]["orderings"]) == 42
    cost = content["tables"]["fidelity"]["costs"]["test-no-flip"]["mean_iou"]
    assert cost["mean"] == pytest.approx(np.mean(list(cost["by_seed"].values())))


def test_names_are_escaped(data, tmp_path):
    classes = ("<b>sky</b>", "a | b", *MINI.classes[2:])
    profile = renamed(classes=classes, differs="this & <i>that</i>")
    test = write_run(tmp_path / "run-0", result(0, 0.5, profile=profile))
    write_report(Experiment(profile, data, data), {"1": (TABLES["1"][0],)}, {BASELINE: [test]},
                 tmp_path)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;sky&lt;/b&gt;" in text and "<b>" not in text and "<i>" not in text
    assert "this &amp; &lt;i&gt;that" in text
    assert "a \\| b" in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_report_of_no_runs_says_so(data, tmp_path):
    write_report(_experiment(data), {"1": TABLES["1"], "fidelity": TABLES["fidelity"]}, {},
                 tmp_path)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "Fewer than two rows were run, so there is no order to compare" in text
    assert "was not run, so no cost is known" in text and "Pictures compare two rows" in text


def test_pictures_are_chosen_by_pixel_accuracy(folders, data):
    results = Results({name: folders[name] for name in (BASELINE, FULL)}, MINI)
    _, text, pictures = picture_blocks(results, _experiment(data), progress=False)
    assert text.text.startswith("PSPNet against baseline: more pixels are right on 2 of 3 test "
                                "images, and fewer on 1 (seed 0).")
    assert pictures.networks == ("baseline", "PSPNet")
    gain, loss = (gallery.images for gallery in pictures.galleries)
    total = scenes.SIZE ** 2
    assert [image.name for image in gain] == [
        f"0000{k}.png, pixel accuracy: baseline {100 - 100 * wrong / total:.1f}, PSPNet 100.0 "
        f"({100 * wrong / total:+.1f})" for k, wrong in ((3, 3000), (4, 2000))]
    assert "baseline 100.0, PSPNet 99.7 (-0.3)" in loss[0].name and len(loss) == 1
    assert (gain[0].truth == gain[0].predictions["PSPNet"]).all()
    assert (gain[0].truth != gain[0].predictions["baseline"]).sum() == 3000
    assert gain[0].iou == {"baseline": results.runs[BASELINE][0]["iou"],
                           "PSPNet": results.runs[FULL][0]["iou"]}


def test_pictures_are_at_most_360_pixels(folders, tmp_path):
    """Photographs of a data set that may be shown, not handed on."""
    image = np.zeros((700, 900, 3), np.uint8)
    label = np.zeros((700, 900), np.uint8)
    label[:, 450:] = 1
    (tmp_path / "val.txt").write_text("a.png a.label.png\n")
    cv2.imwrite(str(tmp_path / "a.png"), image)
    cv2.imwrite(str(tmp_path / "a.label.png"), label)
    tests = {name: write_run(tmp_path / name, result(0, 0.1))
             for name in ("no-aux", "aux-0.3", "aux-0.6")}
    for name, wrong in (("no-aux", 300_000), ("aux-0.3", 0)):  # mean IoU 0.01 and 2 / 12
        write_tested(tests[name], tmp_path, [wrong])
    results = Results({name: [test] for name, test in tests.items()}, MINI)
    pictures = picture_blocks(results, _experiment(tmp_path), progress=False)[-1]
    assert pictures.networks == ("no-aux", "aux-0.3"), "the lowest and the highest mean IoU"
    only, = pictures.galleries[0].images
    assert only.image_rgb.shape == (280, 360, 3)
    assert only.truth.shape == only.predictions["aux-0.3"].shape == (280, 360)


def test_pictures_of_deviations_compare_the_largest_cost_with_the_authors(tmp_path):
    rows = TABLES["fidelity"]
    runs = {rows[0].name: 0.5, "test-no-flip": 0.4, "test-whole": 0.45, "train-biased": 0.6}
    results = Results({name: [write_run(tmp_path / name, result(0, mean_iou))]
                       for name, mean_iou in runs.items()}, MINI)
    assert compared_rows(results) == ("test-no-flip", rows[0].name)


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
        picture_blocks(results, _experiment(data), progress=False)
    assert "\n" not in str(error.value) and str(test) in str(error.value)


def test_report_that_cannot_be_written_is_reported(folders, data, tmp_path):
    output = tmp_path / "file"
    output.write_text("in the way")
    with pytest.raises(UserError, match="file: must be a folder"):
        write_report(_experiment(data), {"2": TABLES["2"]}, folders, output)
