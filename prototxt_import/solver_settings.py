"""The settings of a solver's file: which type it is, what they must be, what is not followed."""

import math
import os
import warnings
from pathlib import Path

from prototxt_import.format.caffe_pb2 import SolverParameter
from prototxt_import.format.grammar import template
from prototxt_import.format.prototxt import net_file
from prototxt_import.schedule import POLICIES
from prototxt_import.update_rules import RULES
from pspnet_repro.errors import UserError

NETS = ("net", "net_param", "train_net", "train_net_param")
# Fields that say when Caffe's program tests, shows and saves: no weight depends on them.
UNFOLLOWED = ("display", "average_loss", "debug_info", "snapshot", "snapshot_prefix",
               "snapshot_after_train", "snapshot_diff", "test_net", "test_net_param", "test_state",
               "test_iter", "test_interval", "test_initialization", "test_compute_loss",
               "device_id", "layer_wise_reduce")
_OLD_TYPES = {name.upper(): name for name in RULES}


def check_settings(param: SolverParameter, path: Path | str) -> str:
    """The type of a solver, a key of RULES. UserError where a setting is missing or out of range,
    or changes the training and is not supported; it warns of others that are not followed."""
    kind = _type(param, path)
    for fulfilled, message in (*_rules(param), *_rules_of_type(kind, param)):
        if not fulfilled:
            raise UserError(f"{path}: {message}")
    unfollowed = [field.name for field, _ in param.ListFields() if field.name in UNFOLLOWED]
    if unfollowed:
        warnings.warn(f"{path}: {', '.join(unfollowed)}: not followed, as the weights do not "
                      "depend on it; call .snapshot(prefix) for a snapshot", stacklevel=4)
    return kind


def _type(param, path):
    if param.HasField("type") and param.HasField("solver_type"):
        raise UserError(f"{path}: must have type or the older solver_type, got both: remove "
                        "solver_type")
    kind = (_OLD_TYPES[param.SolverType.Name(param.solver_type)] if param.HasField("solver_type")
            else param.type)
    if kind not in RULES:
        raise UserError(f"{path}: type must be one of {', '.join(RULES)}, got {kind!r}")
    return kind


def _rules(param):
    """(whether it is fulfilled, message otherwise) of the rules for any type."""
    yield (param.regularization_type in ("L1", "L2"),
           f"regularization_type must be L1 or L2, got {param.regularization_type!r}")
    yield (param.lr_policy in POLICIES, f"lr_policy must be one of {', '.join(POLICIES)}, got "
                                        f"{param.lr_policy!r}")
    yield param.iter_size >= 1, f"iter_size must be at least 1, got {param.iter_size}"
    yield (sum(param.HasField(field) for field in NETS) == 1,
           f"needs just one of {', '.join(NETS)}")
    yield (not param.weights, f"weights: {', '.join(param.weights)} would be loaded before the "
                              "training, which is not supported: remove the field and call "
                              "solver.net.load_weights(file)")
    for field in ("base_lr", "momentum", "weight_decay", "delta"):
        value = getattr(param, field)
        yield 0 <= value < math.inf, f"{field} must be finite and at least 0, got {value}"
    yield (not math.isnan(param.clip_gradients),
           f"clip_gradients must be a number, got {param.clip_gradients}")
    for field in POLICIES.get(param.lr_policy, ()):
        value = getattr(param, field)
        present = len(value) if field == "stepvalue" else param.HasField(field)
        yield present, f"lr_policy {param.lr_policy!r} needs {field}"
        if field in ("stepsize", "max_iter"):
            yield value > 0, f"{field} must be at least 1, got {value}"
    yield param.HasField("base_lr"), "needs base_lr"


def _rules_of_type(kind, param):
    if kind in ("AdaGrad", "RMSProp"):
        yield (param.momentum == 0, f"momentum cannot be used with {kind}, got {param.momentum:g}: "
                                    "remove it")
    if kind == "RMSProp":
        yield 0 <= param.rms_decay < 1, f"rms_decay must be 0 to below 1, got {param.rms_decay}"
    if kind == "Adam":
        for field in ("momentum", "momentum2"):
            value = getattr(param, field)
            yield 0 <= value < 1, f"{field} of Adam must be 0 to below 1, got {value}"


def training_file(param: SolverParameter, path: Path | str) -> Path:
    """The path of a solver's training network, which is a file of its own; UserError where it is at
    neither place."""
    field = "train_net" if param.HasField("train_net") else "net"
    name = getattr(param, field)
    file = net_file(path, name)
    try:
        os.stat(file)
    except FileNotFoundError as error:
        if "${" in name:
            raise UserError(f"{path}: {template(name)}") from error
        raise UserError(f"{path}: its {field} {name}: no such file beside the solver "
                        f"({Path(path).parent / name}) nor in the working directory "
                        f"({Path.cwd() / name}): put it there, or name its place in the "
                        f"solver's field {field}") from error
    except (OSError, ValueError):
        pass  # whoever reads it says what it is
    return file
