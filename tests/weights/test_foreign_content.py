"""Files of weights and of training states whose content no network or training wrote."""

import math
import re
from types import SimpleNamespace

import pytest
import torch
from helpers.networks import MODEL

from pspnet_repro import PSPNet
from pspnet_repro.distributed import Processes
from pspnet_repro.errors import UserError
from pspnet_repro.training.initial_weights import load_initial_weights
from pspnet_repro.training.run_folder import restore, save_state
from pspnet_repro.training.solver import CaffeSGD
from pspnet_repro.weights import model_file, plain_file

KEY = "head.score.bias"


@pytest.mark.parametrize("name, value, words", [
    (3, torch.ones(1), "weights: names must be text, got '3'"),
    (KEY, {"a": torch.ones(1)}, f"{KEY}: must be a tensor, got a dict"),
    (KEY, torch.ones(4).to_sparse(), f"{KEY}: must be a dense floating tensor, got a torch.sparse"),
    (KEY, torch.ones(4, device="meta"), f"{KEY}: must be a dense floating tensor, got .* on meta"),
    (KEY, torch.ones(4, dtype=torch.complex64), f"{KEY}: must be a dense floating .*complex64"),
    (KEY, torch.ones(4, dtype=torch.int64), f"{KEY}: must be a dense floating tensor, .*int64"),
    (KEY, torch.ones(4).to(torch.float8_e5m2), f"{KEY}: must be a dense floating .*float8"),
    (KEY, torch.quantize_per_tensor(torch.ones(4), 1.0, 0, torch.quint8), f"{KEY}: must be a de"),
])
def test_weights_must_be_dense_floating_tensors(tmp_path, name, value, words):
    net = PSPNet(**MODEL)
    plain_file.save(tmp_path / "x.pt", {"settings": dict(net.settings),
                                        "weights": {**net.state_dict(), name: value}})
    for load in (model_file.load_model, lambda path: load_initial_weights(net, path)):
        with pytest.raises(UserError, match=f"x.pt: {words}"):
            load(tmp_path / "x.pt")


@pytest.mark.parametrize("name, value, words", [
    ("classes", torch.ones(3), "classes: must be a whole number"),
    ("classes", True, "classes: must be a whole number"),
    ("classes", "4", "classes: must be a whole number"),
    ("dropout", math.nan, "dropout: must be a finite number, got 'nan'"),
    ("initial_running_var", math.inf, "initial_running_var: must be a finite number"),
    ("reduce", "no", "reduce: must be true or false, got 'no'"),
    ("pool", 1, "pool: must be text"), ("strides", 3, "strides: must be a list of whole numbers"),
    ("bins", [1, 2.5], "bins: must be a list of whole numbers"),
    ("blocks", torch.ones(4), "blocks: must be a list"),
])
def test_settings_must_be_of_the_arguments_types(tmp_path, name, value, words):
    net = PSPNet(**MODEL)
    plain_file.save(tmp_path / "x.pt", {"settings": {**net.settings, name: value},
                                        "weights": net.state_dict()})
    for load in (model_file.load_model, lambda path: load_initial_weights(net, path)):
        with pytest.raises(UserError, match=re.escape(f"x.pt: settings, {words}")) as caught:
            load(tmp_path / "x.pt")
        assert "\n" not in str(caught.value)


def test_names_of_settings_and_kind_must_be_text(tmp_path):
    net = PSPNet(**MODEL)
    for change, words in (({"settings": {4: 4}}, "settings: names must be text, got '4'"),
                          ({"kind": torch.ones(2)}, "kind: must be text, got a Tensor"),
                          ({"settings": []}, "not a PSPNet file: settings must be"),
                          ({"weights": []}, "not a PSPNet file: settings must be")):
        plain_file.save(tmp_path / "x.pt", {"settings": dict(net.settings),
                                            "weights": net.state_dict(), **change})
        with pytest.raises(UserError, match=f"x.pt: {words}"):
            model_file.load_model(tmp_path / "x.pt")


def _training():
    net = PSPNet(**MODEL)
    solver = CaffeSGD(net.parameters(), 0.01)
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    solver.step()
    return SimpleNamespace(max_iter=5, to_json=lambda: {"max_iter": 5}), net, solver


@pytest.mark.parametrize("change, words", [
    ({"iteration": 6}, "iteration must be a whole number from 0 to 5, got '6'"),
    ({"iteration": -1}, "iteration must be"), ({"iteration": True}, "iteration must be"),
    ({"iteration": "2"}, "iteration must be"), ({"iteration": 10 ** 30}, "iteration must be"),
    ({"rng": [1, 2]}, "rng must be a tensor of bytes, got a list"),
    ({"rng": torch.ones(3)}, "rng must be a tensor of bytes"),
    ({"rng": torch.ones(3, dtype=torch.uint8)}, "RNG state size to be 3"),
    ({"solver": 7}, "solver must be a dictionary, got a int"), ({"solver": {}}, "'param_groups'"),
    ({"solver": {"state": {0: {"momentum_buffer": "x"}}}}, "solver: momentum_buffer must be"),
    ({"solver": {"state": {0: {"momentum_buffer": torch.ones(2)}}}}, "solver: momentum_buffer"),
    ({"solver": {"state": {}}}, "solver: momentum_buffer must be a tensor of shape"),
    ({"training": {"max_iter": torch.ones(2)}}, "training: must be plain settings"),
    ({"weights": {"a": 1}}, "a: must be a tensor, got a int"),
    ({"weights": None}, "settings must be a dictionary, weights one of tensors"),
])
def test_damaged_states_are_named(tmp_path, change, words):
    settings, net, solver = _training()
    path = tmp_path / "checkpoint.pt"
    cpu = torch.device("cpu")
    save_state(path, settings, net, solver, 5, Processes(), cpu)
    assert restore(path, settings, net, solver, Processes(), cpu) == 5
    if change.get("solver") not in (None, 7, {}):
        change = {"solver": solver.state_dict() | change["solver"]}
    plain_file.save(path, plain_file.load(path) | change)
    with pytest.raises(UserError, match=f"checkpoint.pt: .*{re.escape(words)}") as caught:
        restore(path, settings, net, solver, Processes(), cpu)
    assert "\n" not in str(caught.value)
