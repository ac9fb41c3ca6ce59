"""Parameters of a network: how many there may be, and which shapes fit each other."""

import math
import warnings
from collections.abc import Iterable
from pathlib import Path

import torch

from prototxt_import.format.caffe_pb2 import LayerParameter, ParamSpec
from prototxt_import.layers.base import Built, Param, Shape, check

# Bytes of all parameters of a network together: more fit into no caffemodel.
MAX_PARAMETER_BYTES = 2 ** 31


def check_size(built: Built, before: int) -> int:
    """Bytes of the parameters of a layer and of those before it; ValueError beyond the limit."""
    total = before + 4 * sum(math.prod(param.shape) for param in built.params)
    check(total <= MAX_PARAMETER_BYTES, f"parameters up to this layer must be at most "
                                        f"{MAX_PARAMETER_BYTES} bytes, got {total}")
    return total


def check_fits(tensors: Iterable[torch.Tensor], built: Built) -> None:
    """ValueError where parameters that are there already are not those that `built` needs."""
    for k, (tensor, param) in enumerate(zip(tensors, built.params)):
        check(tensor.numel() == math.prod(param.shape),
              f"these inputs need blob {k} to be {param.shape}, it is {tuple(tensor.shape)}")


def rename(layer: LayerParameter, layers: Iterable[LayerParameter], path: Path | str) -> None:
    """Give a layer that has another's name one of its own, with a warning."""
    taken, name, number = {other.name for other in layers}, layer.name, 2
    while f"{name}#{number}" in taken:
        number += 1
    layer.name = f"{name}#{number}"
    warnings.warn(f"{path}: layer {name!r} ({layer.type}): another layer with parameters has this "
                  f"name: here this one is {layer.name!r}, with parameters of its own as in Caffe; "
                  'to share them, write param { name: "w" } in both', stacklevel=2)


def share(k: int, param: Param, spec: ParamSpec, tensor: torch.Tensor,
          owner: ParamSpec) -> tuple[torch.Tensor, ParamSpec]:
    """The owner's tensor and spec for a parameter of the same name; ValueError if they differ."""
    same = (tensor.numel() == math.prod(param.shape) if spec.share_mode == spec.PERMISSIVE
            else tensor.shape == param.shape)
    check(same, f"blob {k} shares {spec.name!r} of shape {tuple(tensor.shape)}, needs "
                f"{param.shape}")
    for field in ("lr_mult", "decay_mult"):
        check(not spec.HasField(field) or not owner.HasField(field)
              or getattr(spec, field) == getattr(owner, field),
              f"blob {k} shares {spec.name!r}, whose {field} is {getattr(owner, field)}, got "
              f"{getattr(spec, field)}")
        if spec.HasField(field):
            setattr(owner, field, getattr(spec, field))
    return tensor, owner


def same_shape(wanted: Shape, got: Shape, kind: str) -> bool:
    """Whether a file's blob has the wanted shape, or the older spelling of it: ones before it, and
    for BN (1, C) or (C)."""
    if kind in ("BN", "SyncBN"):
        return math.prod(got) == math.prod(wanted) == max(got, default=1)
    axes = max(len(wanted), len(got))
    return ((1,) * (axes - len(wanted)) + wanted) == ((1,) * (axes - len(got)) + tuple(got))
