"""Fine-tuning: what is frozen stays bit for bit, the rest learns."""

import json

import numpy as np
import pytest
import torch
from helpers.golden import GOLDEN, assert_same_bits, read_golden
from helpers.networks import MODEL
from helpers.trainings import (
    assert_same_run,
    careless_look,
    run_training,
    run_until_saved,
    train_settings,
)

from pspnet_repro import PSPNet, ops
from pspnet_repro.data.augment import Augmentation
from pspnet_repro.data.pairs import read_list
from pspnet_repro.data.training_sequence import TrainingSequence, batches
from pspnet_repro.distributed import Processes
from pspnet_repro.errors import UsageError, UserError
from pspnet_repro.exact.layers import OriginalBatchNorm2d
from pspnet_repro.sync_bn import SyncBatchNorm2d
from pspnet_repro.training.freezing import freeze, learning
from pspnet_repro.training.loop import _build, _losses
from pspnet_repro.training.solver import parameter_groups
from pspnet_repro.weights import model_file, plain_file

EXACT = {**MODEL, "arithmetic": "original", "variance": "biased", "head": "literal"}
FROZEN = [{"freeze_bn": "all"}, {"freeze_bn": "backbone"}, {"freeze_backbone": True},
          {"freeze_backbone": True, "freeze_bn": "all"}]


def _train(data, output, weights, watch=None, **changes):
    return run_training(data, output, {"max_iter": 4, **changes}, initial_weights=weights,
                        watch=watch)


@pytest.fixture(scope="module")
def trained(squares, tmp_path_factory):
    """Weights whose running values are the statistics of a batch, as a long training's are."""
    net = PSPNet(**MODEL).train()
    for module in net.modules():
        if isinstance(module, SyncBatchNorm2d):
            module.momentum = 1.0
    sequence = TrainingSequence(read_list(squares / "train.txt"), 4, 57, Augmentation(), 0)
    (images, _), = batches(sequence, 8, 0, 1, 0)
    net(images)
    path = tmp_path_factory.mktemp("trained") / "weights.pt"
    model_file.save_model(path, net)
    return path


def _stays(name, freeze_bn=None, freeze_backbone=False):
    """Whether a tensor of the network is frozen."""
    in_backbone = name.startswith("backbone.")
    if freeze_backbone and in_backbone:
        return True
    return ".bn." in name and (freeze_bn == "all" or freeze_bn == "backbone" and in_backbone)


@pytest.mark.parametrize("kind", [SyncBatchNorm2d, OriginalBatchNorm2d])
def test_frozen_batch_norm_matches_golden_in_training(kind):
    """Forward as in phase TEST, backward slope / sqrt(var + eps) * dy, nothing learns."""
    arrays = read_golden(GOLDEN / "layers" / "bn_frozen_train.npz")
    layer = kind(arrays["param_in/l/0"].size, variance="biased")
    before = [torch.from_numpy(arrays[f"param_in/l/{k}"]).flatten() for k in range(4)]
    layer.load_state_dict(dict(zip(layer.state_dict(), before)))
    torch.nn.Sequential(layer).train()
    layer.freeze()
    torch.nn.Sequential(layer).train()
    x = torch.from_numpy(arrays["bottom_x"]).requires_grad_()
    dy = torch.from_numpy(arrays["dtop_y"])
    y = layer(x)
    y.backward(dy)
    slope, bias, mean, var = (values.double().view(-1, 1, 1) for values in before)
    factor = slope / (var + layer.eps).sqrt()
    # Three roundings of float32.
    torch.testing.assert_close(y.double(), (x - mean) * factor + bias, rtol=3e-7, atol=1e-6)
    torch.testing.assert_close(x.grad.double(), dy * factor, rtol=3e-7, atol=0)
    if kind is OriginalBatchNorm2d and not ops.USE_REFERENCE:
        assert_same_bits(y, arrays["top_y"])
        assert_same_bits(x.grad, arrays["dbottom_x"])
    np.testing.assert_allclose(y.detach(), arrays["top_y"], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(x.grad, arrays["dbottom_x"], rtol=1e-6)
    assert layer.weight.grad is layer.bias.grad is None
    for tensor, value in zip(layer.state_dict().values(), before, strict=True):
        assert torch.equal(tensor, value)


def test_train_does_not_free_a_frozen_layer():
    net = PSPNet(**MODEL).train()
    freeze(net, "backbone")
    for _ in range(2):
        for mode in (False, True):
            net.train(mode)
            modes = {part: {m.training for m in getattr(net, part).modules()
                            if isinstance(m, SyncBatchNorm2d)} for part in ("backbone", "head")}
            assert modes == {"backbone": {False}, "head": {mode}}
    assert "frozen" in repr(net.backbone.stem[0].bn) and "frozen" not in repr(net.head.conv.bn)


def test_a_frozen_layer_does_not_become_torchs():
    net = PSPNet(**MODEL)
    freeze(net, "all")
    with pytest.raises(ValueError, match="backbone.stem.0.bn must not be frozen to become a layer"):
        SyncBatchNorm2d.convert_to_torch(net)
    assert isinstance(net.backbone.stem[0].bn, SyncBatchNorm2d)


@pytest.mark.parametrize("model", [MODEL, EXACT], ids=["torch", "original"])
@pytest.mark.parametrize("frozen", FROZEN, ids=str)
def test_what_is_frozen_stays_and_the_rest_learns(squares, trained, tmp_path, frozen, model):
    decay = {"decay_bn": True, "weight_decay": 0.1, "iter_size": 2, "max_iter": 2}
    weights = _train(squares, tmp_path, trained, model=model, **frozen, **decay)
    before, content = plain_file.load(trained)["weights"], plain_file.load(weights)
    unchanged = {name for name, tensor in content["weights"].items()
                 if torch.equal(tensor, before[name])}
    assert unchanged == {name for name in before if _stays(name, **frozen)}
    assert {name: content["training"][name] for name in frozen} == frozen
    assert not content["settings"].keys() & {"freeze_bn", "freeze_backbone"}
    learned = sum(tensor.numel() for name, tensor in before.items()
                  if "running" not in name and name not in unchanged)
    assert f"{learned} of {sum(p.numel() for p in PSPNet(**MODEL).parameters())} parameters " \
           "learn" in (tmp_path / "log.txt").read_text()


def test_another_batch_does_not_change_what_frozen_layers_give(trained):
    """With all of it frozen an image's scores no longer depend on its neighbours in the batch."""
    net = model_file.load_model(trained)
    freeze(net, "all")
    net.train()
    net.head.dropout.p = net.auxiliary.dropout.p = 0.0
    images = torch.randn(2, 3, 57, 57) * 50
    for both, alone in zip(net(images), net(images[:1])):
        torch.testing.assert_close(both[:1], alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bn", [None, "all"])
def test_backward_ends_at_a_frozen_backbone(squares, trained, bn):
    net = model_file.load_model(trained)
    freeze(net, bn, backbone=True)
    net.train()
    outputs = []
    net.backbone.register_forward_hook(lambda _module, _inputs, output: outputs.extend(output))
    labels = torch.randint(0, 4, (2, 57, 57)).byte()
    _losses(net, torch.randn(2, 3, 57, 57), labels, train_settings(squares))[0].backward()
    assert len(outputs) == 2 and not any(output.requires_grad for output in outputs)
    assert all(parameter.grad is None for parameter in net.backbone.parameters())
    got = {name for name, parameter in net.named_parameters() if parameter.grad is not None}
    assert got == {name for name, _ in net.named_parameters()
                   if not _stays(name, bn, freeze_backbone=True)}
    assert {"auxiliary.conv.conv.weight", "pyramid.reduce.0.conv.weight"} <= got


def test_the_solver_has_what_learns_at_the_same_rates():
    net = PSPNet(**MODEL)
    groups = parameter_groups(net)
    assert learning(groups) == groups
    freeze(net, "all", backbone=True)
    learned = learning(groups)
    assert [(group["lr_mult"], group["decay_mult"]) for group in learned] == [(10, 1), (20, 1)]
    assert {id(p) for group in learned for p in group["params"]} == {
        id(p) for name, p in net.named_parameters() if not _stays(name, "all", True)}


@pytest.mark.parametrize("frozen", FROZEN, ids=str)
def test_a_stopped_training_resumes_to_the_same_bits(squares, trained, tmp_path, frozen):
    """With looks in between, which change nothing."""
    whole = _train(squares, tmp_path / "whole", trained, **frozen)
    run_until_saved(squares, tmp_path / "cut", {"max_iter": 4, **frozen}, 2,
                    initial_weights=trained, watch=(1, careless_look))
    with pytest.raises(UserError, match="checkpoint.pt: holds a training with freeze_b"):
        _train(squares, tmp_path / "cut", trained)
    assert_same_run(_train(squares, tmp_path / "cut", trained, (1, careless_look), **frozen), whole)
    assert len((tmp_path / "cut" / "curve.jsonl").read_text().splitlines()) == 4


@pytest.mark.parametrize("frozen", FROZEN, ids=str)
def test_initial_statistics_are_not_frozen(squares, tmp_path, frozen):
    option = "--freeze-backbone" if "freeze_backbone" in frozen else "--freeze-bn"
    with pytest.raises(UsageError, match=(
            rf"^backbone.stem.0.bn: frozen batch normalization \({option}\) must have statistics, "
            "got the initial running values, mean 0 and variance 0: --initial-weights must name a "
            "file with statistics of a training$")):
        _train(squares, tmp_path / "run", None, **frozen)
    model_file.save_model(tmp_path / "new.pt", PSPNet(**MODEL))
    with pytest.raises(UsageError, match="backbone.stem.0.bn: .* mean 0 and variance 1: --init"):
        _train(squares, tmp_path / "run", tmp_path / "new.pt", **frozen)
    assert not (tmp_path / "run").exists()


def test_all_is_refused_where_a_part_starts_afresh(squares, trained, tmp_path):
    net = model_file.load_model(trained)
    model_file.save_model(tmp_path / "backbone.pt", net.backbone)
    without = PSPNet(**{**net.settings, "aux": False, "aux_width": None})
    without.load_state_dict({name: tensor for name, tensor in net.state_dict().items()
                             if not name.startswith("auxiliary.")})
    model_file.save_model(tmp_path / "without.pt", without)
    for file, layer in (("backbone.pt", "pyramid.reduce.0.bn"), ("without.pt",
                                                                 "auxiliary.conv.bn")):
        with pytest.raises(UsageError, match=(
                rf"^{layer}: .* \(--freeze-bn all\) .* freeze the backbone's alone \(--freeze-bn "
                r"backbone\), or --initial-weights must name a file that has this part")):
            _train(squares, tmp_path / "run", tmp_path / file, freeze_bn="all")
    for frozen in FROZEN[1:3]:
        folder = tmp_path / "-".join(frozen)
        weights = _train(squares, folder, tmp_path / "backbone.pt", max_iter=1, **frozen)
        tensors = plain_file.load(weights)["weights"]
        assert all(torch.equal(tensors[name], tensor) for name, tensor in
                   net.state_dict().items() if _stays(name, **frozen))
        assert tensors["pyramid.reduce.0.bn.running_var"].all()


def test_all_takes_a_network_of_other_classes(squares, trained, tmp_path):
    """Score convolutions start afresh, and have no statistics."""
    weights = _train(squares, tmp_path, trained, model={**MODEL, "classes": 5}, max_iter=1,
                     freeze_bn="all")
    before, after = (plain_file.load(path)["weights"] for path in (trained, weights))
    assert all(torch.equal(after[name], before[name]) for name in before if ".bn." in name)


def test_another_word_is_refused(squares, trained, tmp_path):
    for word in ("head", "", True):
        with pytest.raises(UsageError, match="freeze_bn must be None, backbone or all, got"):
            _train(squares, tmp_path, trained, freeze_bn=word)


def test_default_settings_say_nothing_of_freezing(squares):
    """Digests name folders of trainings, and folders of earlier versions are compared with them."""
    plain = train_settings(squares).to_json()
    assert list(plain) == [
        "model", "data", "list_sha256", "zero_is_void", "crop_size", "batch_size", "iter_size",
        "max_iter", "base_lr", "power", "momentum", "weight_decay", "aux_weight", "guidance",
        "rate_in_momentum", "decay_bn", "augmentation", "seed", "threads", "initial_weights"]
    assert train_settings(squares, freeze_bn=None, freeze_backbone=False).to_json() == plain
    for frozen in FROZEN:
        assert train_settings(squares, **frozen).to_json() == {**plain, **frozen}
        assert json.dumps(train_settings(squares, **frozen).to_json()) != json.dumps(plain)


def test_a_process_of_several_freezes_alike(squares):
    settings = train_settings(squares, freeze_bn="backbone")
    starts = [_build(settings, Processes(rank, 2)) for rank in (0, 1)]
    learned = [[name for name, p in model.named_parameters() if p.requires_grad]
               for model, _ in starts]
    assert learned[0] == learned[1] == [name for name in learned[0] if not _stays(name, "backbone")]
