"""What a training's settings make of its network, solver and loss."""

import pytest
import torch
import torch.nn.functional as F
from helpers.networks import MODEL
from helpers.refusals import refused
from helpers.trainings import run_training

from pspnet_repro.distributed import Processes
from pspnet_repro.errors import UsageError
from pspnet_repro.model.settings import NetworkSettings
from pspnet_repro.sync_bn import SyncBatchNorm2d
from pspnet_repro.training.loop import _build, _losses
from pspnet_repro.training.memory import crop_bytes
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


def _room(monkeypatch, gib):
    monkeypatch.setattr("os.sysconf", {"SC_PAGE_SIZE": 2 ** 30, "SC_PHYS_PAGES": gib}.get)


@pytest.mark.parametrize("changes, gib, words", [
    ({"crop_size": 32761}, 64, "crop_size must be smaller: a crop of 32761 pixels needs at least "
                               ".* GiB, and this machine has 64 GiB"),
    ({"crop_size": 473, "batch_size": 4096}, 64, "batch_size must be smaller, or the crops: 4096 "
     "of 473 pixels need at least .* this machine has 64 GiB; --batch-size times --iter-size ")])
def test_a_pass_that_cannot_fit_this_machine_is_refused_before_a_folder(
        squares, tmp_path, monkeypatch, changes, gib, words):
    _room(monkeypatch, gib)
    refused(words, run_training, squares, tmp_path / "run",
            {"model": {"classes": 4}, **changes})
    assert not (tmp_path / "run").exists()


def test_memory_of_a_crop_is_a_lower_bound_of_what_a_pass_holds():
    settings, model, _ = _start(crop_size=185)
    parameters, kept = {p.data_ptr() for p in model.parameters()}, {}

    def pack(tensor):
        kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        outputs = model.train()(torch.randn(2, 3, 185, 185))
    held = sum(size for place, size in kept.items() if place not in parameters)
    assert len(outputs) == 2
    assert 0.5 * held < 2 * crop_bytes(model.settings, settings) < held


def test_the_papers_trainings_fit_their_machines():
    for depth, crop, gib in ((50, 473, 64), (101, 473, 64), (269, 473, 128)):
        settings = TrainSettings({}, "", "", crop_size=crop)
        assert 16 * crop_bytes(NetworkSettings(150, depth), settings) < gib * 2 ** 30
