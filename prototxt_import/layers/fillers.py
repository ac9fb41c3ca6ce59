"""Caffe's fillers: the first values of parameters."""

import math

import numpy as np
import torch

from prototxt_import.format.caffe_pb2 import FillerParameter
from prototxt_import.format.prototxt import FILLERS
from prototxt_import.layers.base import FLOAT_MAX, Shape, check_finite_fields


def fan(shape: Shape, variance_norm: int) -> float:
    """Caffe's n of a blob: inputs of an output (FAN_IN), outputs of an input, or their mean."""
    count = math.prod(shape)
    fan_in = count / shape[0] if shape else 1
    fan_out = count / shape[1] if len(shape) > 1 else count
    return {FillerParameter.FAN_IN: fan_in, FillerParameter.FAN_OUT: fan_out,
            FillerParameter.AVERAGE: (fan_in + fan_out) / 2}[variance_norm]


def _check_filler(filler, shape):
    """ValueError for a filler of another type, or with values out of range, or that a blob of this
    shape cannot have."""
    if filler.type not in FILLERS:
        raise ValueError(f"filler must be one of {', '.join(FILLERS)}, got {filler.type!r}: write "
                         "one of these, or name a caffemodel that has the values")
    check_finite_fields(filler, ("value", "min", "max", "mean", "std", "alpha"), "filler's ")
    if filler.type == "uniform" and not 0 <= filler.max - filler.min <= FLOAT_MAX:
        raise ValueError("filler's min must be at most its max, their difference a float32, got "
                         f"min {filler.min}, max {filler.max}")
    if filler.type == "gaussian" and not filler.std >= 0:
        raise ValueError(f"filler's std must be at least 0, got {filler.std}")
    if filler.type == "bilinear" and not (len(shape) == 4 and shape[2] == shape[3]):
        raise ValueError(f"filler bilinear needs a 4-D blob of square kernels, got {shape}")
    if filler.type == "identity":
        _check_identity(shape, filler.num_groups)
    if filler.type == "positive_unitball" and not shape:
        raise ValueError("filler positive_unitball needs a blob with an axis")


def _check_identity(shape, groups):
    if not (len(shape) == 4 and shape[2] % 2 == shape[3] % 2 == 1):
        raise ValueError(f"filler identity needs a 4-D blob of odd kernels, got {shape}")
    if groups and (shape[0] % groups or shape[1] % groups):
        raise ValueError(f"filler identity's num_groups must divide {shape[0]} outputs and "
                         f"{shape[1]} inputs, got {groups}")
    if not groups and shape[0] != shape[1]:
        raise ValueError("filler identity needs as many outputs as inputs, or num_groups, got "
                         f"{shape}")


def _bilinear(size):
    """(size, size) weights that fall off from the middle."""
    factor = np.float32((size + 1) // 2)
    centre = np.float32((2 * factor - 1 - factor % 2) / (2.0 * factor))
    row = 1 - np.abs(np.arange(size, dtype=np.float32) / factor - centre)
    return torch.from_numpy(np.outer(row, row))


@torch.no_grad()
def fill(tensor: torch.Tensor, filler: FillerParameter) -> None:
    """Fill a tensor in place with torch's random numbers.

    constant: value; uniform: min to max; gaussian: mean and std, and if `sparse` is given all but
    about that many numbers of an output are 0; xavier: uniform within sqrt(3 / n); msra: gaussian
    with std sqrt(2 / n / (1 + alpha^2)); bilinear: the kernel that upsamples; positive_unitball:
    each output's numbers are positive and sum to 1; identity: the convolution that gives each
    channel as it is, with num_groups each output a mean over its group, and with `std` gaussian
    around it.
    """
    _check_filler(filler, tuple(tensor.shape))
    if tensor.numel() == 0:
        return
    if filler.type == "constant":
        tensor.fill_(filler.value)
    elif filler.type == "uniform":
        tensor.uniform_(filler.min, filler.max)
    elif filler.type == "gaussian":
        tensor.normal_(filler.mean, filler.std)
        if filler.sparse >= 0:
            tensor *= torch.rand_like(tensor) < filler.sparse / tensor.shape[0]
    elif filler.type == "bilinear":
        tensor.copy_(_bilinear(tensor.shape[-1]))
    elif filler.type == "identity":
        outputs, inputs, *size = tensor.shape
        groups = filler.num_groups or inputs
        tensor.normal_(0, filler.std if filler.HasField("std") else 0)
        group_of = [torch.arange(count) * groups // count for count in (outputs, inputs)]
        middle = tensor[:, :, size[0] // 2, size[1] // 2]
        middle[group_of[0][:, None] == group_of[1]] = groups / outputs
    elif filler.type == "positive_unitball":
        rows = tensor.uniform_(0, 1).view(len(tensor), -1)
        rows /= rows.sum(1, keepdim=True)
    elif filler.type == "xavier":
        bound = math.sqrt(3 / fan(tensor.shape, filler.variance_norm))
        tensor.uniform_(-bound, bound)
    else:
        n = fan(tensor.shape, filler.variance_norm) * (1 + filler.alpha ** 2)
        tensor.normal_(0, math.sqrt(2 / n))
