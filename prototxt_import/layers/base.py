"""What every layer shares: the result of building one, and the checks of its fields."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from google.protobuf.message import Message

from prototxt_import.format.caffe_pb2 import FillerParameter, LayerParameter

Shape = tuple[int, ...]
Shapes = Sequence[Shape]
MAX_AXES = 32
# Elements of one blob: Caffe's own limit.
MAX_BLOB = 2 ** 31 - 1
# The largest float32.
FLOAT_MAX = 3.4028234663852886e38


class Param(NamedTuple):
    """A blob of a layer: its shape, how it starts, and whether gradients can reach it."""

    shape: Shape
    filler: FillerParameter
    learned: bool = True


class Built(NamedTuple):
    """A layer for inputs of given shapes.

    `run(bottoms, params)` returns tensors of the shapes `tops`. What it keeps from pass to pass is
    in the dictionary `state`, which outlives other sizes of the inputs. `assumption` says what the
    file leaves open and how it was taken.
    """

    tops: list[Shape]
    run: Callable[[list[torch.Tensor], list[torch.Tensor]], list[torch.Tensor]]
    params: Sequence[Param] = ()
    multiply_adds: int = 0
    state: dict | None = None
    assumption: str = ""


def check(condition: object, message: str) -> None:
    """Raise a ValueError, which the network turns into an error that names file and layer."""
    if not condition:
        raise ValueError(message)


def check_finite_fields(message: Message, fields: Iterable[str], where: str = "") -> None:
    """Check that fields of a message are finite as float32."""
    for name in fields:
        value = getattr(message, name)
        check(math.isfinite(value), f"{where}{name} must be finite as float32, got {value}")


def check_counts(layer: LayerParameter, bottoms: int | tuple[int, int | None],
                 tops: int | tuple[int, int | None]) -> None:
    """Check the numbers of bottoms and tops; each is a number or (least, most or None)."""
    for name, rule in (("bottom", bottoms), ("top", tops)):
        got = len(getattr(layer, name))
        low, high = (rule, rule) if isinstance(rule, int) else rule
        wanted = f"at least {low}" if high is None else f"{low} to {high}" if low < high else low
        check(got >= low and (high is None or got <= high), f"needs {wanted} {name}s, got {got}")


def check_image(shape: Shape) -> Shape:
    """(N, C, H, W) of a bottom that must be 4-D."""
    check(len(shape) == 4, f"its bottom must be 4-D (N, C, H, W), got {shape}")
    return shape


def check_shape(shape: Shape) -> None:
    """Check the shape of any blob."""
    check(len(shape) <= MAX_AXES, f"a blob must have at most {MAX_AXES} axes, got {len(shape)}")
    check(all(size >= 1 for size in shape), f"sizes of a blob must be at least 1, got {shape}")
    check(math.prod(shape) <= MAX_BLOB,
          f"a blob must have at most {MAX_BLOB} elements, got {shape}")


def axis_index(axis: int, shape: Shape, name: str = "axis") -> int:
    """An axis, counted from the end where negative, as an index of `shape`."""
    check(-len(shape) <= axis < len(shape), f"{name} must be an axis of {shape}, got {axis}")
    return axis % len(shape)


# Fields of a pooling's window, and the least of each.
WINDOW = (("kernel_size", "kernel", 1), ("stride", "stride", 1), ("pad", "pad", 0))


def pair(param: Message, name: str, short: str, least: int) -> tuple[int, int]:
    """(rows, columns) of a window from the field `name`, or the fields `short`_h and `short`_w."""
    separate = [f"{short}_h", f"{short}_w"]
    given = [param.HasField(field) for field in separate]
    if any(given):
        check(all(given), f"needs both {separate[0]} and {separate[1]}")
        check(not param.HasField(name), f"must have {name} or {' and '.join(separate)}, got both")
        values = tuple(getattr(param, field) for field in separate)
    else:
        values = (getattr(param, name),) * 2
    for value in values:
        check(least <= value < 2 ** 20, f"{name} must be {least} to {2 ** 20 - 1}, got {value}")
    return values


def paddings(param: Message, size: Sequence[int], kernel: Sequence[int], stride: Sequence[int],
             pad: tuple[int, int]) -> tuple[tuple[int, int], list[tuple[int, int]]]:
    """Pixels around an image: (rows, columns) of both sides alike, and [(above, below), (left,
    right)] beyond these, of the fields pad_t, pad_b, pad_l, pad_r or of pad_type 1: as many that a
    window starts at every stride."""
    sides = [(param.pad_t, param.pad_b), (param.pad_l, param.pad_r)]
    check(max(map(max, sides)) < 2 ** 20, f"pad_t, pad_b, pad_l and pad_r must be below {2 ** 20}")
    check(param.pad_type in (0, 1), f"pad_type must be 0 or 1, got {param.pad_type}")
    if param.pad_type == 1:
        check(not any(map(any, sides)), "must have pad_type, or pad_t, pad_b, pad_l and pad_r")
        total = [max(0, k - (n % s or s)) for n, k, s in zip(size, kernel, stride)]
        sides = [(pixels // 2, pixels - pixels // 2) for pixels in total]
        check(all(own in (0, before) for own, (before, _) in zip(pad, sides)),
              f"pad must be 0 or, as pad_type 1 has it, {[before for before, _ in sides]}, got "
              f"{pad}")
        return (0, 0), sides
    if not any(map(any, sides)):
        return pad, sides
    check(pad == (0, 0), "must have pad, or pad_t, pad_b, pad_l and pad_r")
    if all(before == after for before, after in sides):
        return (sides[0][0], sides[1][0]), [(0, 0), (0, 0)]
    return pad, sides


# Fields of convolutions and poolings of other types: see layers.volume.
_OF_VOLUMES = ("kernel_shape", "stride_shape", "pad_shape", "kernel_depth", "temporal_stride",
               "temporal_pad")


def check_fields_of_images(layer: LayerParameter, param: Message) -> None:
    """Check that a convolution or pooling of images has no field of other layers."""
    for field in _OF_VOLUMES:
        check(not param.HasField(field), f"{field} is not for {layer.type} of images")


def constant(value: float) -> FillerParameter:
    """A filler that sets every element to `value`."""
    return FillerParameter(type="constant", value=value)


def filler_or(message: Message, field: str, value: float) -> FillerParameter:
    """The filler in a field, or the constant `value` where there is none."""
    return getattr(message, field) if message.HasField(field) else constant(value)
