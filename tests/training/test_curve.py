"""Looks at a network in the middle of its training: they change nothing and survive a stop."""

import pytest
import torch
from helpers.trainings import assert_same_run, careless_look, read_lines, run_training

from pspnet_repro.errors import UserError
from pspnet_repro.weights import model_file


def _train(data, output, watch, **options):
    return run_training(data, output, {"max_iter": 7}, watch=watch, **options)


def _points(output):
    return read_lines(output / "curve.jsonl")


@pytest.fixture(scope="module")
def watched(squares, tmp_path_factory):
    return _train(squares, tmp_path_factory.mktemp("watched"), (3, careless_look))


def test_looks_do_not_change_the_training(squares, watched, tmp_path):
    torch.manual_seed(1)
    assert_same_run(_train(squares, tmp_path, None), watched)
    assert not (tmp_path / "curve.jsonl").exists()


def test_looks_come_at_the_interval_and_at_the_end(watched):
    points = _points(watched.parent)
    assert [point["iteration"] for point in points] == [3, 6, 7]
    assert len({point["mean_iou"] for point in points}) == 3


def test_training_keeps_tf32_out_of_float32(squares, tmp_path):
    switches = torch.backends.cuda.matmul, torch.backends.cudnn.conv
    before = [switch.fp32_precision for switch in switches]
    seen = []

    def look(_):
        seen.extend(switch.fp32_precision for switch in switches)
        return {"mean_iou": 0.0}

    _train(squares, tmp_path, (7, look))
    assert seen == ["ieee", "ieee"]
    assert [switch.fp32_precision for switch in switches] == before


@pytest.mark.parametrize("steps", [4, 6])
def test_a_resumed_training_has_each_point_once(squares, watched, tmp_path, monkeypatch, steps):
    """Stopped at step 7; the last checkpoint lies between two looks, or at one."""
    saved = model_file.save_model

    def save_once(path, model, **about):
        if about.get("iteration") == steps:
            saved(path, model, **about)
            monkeypatch.setattr(model_file, "save_model", lambda *_, **__: None)

    def stop(net):
        if (tmp_path / "losses.jsonl").read_text().count("\n") >= 7:
            raise RuntimeError("power cut")
        return careless_look(net)

    monkeypatch.setattr(model_file, "save_model", save_once)
    with pytest.raises(RuntimeError, match="power cut"):
        _train(squares, tmp_path, (3, stop), checkpoint_seconds=0)
    monkeypatch.undo()
    assert [point["iteration"] for point in _points(tmp_path)] == [3, 6]
    assert_same_run(_train(squares, tmp_path, (3, careless_look)), watched)
    assert _points(tmp_path) == _points(watched.parent)


@pytest.mark.parametrize("line", ['{"iteration"', "[]", '{"iteration": "3"}', "[" * 100_000])
def test_a_damaged_curve_is_reported(squares, tmp_path, line):
    (tmp_path / "curve.jsonl").write_text(line + "\n")
    with pytest.raises(UserError, match="curve.jsonl, line 1: not the line of a look; "
                                        "move the file away"):
        _train(squares, tmp_path, (3, careless_look))


def test_a_last_line_that_was_cut_off_is_dropped(squares, tmp_path):
    (tmp_path / "curve.jsonl").write_text('{"iteration"')
    _train(squares, tmp_path, (3, careless_look))
    assert [point["iteration"] for point in _points(tmp_path)] == [3, 6, 7]
