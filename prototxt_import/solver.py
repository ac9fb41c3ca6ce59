"""CaffeSolver: a solver.prototxt and its network, trained step by step."""

import math
from pathlib import Path

import numpy as np
import torch

from prototxt_import.format.caffe_pb2 import SolverParameter
from prototxt_import.format.prototxt import net_file, read_net, read_solver, training_state
from prototxt_import.layers.table import LAYERS
from prototxt_import.net import CaffeNet
from pspnet_repro.errors import UserError
from pspnet_repro.exact.libm import expf, powf
from pspnet_repro.training.solver import CaffeSGD, poly_rate

_NETS = ("net", "net_param", "train_net", "train_net_param")
# lr_policy -> the fields that it needs.
_POLICIES = {"fixed": (), "step": ("gamma", "stepsize"), "exp": ("gamma",),
             "inv": ("gamma", "power"), "multistep": ("gamma", "stepvalue"),
             "poly": ("power", "max_iter"), "sigmoid": ("gamma", "stepsize")}


def learning_rate(param: SolverParameter, iteration: int) -> float:
    """The rate of an iteration, counted from 0, in float32 as the original computes it.

    fixed: base_lr; step: base_lr * gamma^floor(iteration / stepsize); exp: base_lr *
    gamma^iteration; inv: base_lr * (1 + gamma * iteration)^-power; multistep: base_lr *
    gamma^(number of stepvalues passed); poly: base_lr * (1 - iteration / max_iter)^power; sigmoid:
    base_lr / (1 + exp(-gamma * (iteration - stepsize))). Powers of gamma are double, as C++ has
    them of a float and an int.
    """
    base, gamma = np.float32(param.base_lr), np.float32(param.gamma)
    if param.lr_policy == "poly":
        return poly_rate(param.base_lr, iteration, param.max_iter, param.power)
    if param.lr_policy == "inv":
        factor = powf(np.float32(1) + gamma * np.float32(iteration), -param.power)
    elif param.lr_policy == "sigmoid":
        steps = np.float32(iteration) - np.float32(param.stepsize)
        factor = np.float32(1) / (np.float32(1) + np.float32(expf(-gamma * steps)))
    else:
        steps = {"fixed": 0, "exp": iteration,
                 "step": iteration // max(param.stepsize, 1),
                 "multistep": _stepvalues_passed(param.stepvalue, iteration)}
        return float(np.float32(np.float64(base) * np.float64(gamma) ** steps[param.lr_policy]))
    return float(base * np.float32(factor))


def _stepvalues_passed(stepvalues, iteration):
    """How many stepvalues are passed when the rate of an iteration is taken.

    They are passed in the file's order, each at the first iteration that reaches it, at most one
    per iteration: 3, 3 are passed at 3 and 4; 6, 3 at 6 and 7.
    """
    passed = earliest = 0
    for value in stepvalues:
        at = max(value, earliest)
        if at > iteration:
            break
        passed, earliest = passed + 1, at + 1
    return passed


def load_solver(path: Path | str) -> "CaffeSolver":
    """Build a solver and its training network from a solver.prototxt.

    The network's file is looked for beside it, then in the working directory. With random_seed in
    the file torch's generator is seeded first.

    Raises:
        UserError: a file that cannot be read or means nothing; file and line or layer are named.
    """
    return CaffeSolver(read_solver(path), path)


class CaffeSolver:
    """The original's SGD on a CaffeNet in phase TRAIN.

    `net` is the network, `iteration` counts the steps taken, `learning_rate` is the rate of the
    next one. A step sums the gradients of iter_size passes over the same inputs; gradients beyond
    the norm clip_gradients are scaled to it, then divided by iter_size, and CaffeSGD updates.
    """

    def __init__(self, param: SolverParameter, path: Path | str) -> None:
        self.param = param
        self._check(path)
        if param.random_seed >= 0:
            torch.manual_seed(param.random_seed)
        self.net = _training_net(param, path)
        self.iteration = 0
        # Made by the first step where the network's sizes come with its inputs.
        self.optimizer = None
        if self.net.steps is not None:
            self._make_optimizer()

    def _make_optimizer(self):
        groups, seen = {}, set()
        for layer, tensors in self.net.params.items():
            for tensor, spec in zip(tensors, self.net.specs[layer]):
                if tensor.requires_grad and id(tensor) not in seen:
                    seen.add(id(tensor))
                    groups.setdefault((spec.lr_mult, spec.decay_mult), []).append(tensor)
        if not groups:
            raise UserError(f"{self.net.path}: no parameter learns")
        self.optimizer = CaffeSGD(
            [{"params": tensors, "lr_mult": lr, "decay_mult": decay}
             for (lr, decay), tensors in groups.items()],
            self.param.base_lr, self.param.momentum, self.param.weight_decay,
            self.param.iter_size)

    def _check(self, path):
        param = self.param
        kind = param.type if param.HasField("type") else param.SolverType.Name(param.solver_type)
        rules = [
            (kind == "SGD", f"type must be SGD, got {kind}"),
            (param.regularization_type == "L2", "regularization_type must be L2, got "
                                                f"{param.regularization_type}"),
            (param.lr_policy in _POLICIES, f"lr_policy must be one of {', '.join(_POLICIES)}, got "
                                           f"{param.lr_policy!r}"),
            (param.iter_size >= 1, f"iter_size must be at least 1, got {param.iter_size}"),
            (sum(param.HasField(field) for field in _NETS) == 1,
             f"needs just one of {', '.join(_NETS)}")]
        for field in ("base_lr", "momentum", "weight_decay"):
            value = getattr(param, field)
            rules.append((0 <= value < math.inf,
                          f"{field} must be finite and at least 0, got {value}"))
        for field in _POLICIES.get(param.lr_policy, ()):
            value = getattr(param, field)
            given = len(value) if field == "stepvalue" else param.HasField(field)
            rules.append((given, f"lr_policy {param.lr_policy!r} needs {field}"))
            if field in ("stepsize", "max_iter"):
                rules.append((value > 0, f"{field} must be at least 1, got {value}"))
        rules.append((param.HasField("base_lr"), "needs base_lr"))
        for fulfilled, message in rules:
            if not fulfilled:
                raise UserError(f"{path}: {message}")

    @property
    def learning_rate(self) -> float:
        return learning_rate(self.param, self.iteration)

    def step(self, **inputs: torch.Tensor | np.ndarray) -> dict[str, float]:
        """Take one step on these inputs.

        Returns:
            The outputs of the last pass that are single numbers, by name, as floats: the losses.
        Raises:
            UserError: an input is missing or does not fit, the network has no loss, or all
                iterations of a poly schedule are taken.
        """
        if self.param.lr_policy == "poly" and self.iteration >= self.param.max_iter:
            raise UserError(f"{self.net.path}: max_iter {self.param.max_iter} is reached")
        if self.optimizer is None:
            self.net.prepare(**inputs)
            self._make_optimizer()
        self.optimizer.set_rate(self.learning_rate)
        self.optimizer.zero_grad()
        for _ in range(self.param.iter_size):
            outputs = self.net(**inputs)
            if self.net.loss is None:
                raise UserError(f"{self.net.path}: the network has no loss")
            self.optimizer.backward(self.net.loss)
        for p in self._learned():
            # Out of the loss's reach, in the original, is still in the decay's.
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad
        self._clip()
        self.optimizer.step()
        self.iteration += 1
        return {name: top.item() for name, top in outputs.items() if top.numel() == 1}

    def _learned(self):
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def _clip(self):
        limit = self.param.clip_gradients
        if limit < 0:
            return
        grads = [p.grad for p in self._learned()]
        norm = math.sqrt(sum(grad.double().square().sum().item() for grad in grads))
        if norm > limit:
            torch._foreach_mul_(grads, limit / norm)


def _training_net(param, path):
    for field in ("net_param", "train_net_param"):
        if param.HasField(field):
            return CaffeNet(getattr(param, field), path)
    name = param.train_net if param.HasField("train_net") else param.net
    file = net_file(path, name)
    left_out = {}
    return CaffeNet(read_net(file, training_state(param), LAYERS, left_out), file,
                    left_out=left_out)
