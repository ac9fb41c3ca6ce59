"""What the committed results claim, read from their own files."""

import json
from pathlib import Path

import numpy as np
import pytest

from experiments.profiles import PROFILES
from experiments.report.results import class_means
from experiments.rows import BASELINE, FULL, TABLES
from pspnet_repro.data import scenes

RESULTS = Path(__file__).parents[1] / "experiments" / "results"


def _results(name):
    return json.loads((RESULTS / name / "table1.json").read_text(encoding="utf-8"))


def test_mini_results_hold_every_row():
    results = _results("mini")
    assert set(results) == {row.name for row in TABLES["1"]}
    for runs in results.values():
        assert [run["seed"] for run in runs] == [0]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_mini_seeds_show_the_effect_of_context(seed):
    """At least 5 points of mean IoU, all of them from the contextual classes."""
    runs = [next(r for r in _results("mini-seeds")[name] if r["seed"] == seed)
            for name in (BASELINE, FULL)]
    base, full = runs
    (base_local, base_context), (full_local, full_context) = (
        class_means(run, scenes.CONTEXTUAL) for run in runs)
    assert 100 * (full["mean_iou"] - base["mean_iou"]) >= 5
    assert full_context - base_context >= 10
    assert abs(full_local - base_local) <= 2
    assert 2 * base["receptive_field"] <= base["settings"]["crop_size"]


@pytest.mark.parametrize("name, profile", [("mini", "mini"), ("mini-seeds", "mini"),
                                           ("camvid", "camvid")])
def test_results_agree_with_themselves(name, profile):
    for runs in _results(name).values():
        for run in runs:
            confusion = np.array(run["confusion"])
            right = np.diag(confusion)
            iou = right / (np.finfo(float).eps + confusion.sum(0) + confusion.sum(1) - right)
            assert run["mean_iou"] == pytest.approx(iou.mean())
            assert run["pixel_accuracy"] == pytest.approx(right.sum() / confusion.sum())
            assert list(run["iou"]) == list(PROFILES[profile].classes)
            assert not run["provenance"]["commit"].endswith("+changes")


def test_results_name_no_path_of_a_machine():
    for path in RESULTS.rglob("*"):
        if path.suffix in (".json", ".md"):
            text = path.read_text(encoding="utf-8")
            assert not any(place in text for place in ("/work", "/root", "/home", "/tmp")), path
