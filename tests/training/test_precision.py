"""Trainings whose convolutions and products run in less than float32."""

import pytest
import torch
from helpers.networks import MODEL
from helpers.precision import switches
from helpers.trainings import read_losses, run_training, run_until_saved, train_settings

from pspnet_repro.errors import UsageError
from pspnet_repro.training import loop
from pspnet_repro.weights import plain_file


@pytest.fixture(scope="module")
def in_bfloat16(squares, tmp_path_factory):
    output = tmp_path_factory.mktemp("bfloat16")
    run_training(squares, output, {"precision": "bfloat16"})
    return output


def test_settings_without_a_precision_keep_their_digest(squares):
    assert "precision" not in train_settings(squares).to_json()
    settings = train_settings(squares, precision="bfloat16")
    assert settings.to_json()["precision"] == "bfloat16"
    assert type(settings).from_json(settings.to_json()).precision == "bfloat16"


def test_bfloat16_rounds_little_and_keeps_float32_weights(squares, in_bfloat16, tmp_path):
    run_training(squares, tmp_path)
    pairs = [(one["loss"], other["loss"])
             for one, other in zip(read_losses(in_bfloat16), read_losses(tmp_path), strict=True)]
    assert all(one != other for one, other in pairs)
    # bfloat16 has 8 bits: a loss of a few layers moves by a few parts in 256.
    assert pairs[0][0] == pytest.approx(pairs[0][1], rel=2 ** -6)
    content = plain_file.load(in_bfloat16 / "weights.pt")
    assert {tensor.dtype for tensor in content["weights"].values()} == {torch.float32}
    assert content["training"]["precision"] == "bfloat16"


def test_a_resumed_training_in_bfloat16_has_the_same_bits(squares, in_bfloat16, tmp_path):
    run_until_saved(squares, tmp_path, {"precision": "bfloat16"})
    run_training(squares, tmp_path, {"precision": "bfloat16"})
    one, other = (plain_file.load(folder / "weights.pt")["weights"]
                  for folder in (in_bfloat16, tmp_path))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_statistics_gradients_and_losses_are_float32(squares, tmp_path, monkeypatch):
    kinds, average = set(), loop.average_backward

    def look(model, *rest):
        losses = average(model, *rest)
        kinds.update(p.grad.dtype for p in model.parameters())
        kinds.update(b.dtype for b in model.buffers())
        kinds.update(part.dtype for parts in losses for part in parts if part is not None)
        return losses

    monkeypatch.setattr(loop, "average_backward", look)
    run_training(squares, tmp_path, {"precision": "bfloat16", "max_iter": 1})
    assert kinds == {torch.float32}


@pytest.mark.parametrize("precision, value", [("float32", "ieee"), ("bfloat16", "ieee"),
                                              ("tf32", "tf32")])
def test_a_training_sets_the_switches_of_tf32(squares, tmp_path, monkeypatch, precision, value):
    found, losses = [], loop._losses
    monkeypatch.setattr(loop, "_losses", lambda *args: found.append(switches()) or losses(*args))
    run_training(squares, tmp_path, {"precision": precision, "max_iter": 1})
    assert found == [[value] * 3]


@pytest.mark.parametrize("changes, said", [
    ({"precision": "float16"}, "precision must be one of float32, tf32, bfloat16, got 'float16'"),
    ({"precision": "bfloat16", "model": {**MODEL, "arithmetic": "original", "head": "literal"}},
     "precision must be float32 for arithmetic original, got bfloat16")])
def test_precision_is_refused(squares, tmp_path, changes, said):
    with pytest.raises(UsageError, match=said):
        run_training(squares, tmp_path, changes)
