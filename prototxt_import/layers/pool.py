"""Pooling, SPP and Interp, on the operators of pspnet_repro."""

import torch
import torch.nn.functional as F

from prototxt_import.format.caffe_pb2 import (
    AVE,
    AVE_EXC_PAD,
    AVE_TF,
    MAX,
    LayerParameter,
    PoolingParameter,
    PoolMethod,
)
from prototxt_import.layers.base import (
    WINDOW,
    Built,
    Shapes,
    check,
    check_counts,
    check_fields_of_images,
    check_image,
    paddings,
    pair,
)
from pspnet_repro import ops
from pspnet_repro.exact import linear
from pspnet_repro.ops import checks

_MODES = {MAX: "max", AVE: "ave"}
MAX_PYRAMID_HEIGHT = 12


def _mode(pool):
    check(pool in _MODES, f"pool must be MAX or AVE, got {PoolMethod.Name(pool)}")
    return _MODES[pool]


def pooling(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """MAX or AVE; a second top of MAX gets the index of the maximum in its plane.

    Of AVE_EXC_PAD, or AVE_TF, its older name, the mean is over the pixels of a window that are in
    the image.
    """
    param = layer.pooling_param
    check_fields_of_images(layer, param)
    inside = param.pool in (AVE_EXC_PAD, AVE_TF)
    mode = _mode(AVE if inside else param.pool)
    check_counts(layer, 1, (1, 2 if mode == "max" else 1))
    n, c, *size = check_image(shapes[0])
    stride, pad = (pair(param, *names) for names in WINDOW[1:])
    if param.global_pooling:
        check(not any(param.HasField(f) for f in ("kernel_size", "kernel_h", "kernel_w")),
              "global_pooling must stand without a kernel size")
        check(stride == (1, 1) and pad == (0, 0), "global_pooling must stand with stride 1, pad 0")
        kernel = tuple(size)
    else:
        kernel = pair(param, *WINDOW[0])
    pad, sides = paddings(param, size, kernel, stride, pad)
    has_sides = any(map(any, sides))
    padded = [side + sum(ends) for side, ends in zip(size, sides)]
    read, out = list(padded), None
    if param.pad_type == 1:
        out = [-(-side // s) for side, s in zip(size, stride)]
    elif rounds_down(param):
        # Windows that are not whole are left out, with the pixels that they alone cover.
        out = [(side + 2 * p - k) // s + 1 for side, k, s, p in zip(padded, kernel, stride, pad)]
        check(min(out) >= 1, f"its kernel must be at most its padded input {shapes[0]}, got "
                             f"{kernel}")
    if out:
        read = [min(side, (count - 1) * s + k - p)
                for side, count, k, s, p in zip(padded, out, kernel, stride, pad)]
    rounded_up = checks.window_output_sizes(read, kernel, stride, pad)
    out = out or rounded_up
    if has_sides:
        # The last window starts in the image or before it.
        out = [min(count, (side + before - 1) // s + 1)
               for count, side, s, (before, _) in zip(out, size, stride, sides)]
    rows, columns = out

    def pooled(x):
        # What is around the image is never a maximum.
        if has_sides:
            x = F.pad(x, (*sides[1], *sides[0]), value=-torch.inf if mode == "max" else 0)
        x = x[:, :, :read[0], :read[1]]
        if len(layer.top) == 1:
            return [ops.window_pool2d(x, kernel, stride, pad, mode)]
        check(not ops.USE_REFERENCE, "indices of maxima need the compiled operators")
        values, index = torch.ops.pspnet.window_max_pool2d(x, kernel, stride, pad)
        if has_sides or read != list(size):
            (above, _), (left, _) = sides
            index = (index // read[1] - above) * size[1] + index % read[1] - left
        return [values, index.to(values.dtype)]

    def run(bottoms, params):
        tops = pooled(bottoms[0])
        if inside:
            tops = [tops[0] / pooled(torch.ones_like(bottoms[0][:1, :1]))[0]]
        return [top[:, :, :rows, :columns] for top in tops]

    return Built([(n, c, *out)] * len(layer.top), run)


def rounds_down(param: PoolingParameter) -> bool:
    """Whether a layer leaves out windows that are not whole: `round_mode`, or others' `ceil_mode`.
    """
    floors = {param.round_mode == PoolingParameter.FLOOR} if param.HasField("round_mode") else set()
    if param.HasField("ceil_mode"):
        floors.add(not param.ceil_mode)
    check(len(floors) < 2, "round_mode and ceil_mode must say the same")
    return True in floors


def resize_bilinear(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """As Interp, to output_height and output_width."""
    check_counts(layer, 1, 1)
    param = layer.resize_bilinear_param
    n, c, *size = check_image(shapes[0])
    check(param.align_corners and param.data_format == "NCHW",
          "must have align_corners: true and data_format: \"NCHW\": others are not supported")
    out = [param.output_height, param.output_width]
    checks.interp(size, out, 0, 0)
    return Built([(n, c, *out)], lambda bottoms, params: [ops.interp2d(bottoms[0], out)])


def spp(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """Level l has 2^l bins a side; several levels are flattened and concatenated."""
    check_counts(layer, 1, 1)
    param = layer.spp_param
    mode = _mode(param.pool)
    n, c, *size = check_image(shapes[0])
    levels = param.pyramid_height
    check(1 <= levels <= MAX_PYRAMID_HEIGHT,
          f"pyramid_height must be 1 to {MAX_PYRAMID_HEIGHT}, got {levels}")
    check(min(size) >= 1, f"its bottom must have at least one pixel, got {shapes[0]}")
    windows, tops = [], []
    for bins in (2 ** level for level in range(levels)):
        kernel = [-(-side // bins) for side in size]
        pad = [(k * bins - side + 1) // 2 for k, side in zip(kernel, size)]
        windows.append((kernel, pad))
        tops.append((n, c, *checks.window_output_sizes(size, kernel, kernel, pad)))

    def run(bottoms, params):
        pooled = [ops.window_pool2d(x, kernel, kernel, pad, mode)
                  for x, (kernel, pad) in zip(linear.split(bottoms[0], levels), windows)]
        return pooled if levels == 1 else [torch.cat([p.flatten(1) for p in pooled], 1)]

    if levels > 1:
        tops = [(n, c * sum(height * width for _, _, height, width in tops))]
    return Built(tops, run)


def interp(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """Bilinear, corner onto corner; which size counts depends on the fields that are there. A
    second bottom gives the size in place of fields, as in forks of DeepLab's Caffe."""
    check_counts(layer, (1, 2), 1)
    param = layer.interp_param
    n, c, *size = check_image(shapes[0])
    if len(shapes) == 2:
        check(not param.ListFields(), "needs a second bottom or interp_param, got both")
        out = list(check_image(shapes[1])[2:])
        checks.interp(size, out, 0, 0)
        return Built([(n, c, *out)], lambda bottoms, params: [ops.interp2d(bottoms[0], out)])
    has = {name: param.HasField(name)
           for name in ("shrink_factor", "zoom_factor", "height", "width")}
    for name in has:
        least = 1 if has[name] else 0
        check(getattr(param, name) >= least, f"{name} must be at least 1, got "
                                             f"{getattr(param, name)}")
    effective = [side + param.pad_beg + param.pad_end for side in size]
    if has["shrink_factor"] != has["zoom_factor"] or not (has["height"] and has["width"]):
        check(has["shrink_factor"] or has["zoom_factor"],
              "needs shrink_factor, zoom_factor, or height and width")
        # A factor that is not given is 1.
        shrunk = [(side - 1) // param.shrink_factor + 1 for side in effective]
        out = [side + (side - 1) * (param.zoom_factor - 1) for side in shrunk]
    else:
        out = [param.height, param.width]
    checks.interp(size, out, param.pad_beg, param.pad_end)

    def run(bottoms, params):
        return [ops.interp2d(bottoms[0], out, param.pad_beg, param.pad_end)]

    return Built([(n, c, *out)], run)
