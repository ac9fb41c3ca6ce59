"""The report's figures: tables, orderings, Figure 5, the cost of deviations."""

import re

import numpy as np
import pytest
from helpers.paths import ROOT
from helpers.report_runs import MINI, renamed, result, write_run

from experiments.report.charts import curves_figure, thinned
from experiments.report.details import curve_blocks
from experiments.report.fidelity import (
    RETESTED,
    RETRAINED,
    chance_beyond,
    costs,
    fidelity_blocks,
    within_spread,
)
from experiments.report.markdown import table_lines
from experiments.report.pictures import extremes
from experiments.report.results import (
    CLAIMS,
    PAPER,
    Results,
    Spread,
    class_means,
    number_text,
)
from experiments.report.tables import (
    claims_blocks,
    depth_blocks,
    depth_scores,
    orderings,
    paper_table,
    summary_blocks,
    table_blocks,
)
from experiments.rows import BASELINE, FULL, TABLES
from pspnet_repro.data import scenes


def _results(folder, figures, profile=MINI):
    """Results of {row name: [(mean IoU, pixel accuracy) of each seed]}."""
    return Results({name: [write_run(folder / f"{name}-seed{seed}-0", result(seed, *values))
                           for seed, values in enumerate(seeds)]
                    for name, seeds in figures.items()}, profile)


@pytest.mark.parametrize("number", ["1", "2", "3", "4"])
def test_rows_have_the_papers_figures(number):
    ours = [name for name, entry in PAPER[number].items() if not entry.get("reported")]
    assert ours == [row.name for row in TABLES[number]]


@pytest.mark.parametrize("number", list(PAPER))
def test_paper_figures_stand_in_the_paper(shared, number):
    """The lines above the table's caption, in order and column by column."""
    text = (shared / "paper" / "pspnet_paper.txt").read_text(encoding="utf-8")
    text = text.replace("$\\alpha", "α").replace("$", "")
    above = text[:text.index(f"\nTable {number}. ")].rstrip().rpartition("\n\n")[2]
    _, *lines = [line.split("\t") for line in above.splitlines()]
    if number == "5":
        entries = [[entry["rank"], entry["label"], f"{entry['score']:.2f}"]
                   for entry in PAPER[number].values()]
        lines = [[rank, name, score.strip("()")] for rank, name, score in lines]
    else:
        entries = [[entry["label"], f"{entry['mean_iou']:.2f}", f"{entry['pixel_accuracy']:.2f}"]
                   for entry in PAPER[number].values()]
    # Labels are ours without the paper's references.
    assert entries == [[re.sub(r" \[\d+\]$", "", cell) for cell in line] for line in lines]


def test_other_figures_are_shown_on_their_data():
    _, table = claims_blocks(renamed(data="ade20k"))
    assert table.rows[0] == ("ensemble of the challenge", "the paper", "test", "-", "-", "57.21")
    assert table.rows[2] == ("PSPNet50, one scale", "the release", "val", "41.68", "80.04", "-")
    assert [row[3:5] for row in claims_blocks(renamed(data="cityscapes"))[1].rows] == [
        ("78.40", "-"), ("80.20", "-"), ("79.70", "96.38"), ("80.91", "96.59")]
    assert claims_blocks(MINI) == []


def test_other_figures_have_a_command_each():
    """docs/tables.md names each figure, and the data that its command takes."""
    page = (ROOT / "docs" / "tables.md").read_text(encoding="utf-8")
    _, _, section = page.partition("## Figures outside of the tables")
    for claim in CLAIMS:
        figures = [f"{claim[name]:.2f}" if claim["of"] == "release" or name == "score"
                   else f"{claim[name]:.1f}"
                   for name in ("mean_iou", "pixel_accuracy", "score") if name in claim]
        assert " / ".join(figures) in section, claim
        assert f"evaluate --data {claim['data']}=DIR" in section


def test_paper_table_on_the_papers_data_shows_the_difference(tmp_path):
    profile = renamed(contextual=(), data="ade20k")
    results = _results(tmp_path, {BASELINE: [(0.4, 0.6), (0.5, 0.8)]}, profile)
    lines = table_lines(paper_table("1", results, profile))
    # Deviation of 40 and 50 over n - 1: 7.07; 45 - 37.23 = 7.77.
    assert lines[2] == ("| ResNet50-Baseline | 45.00 ± 7.07 | 37.23 | +7.77 | 70.00 ± 14.14 | "
                        "78.01 | -8.01 | baseline |")
    assert lines[3] == "| ResNet50+B1+MAX | - | 39.94 | - | - | 79.46 | - | b1-max |"


def test_paper_table_on_other_data_shows_the_order(tmp_path):
    """Paper: baseline 37.23 < b1-max 39.94 < b1-ave 40.07."""
    results = _results(tmp_path, {BASELINE: [(0.4, 0.6)], "b1-max": [(0.6, 0.8)],
                                  "b1-ave": [(0.5, 0.7)]})
    table = paper_table("1", results, renamed(contextual=()))
    assert table.heads == ("Setting", "mean IoU", "pixel accuracy", "rank", "rank in the paper",
                           "pairs in the paper's order", "row")
    assert table.rows[:4] == (
        ("ResNet50-Baseline", "40.00", "60.00", "3", "3", "2 of 2", "baseline"),
        ("ResNet50+B1+MAX", "60.00", "80.00", "1", "2", "1 of 2", "b1-max"),
        ("ResNet50+B1+AVE", "50.00", "70.00", "2", "1", "1 of 2", "b1-ave"),
        ("ResNet50+B1236+MAX", "-", "-", "-", "-", "-", "b1236-max"))


def test_paper_table_of_one_seed_has_no_spread(tmp_path):
    results = _results(tmp_path, {BASELINE: [(0.4, 0.6)]})
    table = paper_table("1", results, MINI)
    assert table.heads[-3:] == ("local", "contextual", "row")
    assert table.rows[0][1] == "40.00" and table.rows[0][-2:] == ("40.00", "baseline")


def test_paper_table_tells_what_is_only_reported(tmp_path):
    papers = renamed(data="ade20k")
    table = paper_table("4", _results(tmp_path / "a", {BASELINE: [(0.4, 0.6)]}, papers), papers)
    assert [table.rows[k][:3] for k in sorted(table.reported)] == [
        ("CascadeNet †", "-", "34.90")]
    # On other data its figure is named below the table.
    _, table, note, *_ = table_blocks("4", _results(tmp_path / "b", {BASELINE: [(0.4, 0.6)]}), MINI)
    assert table.rows[3] == ("CascadeNet †", *"-------", "") and table.reported == {3}
    assert note.text == ("† Not run here. CascadeNet: its network was never published; the paper "
                         "has a mean IoU of 34.90 and a pixel accuracy of 74.52 on ADE20K.")
    # Table 5 is reported as a whole.
    _, fifth, note = table_blocks("5", Results({}, MINI), MINI)
    assert len(fifth.reported) == len(fifth.rows) == len(PAPER["5"])
    assert note.text == "† The paper's figure; not run here."


def test_class_means_split_by_context():
    iou = {name: float(k >= 6) for k, name in enumerate(scenes.CLASSES)}
    assert class_means({"iou": iou}, scenes.CONTEXTUAL) == (0.0, 100.0)


def test_orderings_that_hold_and_fail(tmp_path):
    # Paper: no-aux 35.82 < aux-0.3 37.01 < baseline 37.23; accuracies 77.07 < 77.87 < 78.01.
    results = _results(tmp_path, {"no-aux": [(0.30, 0.7), (0.30, 0.7)],
                                  "aux-0.3": [(0.35, 0.6), (0.29, 0.6)],
                                  "baseline": [(0.40, 0.8), (0.40, 0.8)]})
    found = {(o.metric, o.lower, o.higher): o for o in orderings("2", results)}
    assert len(found) == 6
    first = found["mean_iou", "no-aux", "aux-0.3"]
    assert first.holds and first.seeds == 1 and first.paper == 1.19
    assert first.ours.values == {0: pytest.approx(5), 1: pytest.approx(-1)}
    assert not found["pixel_accuracy", "no-aux", "aux-0.3"].holds
    text, failed, *_ = table_blocks("2", results, MINI)[2:]
    assert text.text == (
        "Pairs of rows in the paper's order: 3 of 3 (2 in every seed) by mean IoU; 2 of 3 (2 in "
        "every seed) by pixel accuracy. The next table lists the pairs that are not in this order.")
    assert failed.rows == (("ResNet50 (without AL) < ResNet50 (with α = 0.3)", "pixel accuracy",
                            "+0.80", "-10.00 ± 0.00", "-", "0 of 2"),)
    *_, summary = summary_blocks(["1", "2", "5"], results)
    assert summary.rows == (("Table 2", "3 of 3 (2 in every seed)", "2 of 3 (2 in every seed)"),)


def test_equal_figures_of_ours_do_not_hold_and_of_the_paper_are_no_ordering(tmp_path):
    results = _results(tmp_path, {"aux-0.3": [(0.3, 0.5)], "aux-0.9": [(0.3, 0.5)]})
    only, = orderings("2", results)  # the paper's accuracies are both 77.87
    assert (only.metric, only.lower, only.higher) == ("mean_iou", "aux-0.9", "aux-0.3")
    assert not only.holds and only.seeds == 0
    assert "Each row has one seed" in table_blocks("2", results, MINI)[2].text


def test_depth_scores_are_figure_5(tmp_path):
    results = _results(tmp_path, {FULL: [(0.4, 0.8)], "depth-269": [(0.5, 0.9)],
                                  "depth-101-ms": [(0.2, 0.4), (0.4, 0.8)]})
    ours, paper = depth_scores(results)
    assert {d: s.mean for d, s in ours["single scale"].items()} == {
        50: pytest.approx(60), 269: pytest.approx(70)}
    assert ours["multi scale"][101].values == {0: pytest.approx(30), 1: pytest.approx(60)}
    assert paper["single scale"][50].mean == pytest.approx((41.68 + 80.04) / 2)
    assert paper["multi scale"][269].mean == pytest.approx((44.94 + 81.69) / 2)
    texts = [block.text for block in depth_blocks(results, MINI) if hasattr(block, "text")]
    assert any("50: blocks 1-1-1-1, sees 75 pixels; 101: blocks 1-1-2-1, sees 91 pixels" in text
               for text in texts)
    assert depth_blocks(Results({}, MINI), MINI) == []


def test_costs_are_paired_by_seed_in_two_groups(tmp_path):
    rows = TABLES["fidelity"]
    results = _results(tmp_path, {rows[0].name: [(0.5, 0.8), (0.7, 0.9), (0.6, 0.8)],
                                  "test-no-flip": [(0.49, 0.8), (0.68, 0.9), (0.57, 0.8)],
                                  "train-biased": [(0.55, 0.7), (0.65, 0.9)]})
    groups = costs(results)
    (flip, by_flip), = [item for item in groups[RETESTED] if item[1]["mean_iou"]]
    (biased, by_biased), = [item for item in groups[RETRAINED] if item[1]["mean_iou"]]
    assert (flip.name, biased.name) == ("test-no-flip", "train-biased")
    cost = by_flip["mean_iou"]
    assert list(cost.values) == [0, 1, 2]
    assert cost.mean == pytest.approx(-2) and cost.deviation == pytest.approx(1)
    assert not within_spread(cost)
    assert by_biased["mean_iou"].mean == pytest.approx(0) and within_spread(by_biased["mean_iou"])
    blocks = fidelity_blocks(results, MINI)
    words = " ".join(b.text for b in blocks if hasattr(b, "text"))
    assert "Every scene is as large as the crop" in words
    assert "with 3 seeds, chance alone puts 23% of rows without any effect beyond it" in words
    assert ("The largest cost beyond its spread: no mirror image, -2.00 ± 1.00 points of mean IoU. "
            "Beyond their spread: no mirror image (-2.00 ± 1.00)." in words)
    assert "0 of 1" not in words
    table = next(b for b in blocks if hasattr(b, "rows"))
    assert table.rows[0] == ("the authors' program", "60.00 ± 10.00", "-", "-",
                             "83.33 ± 5.77", "-", "-", "-", "authors")
    assert table.rows[1] == ("logits grow by half-pixel centres", *"-------", "test-half-pixel")
    assert table.rows[-2] == ("no mirror image", "58.00 ± 9.54", "-2.00 ± 1.00", "-",
                              "83.33 ± 5.77", "+0.00 ± 0.00", "-", "pixel accuracy",
                              "test-no-flip")


@pytest.mark.parametrize("other, said", [
    ([(0.51, 0.5), (0.52, 0.5)], "No row falls below the authors' program in mean IoU. "),
    ([(0.40, 0.5), (0.59, 0.5)], "No row falls below the authors' program in mean IoU by more than "
                                 "its spread. 1 of 1 changes")])
def test_a_cost_within_the_spread_is_none(tmp_path, other, said):
    results = _results(tmp_path, {TABLES["fidelity"][0].name: [(0.5, 0.5), (0.5, 0.5)],
                                  "test-no-flip": other})
    texts = [block.text for block in fidelity_blocks(results, MINI) if hasattr(block, "text")]
    assert any(said in text for text in texts)
    assert RETESTED in texts and RETRAINED not in texts  # of which no row was run


def test_deviations_without_any_effect_are_told_apart(tmp_path):
    results = _results(tmp_path, {
        TABLES["fidelity"][0].name: [(0.5, 0.5), (0.6, 0.5)],
        "test-no-flip": [(0.4, 0.5), (0.51, 0.5)], "test-whole": [(0.5, 0.5), (0.6, 0.5)]})
    words = " ".join(block.text for block in fidelity_blocks(results, MINI)
                     if hasattr(block, "text"))
    table = next(block for block in fidelity_blocks(results, MINI) if hasattr(block, "rows"))
    assert [row[-2] for row in table.rows if row[0].startswith(("no m", "whole"))] == [
        "no effect", "pixel accuracy"]
    assert "No effect on mean IoU: whole image instead of windows. The" in words
    assert "and show no effect" not in words


def test_changes_within_and_beyond_their_spread_are_told_apart(tmp_path):
    results = _results(tmp_path, {
        TABLES["fidelity"][0].name: [(0.5, 0.5), (0.6, 0.5)],
        "test-no-flip": [(0.4, 0.5), (0.51, 0.5)], "test-whole": [(0.45, 0.5), (0.63, 0.5)]})
    words = " ".join(block.text for block in fidelity_blocks(results, MINI)
                     if hasattr(block, "text"))
    assert ("1 of 2 changes in mean IoU are within their spread over the seeds and show no effect. "
            "Beyond their spread: no mirror image (-9.50 ± 0.71).") in words


def test_costs_keep_the_order_of_the_rows(tmp_path):
    rows = TABLES["fidelity"]
    results = _results(tmp_path, {row.name: [(0.5, 0.5)] for row in reversed(rows)})
    groups = costs(results)
    assert [row for group in groups.values() for row, _ in group] == list(rows[1:])
    assert [len(group) for group in groups.values()] == [9, 14]


def test_costs_without_the_first_row_are_not_claimed(tmp_path):
    blocks = fidelity_blocks(_results(tmp_path, {"test-no-flip": [(0.5, 0.5)]}),
                             MINI)
    assert blocks[-1].text == "the authors' program was not run, so no cost is known."


def test_number_text_has_no_sign_of_zero():
    assert [number_text(x, "+") for x in (-0.004, 0.0, 1.005, -2, np.float64(-0.125))] == [
        "+0.00", "+0.00", "+1.01", "-2.00", "-0.13"]


def test_figure_5_has_the_papers_own_score():
    # "from 60.86 to 62.35" (5.2): (43.81 + 80.88) / 2 is a half, below it in binary.
    _, paper = depth_scores(Results({}, MINI))
    assert paper["single scale"][269].text() == "62.35"


@pytest.mark.parametrize("seeds, percent", [(2, 39), (3, 23), (4, 14), (5, 9)])
def test_share_of_rows_beyond_their_spread_by_chance(seeds, percent):
    """Against draws: means of that many normal numbers beyond their own deviation."""
    drawn = np.random.default_rng(0).normal(size=(400_000, seeds))
    beyond = np.mean(np.abs(drawn.mean(1)) > drawn.std(1, ddof=1))
    assert chance_beyond(seeds) == pytest.approx(beyond, abs=0.003)
    assert round(100 * chance_beyond(seeds)) == percent


def test_spread_of_one_seed_has_no_deviation():
    assert Spread({0: 3.0}).deviation is None and Spread({0: 3.0}).text("+") == "+3.00"


def test_extremes_are_the_largest_gains_and_losses():
    gains = {0: 1.0, 1: -2.0, 2: 0.0, 3: 5.0, 4: 1.0, 5: 2.0, 6: 0.5, 7: -3.0}
    assert extremes(gains) == ([3, 5, 0, 4], [7, 1])


def test_trainings_are_named_once(tmp_path):
    results = _results(tmp_path, {"a": [(0.1, 0.1)], "b": [(0.2, 0.2)]})
    results.folders["shared"] = results.folders["a"]
    chart, = curve_blocks("Table 1", {"a": "A", "shared": "S", "b": "B", "missing": "M"}, results)
    assert "during 2 trainings" in chart.alt
    assert [text.get_text() for text in chart.figure().legends[0].texts] == ["A", "B"]


def test_thinned_curves_keep_their_mean():
    values = np.arange(1200.0)
    assert len(thinned(values)) == 120 and thinned(values).mean() == pytest.approx(values.mean())
    np.testing.assert_array_equal(thinned(values[:5]), values[:5])


def test_losses_that_are_no_numbers_are_drawn():
    curve = (np.arange(40.0), np.full(40, np.nan))
    figure = curves_figure({"diverged": [curve], "good": [(np.arange(40.0), np.ones(40))]}, {})
    assert figure.axes[0].get_ylim() == (0, pytest.approx(1.1))
    assert curves_figure({"diverged": [curve]}, {}).axes[0].get_ylim() == (0, pytest.approx(1.1))
