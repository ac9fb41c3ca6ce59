"""The original's solver: the learning rate inside the momentum buffer, multipliers, poly."""

import math
from collections.abc import Iterable

import numpy as np
import torch

from pspnet_repro import ops
from pspnet_repro.exact.gradients import adding_to_grad
from pspnet_repro.exact.libm import powf
from pspnet_repro.model.pspnet import PSPNet


def poly_rate(base_lr: float, iteration: int, max_iter: int, power: float) -> float:
    """base_lr * (1 - iteration / max_iter)^power, computed in float32 as the original does.
    `iteration` counts from 0. The rate is a float that float32 holds exactly."""
    left = np.float32(1) - np.float32(iteration) / np.float32(max_iter)
    return float(np.float32(base_lr) * np.float32(powf(left, power)))


def parameter_groups(model: PSPNet, decay_bn: bool = False) -> list[dict]:
    """The multipliers of the released networks, as parameter groups for CaffeSGD.

    The backbone learns at the base rate, everything new (pyramid, head, auxiliary branch) at 10
    times, the score convolutions' biases at 20 times. Decay is 1 on convolution weights and on
    these biases, 0 on BN. Source: param fields of the released prototxts.

    Args:
        decay_bn: decay 1 on BN too, as in many ports; for the fidelity ablation.
    Returns:
        {"params", "lr_mult", "decay_mult"} of each.
    """
    groups = {}
    for name, parameter in model.named_parameters():
        owner = model.get_submodule(name.rpartition(".")[0])
        convolution = isinstance(owner, torch.nn.Conv2d)
        lr_mult = 1.0 if name.startswith("backbone.") else 10.0
        if convolution and name.endswith(".bias"):
            lr_mult *= 2
        groups.setdefault((lr_mult, 1.0 if convolution or decay_bn else 0.0), []).append(parameter)
    return [{"params": params, "lr_mult": lr, "decay_mult": decay}
            for (lr, decay), params in groups.items()]


class CaffeSGD(torch.optim.Optimizer):
    """Stochastic gradient descent with the learning rate inside the momentum buffer.

    v = momentum * v + lr * lr_mult * (grad / iter_size + weight_decay * decay_mult * w); w -= v.

    torch.optim.SGD keeps lr outside the buffer, which differs whenever lr changes. `lr` is set
    before every step in each group's "lr" (see `set_rate`). With `rate_in_momentum` off the rate is
    where torch has it, v = momentum * v + grad' and w -= lr * lr_mult * v; for the fidelity
    ablation.

    Args:
        params: parameters, or groups with "lr_mult" and "decay_mult" (1 where absent).
        momentum: Caffe's weight of the old buffer.
        weight_decay: L2 decay.
        iter_size: calls of `backward` before a step.
    Raises:
        ValueError: a value out of range.

    Source: SGDSolver.
    """

    # Names of the tensors in `state` that a parameter has beside itself.
    HISTORIES = ("momentum_buffer",)

    def __init__(self, params: Iterable[torch.Tensor] | Iterable[dict], lr: float,
                 momentum: float = 0.9, weight_decay: float = 1e-4, iter_size: int = 1,
                 rate_in_momentum: bool = True):
        for name, value in (("lr", lr), ("momentum", momentum), ("weight_decay", weight_decay)):
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} must be finite and at least 0, got {value}")
        if iter_size < 1:
            raise ValueError(f"iter_size must be at least 1, got {iter_size}")
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay,
                                  "iter_size": iter_size, "lr_mult": 1.0, "decay_mult": 1.0,
                                  "rate_in_momentum": rate_in_momentum})

    def set_rate(self, lr: float) -> None:
        """Set the base rate of every group."""
        for group in self.param_groups:
            group["lr"] = lr

    def backward(self, loss: torch.Tensor) -> None:
        """Add a pass's gradients to those there, exact layers' in the original's order."""
        with adding_to_grad(p for group in self.param_groups for p in group["params"]):
            loss.backward()

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Update every parameter that has a gradient; gradients are left as they are."""
        if closure is not None:
            raise ValueError("closure must be None: the original evaluates a step once")
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if not params:
                continue
            histories = []
            for name in self.HISTORIES:
                for p in params:
                    if name not in self.state[p]:
                        self.state[p][name] = torch.zeros_like(p)
                    if self.state[p][name].stride() != p.stride():  # of a file
                        self.state[p][name] = torch.empty_like(p).copy_(self.state[p][name])
                histories.append([self.state[p][name] for p in params])
            rate = group["lr"] * group["lr_mult"]
            decay = group["weight_decay"] * group["decay_mult"]
            grads = [p.grad for p in params]
            if (type(self) is CaffeSGD and group["rate_in_momentum"] and not ops.USE_REFERENCE):
                # The same bits as below, in one pass over the weights.
                torch.ops.pspnet.caffe_sgd(params, grads, *histories, 1 / group["iter_size"],
                                           decay, group["momentum"], rate)
                continue
            if group["iter_size"] > 1 or decay:  # copies: the gradients stay as they are
                grads = torch._foreach_mul(grads, 1 / group["iter_size"])
            if decay:
                add_scaled(grads, self.penalty(params), decay)
            self.update(group, params, grads, rate, *histories)

    def penalty(self, params: list[torch.Tensor]) -> list[torch.Tensor]:
        """The tensors whose multiples the weight decay adds to the gradients: of L2 the weights."""
        return params

    def update(self, group: dict, params: list[torch.Tensor], grads: list[torch.Tensor],
               rate: float, buffers: list[torch.Tensor]) -> None:
        """Update `params` with gradients that hold the weight decay.

        Args:
            rate: the group's, its multiplier in it.
            buffers: one list of tensors for each of HISTORIES, changed in place.
        """
        torch._foreach_mul_(buffers, group["momentum"])
        inside = group["rate_in_momentum"]
        add_scaled(buffers, grads, rate if inside else 1.0)
        torch._foreach_sub_(params, buffers, alpha=1.0 if inside else rate)


def add_scaled(targets: list[torch.Tensor], sources: list[torch.Tensor], factor: float) -> None:
    """targets += factor * sources; in float32 on the CPU with the original's roundings."""
    if not ops.USE_REFERENCE and all(t.device.type == "cpu" and t.dtype == torch.float32 and
                                     t.is_contiguous() for t in targets):
        for target, source in zip(targets, sources):
            torch.ops.pspnet.original_axpy(target, source, factor)
    else:
        torch._foreach_add_(targets, sources, alpha=factor)
