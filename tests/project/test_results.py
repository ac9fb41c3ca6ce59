"""What the committed results claim, read from their own files."""

import json
import re

import numpy as np
import pytest
from helpers.paths import ROOT

from experiments.experiment import Experiment
from experiments.profiles import PROFILES
from experiments.report.results import class_means
from experiments.rows import BASELINE, FULL, ROWS, TABLES
from pspnet_repro.data import scenes

RESULTS = ROOT / "experiments" / "results"
FILES = sorted(RESULTS.glob("*/report.json"))


def _name(path):
    return path.parent.name


def _read(path):
    """The content of a report, and {row: [result of each seed]} in it."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return content, content["results"]


def _leads(results):
    """(baseline's result, full row's) of each seed that both have."""
    by_seed = [{run["seed"]: run for run in results.get(name, ())} for name in (BASELINE, FULL)]
    return [(by_seed[0][seed], by_seed[1][seed]) for seed in by_seed[0].keys() & by_seed[1].keys()]


def test_there_are_results():
    assert FILES


def test_mini_results_hold_every_row():
    tables, fidelity = (_read(RESULTS / name / "report.json")[1]
                        for name in ("mini", "fidelity-mini"))
    assert set(tables) == {row.name for number in "1234" for row in TABLES[number]}
    wanted = {row.name for row in TABLES["fidelity"]}
    assert {name: len(runs) for name, runs in fidelity.items()} == dict.fromkeys(wanted, 3)


@pytest.mark.parametrize("path", [p for p in FILES if p.parent.name.startswith("mini")], ids=_name)
def test_mini_seeds_show_the_effect_of_context(path):
    """At least 5 points of mean IoU in every seed, all of them from the contextual classes."""
    pairs = _leads(_read(path)[1])
    assert pairs
    for base, full in pairs:
        (base_local, base_context), (full_local, full_context) = (
            class_means(run, scenes.CONTEXTUAL) for run in (base, full))
        assert 100 * (full["mean_iou"] - base["mean_iou"]) >= 5
        assert full_context - base_context >= 10
        assert abs(full_local - base_local) <= 2
        assert 2 * base["receptive_field"] <= base["settings"]["crop_size"]


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_results_agree_with_themselves(path):
    for runs in _read(path)[1].values():
        for run in runs:
            confusion = np.array(run["confusion"])
            right = np.diag(confusion)
            iou = right / (np.finfo(float).eps + confusion.sum(0) + confusion.sum(1) - right)
            assert list(run["iou"].values()) == pytest.approx(iou.tolist())
            assert run["mean_iou"] == pytest.approx(iou.mean())
            assert run["pixel_accuracy"] == pytest.approx(right.sum() / confusion.sum())
            assert list(run["iou"]) == list(PROFILES[run["profile"]].classes)
            for about in ("provenance", "train_provenance"):
                assert not run.get(about, {"commit": ""})["commit"].endswith("+changes")


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_results_are_of_the_settings_that_the_rows_have_now(path, tmp_path):
    """What the commands give today, but for the list and which file of initial weights."""
    results = _read(path)[1]
    assert results
    for name, runs in results.items():
        for run in runs:
            profile, settings = PROFILES[run["profile"]], run["settings"]
            experiment = Experiment(profile, tmp_path, tmp_path)
            experiment.list_sha256 = {"train": settings["list_sha256"]}.get
            wanted = experiment.settings(ROWS[name], run["seed"]).to_json()
            if settings["initial_weights"] is not None:
                # The structure of the file.
                wanted["model"]["stride_in"] = settings["model"]["stride_in"]
            assert settings == {**wanted, "initial_weights": settings["initial_weights"]}
            protocol = experiment.protocol(ROWS[name]).facts()
            assert json.loads(json.dumps(protocol)).items() <= run["test"].items()
            assert (settings["initial_weights"] is None) == (run["profile"] == "mini")


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_what_follows_from_results_agrees_with_them(path):
    content, results = _read(path)
    for number, table in content["tables"].items():
        differences = [(o["lower"], o["higher"], o["metric"], o["ours"])
                       for o in table.get("orderings", ())]
        differences += [(TABLES[number][0].name, name, metric, cost)
                        for name, by_metric in table.get("costs", {}).items()
                        for metric, cost in by_metric.items()]
        for first, second, metric, difference in differences:
            by_seed = [{str(run["seed"]): 100 * run[metric] for run in results[name]}
                       for name in (first, second)]
            for seed, value in difference["by_seed"].items():
                assert value == pytest.approx(by_seed[1][seed] - by_seed[0][seed])
            assert difference["mean"] == pytest.approx(np.mean([*difference["by_seed"].values()]))


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_pages_are_small_and_show_their_pictures(path):
    page = path.with_name("report.html")
    assert page.stat().st_size < 1_500_000
    assert 'class="viewer"' in page.read_text(encoding="utf-8")


def test_results_name_no_path_of_a_machine():
    for path in RESULTS.rglob("*"):
        if path.suffix in (".json", ".md", ".html"):
            text = re.sub("base64,[^\"]*", "", path.read_text(encoding="utf-8"))
            assert not any(place in text for place in ("/work", "/root", "/home", "/tmp")), path


def test_pages_repeat_what_reports_say():
    """A line of a table with our figures, in README.md here or beside results, is a report's."""
    said = {line for path in RESULTS.glob("*/report.md")
            for line in path.read_text(encoding="utf-8").splitlines()}
    pages = [ROOT / "README.md", *RESULTS.glob("*/README.md")]
    told = [line for path in pages for line in path.read_text(encoding="utf-8").splitlines()
            if line.startswith("| ResNet50")]
    assert told and set(told) <= said


def test_page_on_camvid_gives_every_ordering_as_the_report_does():
    folder = RESULTS / "camvid"
    content, _ = _read(folder / "report.json")
    words = {"mean_iou": "mean IoU", "pixel_accuracy": "pixel accuracy"}
    wanted = set()
    for table in content["tables"].values():
        for o in table.get("orderings", ()):
            low, high = o["ours"]["interval"]
            verdict = ("holds" if o["holds"] else "fails") + (
                ", clearly" if low * high > 0 else ", not clearly")
            wanted.add(f"| {o['lower']} < {o['higher']} | {words[o['metric']]} | {o['paper']:+.2f} "
                       f"| {o['ours']['mean']:+.2f} | {low:+.2f} .. {high:+.2f} | {verdict} |")
    page = (folder / "README.md").read_text(encoding="utf-8").splitlines()
    assert wanted == {line for line in page if " < " in line and line.startswith("| ")}
