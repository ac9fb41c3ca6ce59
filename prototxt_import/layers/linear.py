"""Convolution, Deconvolution, InnerProduct, and Parameter."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from google.protobuf.message import Message

from prototxt_import.format.caffe_pb2 import ConvolutionParameter, LayerParameter
from prototxt_import.layers.base import (
    Built,
    Param,
    Shape,
    Shapes,
    axis_index,
    check,
    check_counts,
    check_fields_of_images,
    check_image,
    check_shape,
    constant,
    filler_or,
    paddings,
)
from pspnet_repro.exact import linear


def _pair(param, name, short, default, least):
    """(rows, columns) from the repeated field `name` or the fields `short`_h and `short`_w."""
    values = list(getattr(param, name))
    separate = [f"{short}_h", f"{short}_w"] if short else []
    given = [field for field in separate if param.HasField(field)]
    if given:
        check(not values, f"must have {name} or {' and '.join(separate)}, got both")
        values = [getattr(param, field) if field in given else default for field in separate]
    check(len(values) <= 2, f"{name} must be given once or twice, got {len(values)} times")
    values = values or [default]
    check(None not in values, f"needs {name}, or {' and '.join(separate)}")
    for value in values:
        check(least <= value < 2 ** 20, f"{name} must be {least} to {2 ** 20 - 1}, got {value}")
    return tuple(values * 2 if len(values) == 1 else values)


def window(param: ConvolutionParameter) -> tuple[tuple[int, int], ...]:
    """Kernel size, stride, pad and dilation, each (rows, columns)."""
    dilation, hole = _pair(param, "dilation", None, 1, 1), _pair(param, "hole", "hole", 1, 1)
    check(1 in (max(dilation), max(hole)), f"must have dilation or hole, its older name, got "
                                           f"{max(dilation)} and {max(hole)}")
    return (_pair(param, "kernel_size", "kernel", None, 1),
            _pair(param, "stride", "stride", 1, 1), _pair(param, "pad", "pad", 0, 0),
            max(dilation, hole))


def check_bottoms(layer: LayerParameter, shapes: Shapes) -> None:
    """Check the bottoms of a convolution: alike, each with a top, channels in axis 1."""
    check_counts(layer, (1, None), (1, None))
    check(len(layer.bottom) == len(layer.top),
          f"needs a top for each of its {len(layer.bottom)} bottoms, got {len(layer.top)}")
    check(all(shape == shapes[0] for shape in shapes), f"its bottoms must be alike, got {shapes}")
    axis = layer.convolution_param.axis
    check(axis in (1, 1 - len(shapes[0])), f"axis must be 1, got {axis}")


def _geometry(layer, shapes):
    check_bottoms(layer, shapes)
    param, channels = layer.convolution_param, check_image(shapes[0])[1]
    check_fields_of_images(layer, param)
    check_channels(param, channels)
    return param, channels, *window(param)


def check_channels(param: ConvolutionParameter, channels: int) -> None:
    """Check num_output and group of a convolution of `channels` inputs."""
    check(param.num_output >= 1, f"num_output must be at least 1, got {param.num_output}")
    check(param.group >= 1 and channels % param.group == 0 and param.num_output % param.group == 0,
          f"group must divide {channels} inputs and {param.num_output} outputs, got {param.group}")


def blobs(param: Message, shape: Shape, outputs: int) -> list[Param]:
    """The weight, of this shape, and the bias of a layer, if it has one."""
    params = [Param(shape, filler_or(param, "weight_filler", 0))]
    if param.bias_term:
        params.append(Param((outputs,), filler_or(param, "bias_filler", 0)))
    return params


def bias_of(params: Sequence[torch.Tensor]) -> torch.Tensor | None:
    """The second of a layer's parameters, if there is one."""
    return params[1] if len(params) > 1 else None


def convolution(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """Blobs: weight (out, in / group, kh, kw), bias (out)."""
    param, channels, kernel, stride, pad, dilation = _geometry(layer, shapes)
    check(param.pad_type == 0 or dilation == (1, 1), "pad_type must stand without dilation")
    pad, sides = paddings(param, shapes[0][2:], kernel, stride, pad)
    padded = [n + sum(ends) for n, ends in zip(shapes[0][2:], sides)]
    size = []
    for n, k, s, p, d in zip(padded, kernel, stride, pad, dilation):
        extent = d * (k - 1) + 1
        check(n + 2 * p >= extent, f"its kernel covers {extent} pixels, its padded input has "
                                   f"{n + 2 * p}")
        size.append((n + 2 * p - extent) // s + 1)
    weight = (param.num_output, channels // param.group, *kernel)
    top = (shapes[0][0], param.num_output, *size)

    def run(bottoms, params):
        if any(map(any, sides)):
            bottoms = [F.pad(x, (*sides[1], *sides[0])) for x in bottoms]
        return [linear.convolution(x, params[0], bias_of(params), stride, pad, dilation,
                                     param.group, size) for x in bottoms]

    return Built([top] * len(shapes), run, blobs(param, weight, param.num_output),
                 len(shapes) * math.prod(top) * math.prod(weight[1:]))


def depthwise_convolution(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """A convolution of a group for each channel, whatever `group` says; a DepthwiseConvolution's
    `group`, which some forks need, is taken where it stands."""
    if layer.type == "DepthwiseConvolution" and layer.convolution_param.HasField("group"):
        return convolution(layer, shapes, train)
    check_counts(layer, (1, None), (1, None))
    channels, copy = check_image(shapes[0])[1], LayerParameter()
    check(layer.convolution_param.num_output == channels,
          f"num_output must be its {channels} inputs, got {layer.convolution_param.num_output}")
    copy.CopyFrom(layer)
    copy.convolution_param.group = channels
    return convolution(copy, shapes, train)


def deconvolution(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """The transposed convolution; blobs: weight (in, out / group, kh, kw), bias (out)."""
    param, channels, kernel, stride, pad, dilation = _geometry(layer, shapes)
    for field in ("pad_type", "pad_t", "pad_b", "pad_l", "pad_r"):
        check(not getattr(param, field), f"{field} of a Deconvolution is not supported: write pad, "
                                         "and a Crop layer behind it")
    size = [s * (n - 1) + d * (k - 1) + 1 - 2 * p
            for n, k, s, p, d in zip(shapes[0][2:], kernel, stride, pad, dilation)]
    check(min(size) >= 1, f"its top must have at least one pixel, got {size}")
    weight = (channels, param.num_output // param.group, *kernel)

    def run(bottoms, params):
        return [linear.deconvolution(x, params[0], bias_of(params), stride, pad, dilation,
                                       param.group, size) for x in bottoms]

    top = (shapes[0][0], param.num_output, *size)
    return Built([top] * len(shapes), run, blobs(param, weight, param.num_output),
                 len(shapes) * math.prod(shapes[0]) * math.prod(weight[1:]))


@torch.no_grad()
def normalize_rows(weight: torch.Tensor, added: float) -> None:
    """Divide each row by its length in place; `added` is added to the length's square."""
    # Through .data, as gradients of an earlier use of the weight may still be to come.
    weight.data.div_((weight.square().sum(1, keepdim=True) + added).sqrt())


def inner_product(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """Blobs: weight (out, in), or (in, out) with `transpose`, and bias (out).

    With happynear's `normalize` each pass makes the weight's rows of length 1.
    """
    check_counts(layer, 1, 1)
    param = layer.inner_product_param
    check(param.num_output >= 1, f"num_output must be at least 1, got {param.num_output}")
    check(not (param.normalize and param.transpose), "normalize must stand without transpose")
    axis = axis_index(param.axis, shapes[0])
    outer, inputs = shapes[0][:axis], math.prod(shapes[0][axis:])
    weight = (inputs, param.num_output) if param.transpose else (param.num_output, inputs)

    def run(bottoms, params):
        if param.normalize:
            normalize_rows(params[0], 1e-6)
        return [linear.inner_product(bottoms[0].flatten(axis), params[0], bias_of(params),
                                       param.transpose)]

    return Built([(*outer, param.num_output)], run, blobs(param, weight, param.num_output),
                 math.prod(outer) * math.prod(weight))


def parameter(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """A parameter alone; its first values are 0."""
    check_counts(layer, 0, 1)
    shape = tuple(layer.parameter_param.shape.dim)
    check_shape(shape)
    return Built([shape], lambda bottoms, params: [params[0]], [Param(shape, constant(0))])
