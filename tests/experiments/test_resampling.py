"""The bootstrap over test images: what it draws, and what the report says of it."""

import json

import numpy as np
import pytest
from helpers.report_runs import figures, renamed, result, write_run

from experiments.report.resampling import DRAWS, drawn_figures, interval
from experiments.report.results import Results, Spread
from experiments.report.tables import orderings, summary_blocks, table_blocks
from pspnet_repro.errors import UserError
from pspnet_repro.evaluation.metrics import ConfusionMatrix
from pspnet_repro.evaluation.record import CountsFile, read_counts

TWO = renamed(classes=("a", "b"), contextual=())


def _run(folder, images, seed=0):
    """A test of two classes; of each image's 10 pixels, 5 a class, so many of b are called a."""
    matrix = ConfusionMatrix(2)
    counts = [np.array([[5, 0], [wrong, 5 - wrong]]) for wrong in images]
    matrix.counts += sum(counts)
    content = result(seed, None, None, TWO) | figures(matrix, TWO)
    test = write_run(folder, content)
    with CountsFile(test, {}, 2, len(images)) as record:
        for number in reversed(range(len(images))):  # as processes finish them, in any order
            record.append(number, counts[number])
    return test


def _drawn(test, block=1):
    return drawn_figures(test, json.loads((test / "result.json").read_text()), block)


def test_images_come_in_the_order_of_the_list(tmp_path):
    test = _run(tmp_path / "run", [0, 1, 2])
    assert [counts[1, 0] for counts in read_counts(test, 2)] == [0, 1, 2]


def test_images_of_all_processes_count(tmp_path):
    """Each process leaves a file of its own."""
    test = _run(tmp_path / "run", [0, 1, 2])
    head, *lines = (test / "counts.jsonl").read_text().splitlines(keepends=True)
    (test / "counts.jsonl").write_text(head + lines[0])
    (test / "counts-1.jsonl").write_text(head + lines[1])
    (test / "counts-2.jsonl").write_text(head + lines[2])
    assert [counts[1, 0] for counts in read_counts(test, 2)] == [0, 1, 2]
    assert _drawn(test)


def test_draws_have_the_figures_of_what_they_drew(tmp_path):
    """Two images: a draw has one of them twice, or both."""
    test = _run(tmp_path / "run", [0, 2])
    drawn = _drawn(test)
    possible = {"pixel_accuracy": (100, 90, 80),
                # Wrong pixels of 10: iou of a 10 / (10 + wrong), of b (10 - wrong) / 10.
                "mean_iou": [50 * (10 / (10 + wrong) + (10 - wrong) / 10) for wrong in (0, 2, 4)]}
    for metric, values in possible.items():
        assert len(drawn[metric]) == DRAWS
        nearest = np.abs(drawn[metric][:, None] - np.array(values)).argmin(1)
        np.testing.assert_allclose(drawn[metric], np.take(values, nearest), rtol=1e-12)
        np.testing.assert_allclose(np.bincount(nearest) / DRAWS, (0.25, 0.5, 0.25), atol=0.05)


def test_neighbours_are_drawn_together(tmp_path):
    """Four images in two blocks of two: the last and the first are neighbours as well."""
    test = _run(tmp_path / "run", [0, 0, 2, 2])
    drawn = _drawn(test, 2)["pixel_accuracy"]
    assert set(drawn.round(6)) == {100, 95, 90, 85, 80}
    # Blocks have 0, 1, 1 or 2 of the two wrong images, each as often.
    shares = [np.mean(np.isclose(drawn, value)) for value in (100, 95, 90, 85, 80)]
    np.testing.assert_allclose(shares, (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16), atol=0.05)


def test_no_interval_of_a_single_block(tmp_path):
    assert _drawn(_run(tmp_path / "run", [0, 1, 2]), 2) != {}
    assert _drawn(_run(tmp_path / "run2", [0, 1, 2]), 3) == {}


def test_report_says_how_images_are_drawn(tmp_path):
    """Neighbours alike: drawn together they make the lead less sure."""
    folders = {"no-aux": [_run(tmp_path / "a", [0, 0, 0, 3, 3, 3])],
               "baseline": [_run(tmp_path / "b", [1] * 6)]}
    intervals = []
    for profile, said in (
            (TWO, "drawn 2000 times with replacement, the lead"),
            (renamed(TWO, alike=3), "2000 times with replacement, in blocks of 3 neighbours, the")):
        results = Results(folders, profile)
        assert said in summary_blocks(["2"], results)[-1].text
        lead = results.spread("baseline", "pixel_accuracy").minus(
            results.spread("no-aux", "pixel_accuracy"))
        intervals.append(lead.interval)
    assert intervals == [pytest.approx((-5, 15)), pytest.approx((-10, 20))]


@pytest.mark.parametrize("wrong", [0, 1])
def test_a_class_that_a_draw_lacks_does_not_count_there(tmp_path, wrong):
    """Of three images one alone has b; c is nowhere, which counts 0 as ever. That some pixels of
    a are called b in all changes a's IoU, not how many classes count."""
    counts = [np.diag([5, 5 * (number == 0), 0]) for number in range(3)]
    for count in counts:
        count[0, :2] = 5 - wrong, wrong
    three = renamed(classes=("a", "b", "c"), contextual=())
    matrix = ConfusionMatrix(3)
    matrix.counts += sum(counts)
    test = write_run(tmp_path / "run", result(0, None, None, three) | figures(matrix, three))
    with CountsFile(test, {}, 3, 3) as record:
        for number, count in enumerate(counts):
            record.append(number, count)
    drawn = _drawn(test)["mean_iou"]
    of_a = (5 - wrong) / 5
    # b is labelled in none, one, two or all three of a draw's images.
    possible = [100 * of_a / 2,
                *(100 * (of_a + 5 * n / (5 * n + 3 * wrong)) / 3 for n in (1, 2, 3))]
    nearest = np.abs(drawn[:, None] - np.array(possible)).argmin(1)
    np.testing.assert_allclose(drawn, np.take(possible, nearest), rtol=1e-12)
    assert np.mean(nearest == 0) == pytest.approx((2 / 3) ** 3, abs=0.03)


def test_a_draw_without_labels_has_no_figures(tmp_path):
    """Two images, one without labels: a quarter of the draws has that one alone."""
    counts = [np.array([[5, 0], [1, 4]]), np.zeros((2, 2), np.int64)]
    matrix = ConfusionMatrix(2)
    matrix.counts += counts[0]
    test = write_run(tmp_path / "run", result(0, None, None, TWO) | figures(matrix, TWO))
    with CountsFile(test, {}, 2, 2) as record:
        for number, count in enumerate(counts):
            record.append(number, count)
    for metric, value in (("mean_iou", 50 * (5 / 6 + 4 / 5)), ("pixel_accuracy", 90)):
        draws = _drawn(test)[metric]
        assert np.isnan(draws).mean() == pytest.approx(0.25, abs=0.05)
        assert draws[~np.isnan(draws)] == pytest.approx(value)
        assert interval(draws) == pytest.approx((value, value))


def test_interval_is_the_middle_of_the_draws():
    assert interval(np.arange(2001.0)) == (50, 1950)
    assert Spread({0: 1.0}, {0: np.arange(2001.0)}).interval == (50, 1950)
    both = Spread({0: 1.0, 1: 3.0}, {0: np.arange(2001.0), 1: np.full(2001, 100.0)})
    assert both.interval == (75, 1025)


def test_spread_without_all_draws_has_no_interval():
    some = Spread({0: 1.0, 1: 3.0}, {0: np.ones(DRAWS)})
    assert some.interval is None and not some.clear and some.interval_text() == "-"
    assert Spread({}).interval is None
    only = some.minus(Spread({0: 3.0}, {0: np.full(DRAWS, 4.0)}))
    assert only.values == {0: -2} and only.interval == (-3, -3) and only.clear
    assert only.interval_text() == "-3.00 .. -3.00"


def test_differences_are_of_the_same_draws(tmp_path):
    """Images differ much, tests of them little: paired, the lead is certain."""
    hard = np.repeat([1, 5], 20)
    results = Results({"no-aux": [_run(tmp_path / "low", hard)],
                       "baseline": [_run(tmp_path / "high", hard - 1)]}, TWO)
    low, high = (results.spread(name, "pixel_accuracy") for name in ("no-aux", "baseline"))
    assert low.interval[1] > high.interval[0]
    lead = high.minus(low)
    assert lead.interval == pytest.approx((10, 10)) and lead.clear


def test_report_says_which_orderings_are_clear(tmp_path):
    """Paper: no-aux < aux-0.3 < baseline. One image alone decides the first, all the second."""
    even = [2] * 30
    results = Results({"no-aux": [_run(tmp_path / "a", even)],
                       "aux-0.3": [_run(tmp_path / "b", [0] + even[1:])],
                       "baseline": [_run(tmp_path / "c", [1] * 30)]}, TWO)
    clear = {(o.lower, o.higher): o.ours.clear for o in orderings("2", results)
             if o.metric == "pixel_accuracy"}
    assert clear == {("no-aux", "aux-0.3"): False, ("no-aux", "baseline"): True,
                     ("aux-0.3", "baseline"): True}
    *_, table, said = summary_blocks(["2"], results)
    assert table.rows == (("Table 2", "3 of 3 (2 clearly)", "3 of 3 (2 clearly)"),)
    assert "drawn 2000 times with replacement" in said.text
    unclear = table_blocks("2", results, TWO)[3]
    assert unclear.caption.endswith("that are not clearly in the paper's order")
    assert [line[0] for line in unclear.rows] == [
        "ResNet50 (without AL) < ResNet50 (with α = 0.3)"] * 2
    accuracy = unclear.rows[1]
    assert accuracy[3] == "+0.67" and accuracy[4].startswith("+0.00 .. ")


@pytest.mark.parametrize("change, said", [
    (lambda lines: lines[:-1], "must hold every image of a test"),
    (lambda lines: [lines[0], *lines[2:]], "does not add up"),
    (lambda lines: lines[:1], "must hold every image of a test"),
    (lambda lines: [], "must hold every image of a test"),
    (lambda lines: [*lines[:-1], "{}"], "line 4: not a record of a test"),
    (lambda lines: [*lines[:-1], '{"image": 3, "cells": [], "counts": []}'], "must hold"),
    (lambda lines: [*lines[:-1], '{"image": 0, "cells": [], "counts": []}'], "does not add up")])
def test_damaged_counts_are_reported(tmp_path, change, said):
    test = _run(tmp_path / "run", [0, 1, 2])
    path = test / "counts.jsonl"
    path.write_text("".join(line + "\n" for line in change(path.read_text().splitlines())))
    with pytest.raises(UserError, match=f"counts.jsonl(, |: )({said})"):
        Results({"baseline": [test]}, TWO)


@pytest.mark.parametrize("change", [{"mean_iou": 0.9}, {"pixel_accuracy": 1.0},
                                    {"iou": {"a": 1.0, "b": 0.5}}])
def test_figures_that_the_counts_do_not_have_are_reported(tmp_path, change):
    test = _run(tmp_path / "run", [0, 1, 2])
    path = test / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match="does not add up to the figures of result.json; remove"):
        Results({"baseline": [test]}, TWO)
