"""The update rules of Caffe's solvers, each in the order of Caffe's CPU code, in float32."""

import math

import numpy as np
import torch

from pspnet_repro import ops
from pspnet_repro.training.solver import CaffeSGD, add_scaled

Tensors = list[torch.Tensor]


class SGD(CaffeSGD):
    """CaffeSGD with either decay; the other rules replace its `update`."""

    delta = rms_decay = momentum2 = 0.0  # as in the solver's file
    l1 = False  # the decay is that of the sum of absolute weights
    iteration = 0  # steps taken, set before each step

    def penalty(self, params: Tensors) -> Tensors:
        return torch._foreach_sign(params) if self.l1 else params


class Nesterov(SGD):
    """v' = momentum * v + rate * grad; w -= (1 + momentum) * v' - momentum * v."""

    def update(self, group: dict, params: Tensors, grads: Tensors, rate: float,
               buffers: Tensors) -> None:
        momentum = group["momentum"]
        steps = torch._foreach_mul(buffers, -momentum)
        torch._foreach_mul_(buffers, momentum)
        add_scaled(buffers, grads, rate)
        add_scaled(steps, buffers, float(np.float32(1) + np.float32(momentum)))
        torch._foreach_sub_(params, steps)


class AdaGrad(SGD):
    """h += grad^2; w -= rate * grad / (sqrt(h) + delta)."""

    HISTORIES = ("squares",)

    def update(self, group: dict, params: Tensors, grads: Tensors, rate: float,
               squares: Tensors) -> None:
        self._add(squares, _powers(grads, 2))
        roots = _powers(squares, 0.5)
        torch._foreach_add_(roots, self.delta)
        steps = torch._foreach_mul(torch._foreach_div(grads, roots), rate)
        torch._foreach_sub_(params, steps)

    def _add(self, squares, new):
        torch._foreach_add_(squares, new)


class RMSProp(AdaGrad):
    """h = rms_decay * h + (1 - rms_decay) * grad^2; w -= rate * grad / (sqrt(h) + delta)."""

    def _add(self, squares, new):
        _average(squares, new, self.rms_decay)


class AdaDelta(SGD):
    """h = momentum * h + (1 - momentum) * grad^2; step = grad * sqrt((u + delta) / (h + delta));
    u = momentum * u + (1 - momentum) * step^2; w -= rate * step."""

    HISTORIES = ("squares", "squared_steps")

    def update(self, group: dict, params: Tensors, grads: Tensors, rate: float,
               squares: Tensors, squared_steps: Tensors) -> None:
        _average(squares, _powers(grads, 2), group["momentum"])
        ratios = torch._foreach_add(squared_steps, self.delta)
        torch._foreach_div_(ratios, torch._foreach_add(squares, self.delta))
        steps = torch._foreach_mul(grads, _powers(ratios, 0.5))
        _average(squared_steps, _powers(steps, 2), group["momentum"])
        torch._foreach_mul_(steps, rate)
        torch._foreach_sub_(params, steps)


class Adam(SGD):
    """m = momentum * m + (1 - momentum) * grad; v = momentum2 * v + (1 - momentum2) * grad^2;
    w -= rate * sqrt(1 - momentum2^t) / (1 - momentum^t) * m / (sqrt(v) + delta)."""

    HISTORIES = ("mean", "squares")

    def update(self, group: dict, params: Tensors, grads: Tensors, rate: float,
               means: Tensors, squares: Tensors) -> None:
        momentum, steps_taken = group["momentum"], self.iteration + 1
        # Powers of a float and an int are double in C++.
        correction = (math.sqrt(1 - self.momentum2 ** steps_taken)
                      / (1 - momentum ** steps_taken))
        _average(means, grads, momentum)
        _average(squares, torch._foreach_mul(grads, grads), self.momentum2)
        roots = _powers(squares, 0.5)
        torch._foreach_add_(roots, self.delta)
        steps = torch._foreach_div(means, roots)
        torch._foreach_mul_(steps, float(np.float32(rate) * np.float32(correction)))
        torch._foreach_sub_(params, steps)


RULES = {rule.__name__: rule for rule in (SGD, Nesterov, AdaGrad, RMSProp, AdaDelta, Adam)}


def _average(targets, sources, weight):
    """targets = weight * targets + (1 - weight) * sources, the second weight in float32."""
    torch._foreach_mul_(targets, weight)
    add_scaled(targets, sources, float(np.float32(1) - np.float32(weight)))


def _powers(tensors, exponent):
    """Elementwise powers; in float32 on the CPU those of the C library, as in the original."""
    return [torch.ops.pspnet.original_pow(t, exponent)
            if not ops.USE_REFERENCE and t.device.type == "cpu" and t.dtype == torch.float32
            else t ** exponent for t in tensors]
