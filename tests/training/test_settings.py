"""What a training's settings make of its network, solver and loss."""

import pytest
import torch
import torch.nn.functional as F
from helpers.networks import MODEL

from pspnet_repro.distributed import Processes
from pspnet_repro.errors import UsageError
from pspnet_repro.sync_bn import SyncBatchNorm2d
from pspnet_repro.training.loop import _build, _losses
from pspnet_repro.training.settings import TrainSettings


def _start(model=None, **changes):
    """Settings, and the network and solver that they start."""
    settings = TrainSettings(**{"model": {**MODEL, **(model or {})}, "data": "test",
                                "list_sha256": "", "crop_size": 57, "threads": 1, **changes})
    return settings, *_build(settings, Processes())


def _norms(model):
    return [m for m in model.modules() if isinstance(m, SyncBatchNorm2d)]


def test_running_values_start_at_0_as_the_originals():
    _, model, _ = _start()
    assert len(_norms(model)) == 23  # stem 1, four blocks of 4, pyramid 4, head 1, auxiliary 1
    assert not any(norm.running_var.any() or norm.running_mean.any() for norm in _norms(model))


@pytest.mark.parametrize("changes, differs", [
    ({}, {}),
    ({"decay_bn": True}, {"decay_mult": {1.0}}),
    ({"rate_in_momentum": False}, {"rate_in_momentum": {False}}),
    ({"base_lr": 0.5, "momentum": 0.7, "weight_decay": 0.2, "iter_size": 3},
     {"lr": {0.5}, "momentum": {0.7}, "weight_decay": {0.2}, "iter_size": {3}})],
    ids=["original", "decay-bn", "rate-outside", "numbers"])
def test_settings_reach_the_solver(changes, differs):
    _, _, solver = _start(**changes)
    names = solver.param_groups[0].keys() - {"params"}
    assert {name: {group[name] for group in solver.param_groups} for name in names} == {
        "lr": {0.01}, "momentum": {0.9}, "weight_decay": {1e-4}, "iter_size": {1},
        "lr_mult": {1.0, 10.0, 20.0}, "decay_mult": {0.0, 1.0}, "rate_in_momentum": {True},
        **differs}


@pytest.mark.parametrize("variance", ["unbiased", "biased", "torch"])
def test_variance_reaches_every_norm(variance):
    _, model, _ = _start({"variance": variance})
    assert {norm.variance for norm in _norms(model)} == {variance}


@pytest.mark.parametrize("spatial, kind", [(False, torch.nn.Dropout), (True, torch.nn.Dropout2d)])
def test_dropout_is_of_the_kind_asked_for(spatial, kind):
    _, model, _ = _start({"spatial_dropout": spatial})
    assert type(model.head.dropout) is type(model.auxiliary.dropout) is kind
    assert model.head.dropout.p == 0.1


def test_original_arithmetic_is_of_one_process():
    model = {**MODEL, "arithmetic": "original", "variance": "biased", "head": "literal"}
    settings = TrainSettings(model=model, data="test", list_sha256="", crop_size=57)
    assert _build(settings, Processes())[0].arithmetic == "original"
    with pytest.raises(UsageError, match="it is for one process, got 2"):
        _build(settings, Processes(0, 2))


@pytest.mark.parametrize("guidance, side", [("eighth", 8), ("full", 57)])
def test_total_loss_weighs_the_auxiliary_one(guidance, side):
    """Against torch's own cross entropy, scores enlarged or labels shrunk by hand."""
    settings, model, _ = _start(aux_weight=0.3, guidance=guidance)
    labels = torch.randint(0, 4, (2, 57, 57))
    labels[0, :20] = 255
    scores = []
    for branch in (model.head, model.auxiliary):
        branch.register_forward_hook(lambda _module, _inputs, score: scores.append(score))
    total, main, aux = _losses(model.train(), torch.randn(2, 3, 57, 57), labels.byte(), settings)
    target, wanted = labels, []
    if guidance == "eighth":
        target = labels[:, ::8, ::8]
    for score in scores:
        if guidance == "full":
            score = F.interpolate(score, (57, 57), mode="bilinear", align_corners=True)
        assert score.shape[-2:] == target.shape[-2:] == (side, side)
        wanted.append(F.cross_entropy(score, target, ignore_index=255))
    torch.testing.assert_close([main, aux, total], [*wanted, wanted[0] + 0.3 * wanted[1]],
                               rtol=1e-5, atol=0)
