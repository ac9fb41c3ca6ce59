"""Convolution, Deconvolution and Pooling of blobs with one or three axes of pixels, in torch; blobs
of images are passed on."""

import math

import torch
import torch.nn.functional as F

from prototxt_import.format.caffe_pb2 import AVE, MAX, LayerParameter, PoolMethod
from prototxt_import.format.prototxt import SHAPES
from prototxt_import.layers import linear, pool
from prototxt_import.layers.base import Built, Shapes, check, check_counts

_CONVOLUTIONS = {1: F.conv1d, 3: F.conv3d}
_DECONVOLUTIONS = {1: F.conv_transpose1d, 3: F.conv_transpose3d}
# Fields of C3D's layers, and those that tell rows from columns.
_OTHERS = ("kernel_depth", "temporal_stride", "temporal_pad", "kernel_h", "kernel_w", "stride_h",
           "stride_w", "pad_h", "pad_w", "hole", "hole_h", "hole_w", "pad_type", "pad_l", "pad_r",
           "pad_t", "pad_b")


def _is_image(layer, shapes):
    if not shapes:  # refused with the image's layer
        return True
    check(3 <= len(shapes[0]) <= 5,
          f"its bottom must be (N, C) and 1 to 3 axes of pixels, got {shapes[0]}")
    return len(shapes[0]) == 4


def _each(param, name, count, default, least):
    """`count` values of the field `name`, given once or for each axis, or of its shape field."""
    shape = SHAPES.get(name)
    if shape and param.HasField(shape):
        values, name = list(getattr(param, shape).dim), f"{shape}'s dim"
    elif isinstance(getattr(param, name), int):
        values = [getattr(param, name)] if param.HasField(name) else []
    else:
        values = list(getattr(param, name))
    check(len(values) in (0, 1, count),
          f"{name} must be given once or {count} times, got {len(values)} times")
    values = values or [default]
    check(None not in values, f"needs {name}")
    for value in values:
        check(least <= value < 2 ** 20, f"{name} must be {least} to {2 ** 20 - 1}, got {value}")
    return values * count if len(values) == 1 else values


def _for_images(layer, field):
    """A copy of a layer of images with kernel_size, stride and pad in place of the shape fields of
    NdConvolution, NdPooling and PoolingND; of other types the layer, which must have none."""
    if layer.type not in ("NdConvolution", "NdPooling", "PoolingND"):
        return layer
    copy = LayerParameter()
    copy.CopyFrom(layer)
    param = getattr(copy, field)
    for name, shape in SHAPES.items():
        if not param.HasField(shape):
            continue
        short = name.split("_")[0]
        values = _each(param, name, 2, None, 0)
        check(not param.HasField(f"{short}_h") and not param.HasField(f"{short}_w"),
              f"must have {shape}, or {short}_h and {short}_w, got both")
        param.ClearField(name)
        param.ClearField(shape)
        for side, value in zip("hw", values):
            setattr(param, f"{short}_{side}", value)
    return copy


def _with_depth(layer, shapes, field):
    """A copy of a layer of C3D's Caffe with a shape field for kernel, stride and pad."""
    check_counts(layer, (1, None), (1, None))
    check(len(shapes[0]) == 5, f"its bottom must be 5-D (N, C, frames, H, W), got {shapes[0]}")
    copy, own = LayerParameter(), field.replace("_param", "3d_param")
    copy.CopyFrom(layer)
    param = getattr(copy, field)
    if copy.HasField(own):
        param.CopyFrom(getattr(copy, own))
    for name, depth, default in (("kernel_size", "kernel_depth", None),
                                 ("stride", "temporal_stride", 1), ("pad", "temporal_pad", 0)):
        check(not param.HasField(SHAPES[name]), f"must have {name} and {depth}, not shapes")
        side = _each(param, name, 1, default, 0)
        check(default is not None or param.HasField(depth), f"needs {depth}")
        getattr(param, SHAPES[name]).dim.extend([getattr(param, depth), *side, *side])
        param.ClearField(name)
        param.ClearField(depth)
    return copy


def _window(param, count):
    given = {field.name for field, _ in param.ListFields()}
    for field in _OTHERS:
        check(field not in given, f"{field} is not for a bottom with {count + 2} axes")
    return (_each(param, "kernel_size", count, None, 1), _each(param, "stride", count, 1, 1),
            _each(param, "pad", count, 0, 0))


def _geometry(layer, shapes):
    linear.check_bottoms(layer, shapes)
    param, (_, channels, *size) = layer.convolution_param, shapes[0]
    linear.check_channels(param, channels)
    return param, channels, size, *_window(param, len(size)), _each(param, "dilation", len(size), 1,
                                                                    1)


def convolution(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """Blobs: weight (out, in / group, *kernel), bias (out)."""
    if _is_image(layer, shapes):
        return linear.convolution(_for_images(layer, "convolution_param"), shapes, train)
    param, channels, size, kernel, stride, pad, dilation = _geometry(layer, shapes)
    extents = [d * (k - 1) + 1 for k, d in zip(kernel, dilation)]
    out = [(n + 2 * p - extent) // s + 1 for n, p, extent, s in zip(size, pad, extents, stride)]
    check(min(out) >= 1, f"its kernel covers {extents} pixels, its padded input has "
                         f"{[n + 2 * p for n, p in zip(size, pad)]}")
    weight, top = (param.num_output, channels // param.group, *kernel), (shapes[0][0],
                                                                         param.num_output, *out)
    function = _CONVOLUTIONS[len(size)]

    def run(bottoms, params):
        return [function(x, params[0], linear.bias_of(params), stride, pad, dilation, param.group)
                for x in bottoms]

    return Built([top] * len(shapes), run, linear.blobs(param, weight, param.num_output),
                 len(shapes) * math.prod(top) * math.prod(weight[1:]))


def deconvolution(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """The transposed convolution; blobs: weight (in, out / group, *kernel), bias (out)."""
    if _is_image(layer, shapes):
        return linear.deconvolution(_for_images(layer, "convolution_param"), shapes, train)
    param, channels, size, kernel, stride, pad, dilation = _geometry(layer, shapes)
    out = [s * (n - 1) + d * (k - 1) + 1 - 2 * p
           for n, k, s, p, d in zip(size, kernel, stride, pad, dilation)]
    check(min(out) >= 1, f"its top must have at least one pixel, got {out}")
    weight, top = (channels, param.num_output // param.group, *kernel), (shapes[0][0],
                                                                         param.num_output, *out)
    function = _DECONVOLUTIONS[len(size)]

    def run(bottoms, params):
        return [function(x, params[0], linear.bias_of(params), stride, pad, 0, param.group,
                         dilation) for x in bottoms]

    return Built([top] * len(shapes), run, linear.blobs(param, weight, param.num_output),
                 len(shapes) * math.prod(shapes[0]) * math.prod(weight[1:]))


def convolution3d(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """C3D's; blobs: weight (out, in, kernel_depth, kernel_size, kernel_size), bias (out)."""
    layer = _with_depth(layer, shapes, "convolution_param")
    check(layer.convolution_param.group == 1,
          f"group must be 1, got {layer.convolution_param.group}")
    return convolution(layer, shapes, train)


def pooling3d(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """C3D's: MAX or AVE of windows of kernel_depth frames."""
    layer = _with_depth(layer, shapes, "pooling_param")
    pad = layer.pooling_param.pad_shape.dim
    check(not any(pad), f"pad must be 0, got {list(pad)}")
    return pooling(layer, shapes, train)


def pooling(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """MAX or AVE of windows, sizes rounded up as those of images."""
    field = "pooling_nd_param" if layer.type == "PoolingND" else "pooling_param"
    if _is_image(layer, shapes):
        layer = _for_images(layer, field)
        if field == "pooling_nd_param":
            layer.pooling_param.CopyFrom(layer.pooling_nd_param)
        return pool.pooling(layer, shapes, train)
    check_counts(layer, 1, 1)
    param, size = getattr(layer, field), shapes[0][2:]
    check(param.pool in (MAX, AVE), f"pool must be MAX or AVE, got {PoolMethod.Name(param.pool)}")
    if param.global_pooling:
        own = {given.name for given, _ in param.ListFields()} & {
            *SHAPES, *SHAPES.values(), *_OTHERS}
        check(not own, f"global_pooling must stand without {', '.join(sorted(own))}")
        kernel, stride, pad = list(size), [1] * len(size), [0] * len(size)
    else:
        kernel, stride, pad = _window(param, len(size))
    check(all(p < k for p, k in zip(pad, kernel)), f"pad must be below the kernel's {kernel}, got "
                                                   f"{pad}")
    out, ends = [], []
    for n, k, s, p in zip(size, kernel, stride, pad):
        free = n + 2 * p - k
        count = (free // s if pool.rounds_down(param) else -(-free // s)) + 1
        count -= any(pad) and (count - 1) * s >= n + p
        check(count >= 1 and (count - 1) * s < n + p,
              f"its windows must begin in its padded input {shapes[0]}, got kernel {kernel} and "
              f"stride {stride}")
        out.append(count)
        ends.append(max(0, (count - 1) * s + k - n - p))
    three = [1] * (3 - len(size))

    def run(bottoms, params):
        x = bottoms[0]
        around = [side for axis in zip(pad, ends) for side in axis[::-1]][::-1]
        x = F.pad(x, around, value=-torch.inf if param.pool == MAX else 0)
        x = x.reshape(*x.shape, *three)
        window = ([*kernel, *three], [*stride, *three])
        y = (F.max_pool3d(x, *window) if param.pool == MAX else
             F.avg_pool3d(x, *window, divisor_override=1))
        y = y[(..., *map(slice, [*out, *three]))].reshape(*x.shape[:2], *out)
        return [y if param.pool == MAX else y / areas().to(y)]

    def areas():
        """Pixels of each window that lie within the padded input."""
        product = torch.ones((), dtype=torch.float64)
        for count, n, k, s, p in zip(out, size, kernel, stride, pad):
            first = s * torch.arange(count)
            product = product[..., None] * ((first + k).clamp(max=n + 2 * p) - first)
        return product

    return Built([(*shapes[0][:2], *out)], run)
