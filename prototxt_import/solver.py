"""CaffeSolver: a solver.prototxt and its network, trained step by step."""

import os
from pathlib import Path

import numpy as np
import torch

from prototxt_import import snapshot
from prototxt_import.format import caffe_pb2
from prototxt_import.format.prototxt import read_net, read_solver, training_state
from prototxt_import.format.solverstate import SolverState, read_solverstate
from prototxt_import.layers.table import LAYERS
from prototxt_import.net import CaffeNet
from prototxt_import.schedule import current_step, learning_rate
from prototxt_import.solver_settings import check_settings, training_file
from prototxt_import.update_rules import RULES
from pspnet_repro.errors import UserError


def load_solver(path: Path | str) -> "CaffeSolver":
    """Build a solver and its training network from a solver.prototxt.

    The network's file is looked for beside it, then in the working directory. With random_seed in
    the file torch's generator is seeded first. Errors as of `load_net`.
    """
    return CaffeSolver(read_solver(path, LAYERS), path)


class CaffeSolver:
    """One of the original's solvers on a CaffeNet in phase TRAIN: `net`, or its file's.

    `net` is the network, `iteration` counts the steps taken, `learning_rate` is the rate of the
    next one. A step sums the gradients of iter_size passes; gradients beyond the norm
    clip_gradients are scaled to it, then divided by iter_size, and the rule of its type (see
    update_rules) updates.
    """

    def __init__(self, param: caffe_pb2.SolverParameter, path: Path | str,
                 net: CaffeNet | None = None) -> None:
        self.param = param
        self.path = path
        self.type = check_settings(param, path)
        if param.random_seed >= 0:
            torch.manual_seed(param.random_seed)
        self.net = _training_net(param, path) if net is None else net
        self.iteration = 0
        # (iteration, current_step) of the solverstate that was restored.
        self._start = (0, 0)
        # Made by the first step where the network's sizes come with its inputs; a solverstate that
        # is restored before, and its path, wait for it.
        self.optimizer = self._waiting = None
        if self.net.steps is not None:
            self._make_optimizer()

    def _make_optimizer(self):
        learned = {id(tensor) for step in self.net.steps
                   for tensor, param in zip(step.params, step.built.params) if param.learned}
        groups = {}
        for (layer, k), tensor in snapshot.owned(self.net).items():
            # Of multiplier 0 too: its history and weight decay are part of the state.
            if id(tensor) in learned:
                spec = self.net.specs[layer][k]
                groups.setdefault((spec.lr_mult, spec.decay_mult), []).append(tensor)
        if not any(tensor.requires_grad for tensors in groups.values() for tensor in tensors):
            raise UserError(f"{self.net.path}: no parameter learns")
        param = self.param
        self.optimizer = RULES[self.type](
            [{"params": tensors, "lr_mult": lr, "decay_mult": decay}
             for (lr, decay), tensors in groups.items()],
            param.base_lr, param.momentum, param.weight_decay, param.iter_size)
        self.optimizer.l1 = param.regularization_type == "L1"
        for field in ("delta", "rms_decay", "momentum2"):
            setattr(self.optimizer, field, getattr(param, field))

    @property
    def learning_rate(self) -> float:
        return learning_rate(self.param, self.iteration, self._start)

    def step(self, **inputs: torch.Tensor | np.ndarray | list) -> dict[str, float]:
        """Take one step on these inputs.

        Args:
            inputs: for each input of the network a tensor or array, which serves all passes, or a
                list of iter_size of them, one for each pass, as Caffe reads a batch per pass.
        Returns:
            The outputs of the last pass that are single numbers, by name, as floats: the losses.
        Raises:
            UserError: an input is missing or does not fit, a list has not iter_size batches, the
                network has no loss, or all iterations of a poly schedule are taken.
        """
        if self.param.lr_policy == "poly" and self.iteration >= self.param.max_iter:
            raise UserError(f"{self.net.path}: max_iter {self.param.max_iter} is reached")
        passes = self._passes(inputs)
        if self.optimizer is None:
            self.net.prepare(**passes[0])
            self._make_optimizer()
        if self._waiting:
            self._apply(*self._waiting)
        self.optimizer.set_rate(self.learning_rate)
        self.optimizer.iteration = self.iteration
        self.optimizer.zero_grad()
        for batch in passes:
            outputs = self.net(**batch)
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

    def _passes(self, inputs):
        """The inputs of each pass."""
        size = self.param.iter_size
        listed = {name for name, value in inputs.items() if isinstance(value, (list, tuple))
                  and value and all(hasattr(batch, "shape") for batch in value)}
        for name in sorted(listed):
            if len(inputs[name]) != size:
                raise UserError(f"{self.path}: input {name!r}: a list has one batch for each pass, "
                                f"iter_size {size}, got {len(inputs[name])}: give {size}, or one "
                                "tensor for all passes")
        return [{name: value[k] if name in listed else value for name, value in inputs.items()}
                for k in range(size)]

    def _learned(self):
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def _clip(self):
        limit = self.param.clip_gradients
        if limit < 0:
            return
        grads = [p.grad for p in self._learned()]
        # In float32, as in the original, but for the sum of each blob.
        squares = np.float32(0)
        for grad in grads:
            squares += np.float32(grad.double().square().sum().item())
        norm = np.sqrt(squares)
        if norm > limit:
            torch._foreach_mul_(grads, float(np.float32(limit) / norm))

    def snapshot(self, prefix: str | os.PathLike) -> tuple[str, str]:
        """Write the training's state: the files that Caffe would write.

        Args:
            prefix: beginning of the files' paths; its folder is made.
        Returns:
            The paths of the caffemodel, PREFIX_iter_N.caffemodel, and the solverstate,
            PREFIX_iter_N.solverstate; both end in .h5 with snapshot_format: HDF5.
        Raises:
            UserError: a file cannot be written, and then neither is; HDF5 cannot hold the
                network; or no step was taken by a network whose sizes come with its inputs.
        """
        if self.optimizer is None or self._waiting:
            raise UserError(f"{self.net.path}: the sizes of the network come with its inputs: take "
                            "a step before a snapshot")
        state = SolverState(self.iteration, "", snapshot.history_of(self.net, self.optimizer),
                            current_step(self.param, self.iteration, self._start))
        hdf5 = self.param.snapshot_format == caffe_pb2.SolverParameter.HDF5
        return snapshot.write_snapshot(self.net, prefix, state, hdf5)

    def restore(self, solverstate: Path | str) -> None:
        """Resume where a snapshot was made, by Caffe or by `snapshot`.

        Args:
            solverstate: path of its solverstate, binary or HDF5. The weights are those of the
                caffemodel that it names, which is looked for beside it, then as it is named.
        Raises:
            UserError: a file is missing, damaged or of another kind, or it fits another network or
                type of solver; the training is then as before. Where the network's sizes come
                with its inputs, the first step raises it.
        """
        state = read_solverstate(solverstate)
        caffemodel = snapshot.find_learned_net(solverstate, state.learned_net)
        self._waiting = (solverstate, state, caffemodel)
        if self.optimizer is not None:
            self._apply(*self._waiting)
        else:
            self.iteration, self._start = state.iteration, (state.iteration, state.current_step)

    def _apply(self, path, state, caffemodel):
        self._waiting = None
        if self.iteration and not self.optimizer.state:
            self.iteration, self._start = 0, (0, 0)  # it waited for the first step
        history = snapshot.check_history(path, state.history, self.net, self.type,
                                         RULES[self.type])
        before = [tensor.detach().clone() for tensor in self.net.parameters()]
        try:
            self.net.load_weights(caffemodel)
        except UserError:
            with torch.no_grad():
                for tensor, value in zip(self.net.parameters(), before):
                    tensor.copy_(value)
            raise
        snapshot.restore_history(self.net, self.optimizer, history)
        self.iteration, self._start = state.iteration, (state.iteration, state.current_step)


def _training_net(param, path):
    for field in ("net_param", "train_net_param"):
        if param.HasField(field):
            return CaffeNet(getattr(param, field), path)
    file, left_out = training_file(param, path), {}
    return CaffeNet(read_net(file, training_state(param), LAYERS, left_out), file,
                    left_out=left_out)
