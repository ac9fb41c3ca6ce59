"""The learning rates of a solver's iterations."""

import numpy as np

from prototxt_import.format.caffe_pb2 import SolverParameter
from pspnet_repro.exact.libm import expf, powf
from pspnet_repro.training.solver import poly_rate

# lr_policy -> the fields that it needs.
POLICIES = {"fixed": (), "step": ("gamma", "stepsize"), "exp": ("gamma",),
            "inv": ("gamma", "power"), "multistep": ("gamma", "stepvalue"),
            "poly": ("power", "max_iter"), "sigmoid": ("gamma", "stepsize")}


def learning_rate(param: SolverParameter, iteration: int,
                  start: tuple[int, int] = (0, 0)) -> float:
    """The rate of an iteration, counted from 0, in float32 as the original computes it.

    fixed: base_lr; step: base_lr * gamma^floor(iteration / stepsize); exp: base_lr *
    gamma^iteration; inv: base_lr * (1 + gamma * iteration)^-power; multistep: base_lr *
    gamma^(number of stepvalues passed); poly: base_lr * (1 - iteration / max_iter)^power; sigmoid:
    base_lr / (1 + exp(-gamma * (iteration - stepsize))). Powers of gamma are double, as C++ has
    them of a float and an int.

    Args:
        start: (iteration, stepvalues passed before it) of the solverstate that the training
            started from.
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
                 "multistep": _stepvalues_passed(param.stepvalue, iteration, start)}
        return float(np.float32(np.float64(base) * np.float64(gamma) ** steps[param.lr_policy]))
    return float(base * np.float32(factor))


def current_step(param: SolverParameter, iteration: int,
                 start: tuple[int, int] = (0, 0)) -> int:
    """Caffe's count of steps after so many iterations, as a solverstate holds it: that of the
    last rate that was taken. Arguments as in `learning_rate`."""
    if iteration <= start[0] or param.lr_policy not in ("step", "multistep"):
        return start[1]
    if param.lr_policy == "step":
        return (iteration - 1) // param.stepsize
    return _stepvalues_passed(param.stepvalue, iteration - 1, start)


def _stepvalues_passed(stepvalues, iteration, start):
    """How many stepvalues are passed when the rate of an iteration is taken.

    They are passed in the file's order, each at the first iteration that reaches it, at most one
    per iteration: 3, 3 are passed at 3 and 4; 6, 3 at 6 and 7.
    """
    earliest, passed = start if iteration >= start[0] else (0, 0)
    for value in stepvalues[passed:]:
        at = max(value, earliest)
        if at > iteration:
            break
        passed, earliest = passed + 1, at + 1
    return passed
