"""Looks at a network in the middle of its training: they change nothing and survive a stop."""

import json

import pytest
import torch
from test_train import _assert_same_run, _settings, data  # noqa: F401 (a fixture)

from pspnet_repro.data.pairs import read_list
from pspnet_repro.errors import UserError
from pspnet_repro.training.loop import train
from pspnet_repro.weights import model_file


def _look(net):
    """Draws random numbers, and passes through the network, as a careless look would."""
    assert not net.training
    torch.manual_seed(7)
    with torch.no_grad():
        score = net(torch.randn(1, 3, 57, 57) * 50)
    return {"mean_iou": score.mean().item()}


def _train(data, output, watch, **changes):  # noqa: F811
    return train(_settings(data, max_iter=7), read_list(data / "train.txt"), output,
                 progress=False, watch=watch, **changes)


def _points(output):
    return [json.loads(line) for line in (output / "curve.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def watched(data, tmp_path_factory):  # noqa: F811
    return _train(data, tmp_path_factory.mktemp("watched"), (3, _look))


def test_looks_do_not_change_the_training(data, watched, tmp_path):  # noqa: F811
    torch.manual_seed(1)
    _assert_same_run(_train(data, tmp_path, None), watched)
    assert not (tmp_path / "curve.jsonl").exists()


def test_looks_come_at_the_interval_and_at_the_end(watched):
    points = _points(watched.parent)
    assert [point["iteration"] for point in points] == [3, 6, 7]
    assert len({point["mean_iou"] for point in points}) == 3


def test_training_keeps_tf32_out_of_float32(data, tmp_path):  # noqa: F811
    switches = torch.backends.cuda.matmul, torch.backends.cudnn.conv
    before = [switch.fp32_precision for switch in switches]
    seen = []

    def look(_):
        seen.extend(switch.fp32_precision for switch in switches)
        return {"mean_iou": 0.0}

    _train(data, tmp_path, (7, look))
    assert seen == ["ieee", "ieee"]
    assert [switch.fp32_precision for switch in switches] == before


@pytest.mark.parametrize("steps", [4, 6])
def test_a_resumed_training_has_each_point_once(data, watched, tmp_path, monkeypatch,  # noqa: F811
                                                steps):
    """Stopped at step 7; the last checkpoint lies between two looks, or at one."""
    saved = model_file.save_model

    def save_once(path, model, **about):
        if about.get("iteration") == steps:
            saved(path, model, **about)
            monkeypatch.setattr(model_file, "save_model", lambda *_, **__: None)

    def stop(net):
        if (tmp_path / "losses.jsonl").read_text().count("\n") >= 7:
            raise RuntimeError("power cut")
        return _look(net)

    monkeypatch.setattr(model_file, "save_model", save_once)
    with pytest.raises(RuntimeError, match="power cut"):
        _train(data, tmp_path, (3, stop), checkpoint_seconds=0)
    monkeypatch.undo()
    assert [point["iteration"] for point in _points(tmp_path)] == [3, 6]
    _assert_same_run(_train(data, tmp_path, (3, _look)), watched)
    assert _points(tmp_path) == _points(watched.parent)


@pytest.mark.parametrize("line", ['{"iteration"', "[]", '{"iteration": "3"}', "[" * 100_000])
def test_a_damaged_curve_is_reported(data, tmp_path, line):  # noqa: F811
    (tmp_path / "curve.jsonl").write_text(line + "\n")
    with pytest.raises(UserError, match="curve.jsonl, line 1: not the line of a look; "
                                        "move the file away"):
        _train(data, tmp_path, (3, _look))


def test_a_last_line_that_was_cut_off_is_dropped(data, tmp_path):  # noqa: F811
    (tmp_path / "curve.jsonl").write_text('{"iteration"')
    _train(data, tmp_path, (3, _look))
    assert [point["iteration"] for point in _points(tmp_path)] == [3, 6, 7]
