"""Files of runs that a report reads."""

import json

import pytest
from helpers.report_runs import MINI, renamed, result, write_run

from experiments.report.details import curve_blocks
from experiments.report.results import Results, read_curve, read_result
from pspnet_repro.errors import UserError


@pytest.mark.parametrize("change", [
    {"mean_iou": 1.5}, {"mean_iou": "much"}, {"mean_iou": float("nan")}, {"seed": "0"},
    {"iou": []}, {"provenance": {}}, {"settings": None}, {"seed": 10 ** 400, "mean_iou": 10 ** 400},
    {"test_seconds": "4"}, {"train_provenance": {"commit": None}}])
def test_damaged_result_is_reported(tmp_path, change):
    path = tmp_path / "result.json"
    path.write_text(json.dumps({**result(0, 0.5), **change}))
    with pytest.raises(UserError, match="result.json: damaged; remove its folder"):
        read_result(tmp_path, MINI)


def test_truncated_result_is_reported(tmp_path):
    (tmp_path / "result.json").write_text('{"mean_iou": ')
    with pytest.raises(UserError, match="result.json: damaged; remove its folder"):
        read_result(tmp_path, MINI)


def test_result_of_other_classes_is_reported(tmp_path):
    (tmp_path / "result.json").write_text(json.dumps(result(0, 0.5)))
    with pytest.raises(UserError, match="must have the 1 classes of profile mini, has 12 others"):
        read_result(tmp_path, renamed(classes=("sky",)))


def test_curves_drop_a_last_line_that_was_cut_off(tmp_path):
    path = tmp_path / "losses.jsonl"
    path.write_text('{"iteration": 0, "loss": 2}\n{"iteration": 1, "loss": 1.5}\n{"iterat')
    curve = read_curve(path, ("iteration", "loss"))
    assert curve["loss"].tolist() == [2, 1.5]


@pytest.mark.parametrize("text, said", [
    ('{"iteration": 0}\n', "line 1: must hold the numbers iteration and loss"),
    ('{"iteration": 0, "loss": 1}\nnothing\n', "line 2: must hold"), (None, "cannot be read"),
    ("", "must hold at least one line"), ('{"iteration": 0, "loss": [1]}\n', "line 1: must hold")])
def test_damaged_curves_are_reported(tmp_path, text, said):
    path = tmp_path / "losses.jsonl"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=said):
        read_curve(path, ("iteration", "loss"))


@pytest.mark.parametrize("names", [["curve.jsonl"], ["losses.jsonl"],
                                   ["curve.jsonl", "losses.jsonl"]])
def test_curves_of_a_finished_training_that_are_cut_in_half_are_reported(tmp_path, names):
    test = write_run(tmp_path / "run", result(0, 0.5))
    results = Results({"any": [test]}, MINI)
    assert len(curve_blocks("1", {"any": "row"}, results)) == 1
    for name in names:
        path = test.parent / name
        path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])
    with pytest.raises(UserError, match=f"{names[-1]}: ends with iteration .*: bring the whole"):
        curve_blocks("1", {"any": "row"}, results)
