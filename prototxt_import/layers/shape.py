"""Layers that move numbers without changing them."""

import builtins
import math
import operator

import torch
import torch.nn.functional as F

from prototxt_import.format.caffe_pb2 import BlobShape, LayerParameter, ReshapeParameter
from prototxt_import.layers.base import (
    Built,
    Shapes,
    axis_index,
    check,
    check_counts,
    check_image,
)
from pspnet_repro.exact import linear


def _axis(param, old, shape):
    """The axis in the field `axis`, or in the older unsigned field."""
    if param.HasField(old):
        check(not param.HasField("axis"), f"must have axis or {old}, got both")
        return axis_index(getattr(param, old), shape, old)
    return axis_index(param.axis, shape)


def concat(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    check_counts(layer, (1, None), 1)
    axis = _axis(layer.concat_param, "concat_dim", shapes[0])
    first = shapes[0]
    for shape in shapes:
        if (*shape[:axis], *shape[axis + 1:]) != (*first[:axis], *first[axis + 1:]) or (
                len(shape) != len(first)):
            raise ValueError(f"its bottoms must be alike but for axis {axis}, got {first} and "
                             f"{shape}")
    top = (*first[:axis], sum(shape[axis] for shape in shapes), *first[axis + 1:])
    return Built([top], lambda bottoms, params: [torch.cat(bottoms, axis)])


def slice(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """Cut at the slice points, or into equal parts where there are none."""
    check_counts(layer, 1, (1, None))
    param, shape, tops = layer.slice_param, shapes[0], len(layer.top)
    axis = _axis(param, "slice_dim", shape)
    points = list(param.slice_point)
    if points:
        check(len(points) == tops - 1, f"{tops} tops need {tops - 1} slice points, got "
                                       f"{len(points)}")
        edges = [0, *points, shape[axis]]
        check(all(a < b for a, b in zip(edges, edges[1:])),
              f"slice_point must rise within 0 to {shape[axis]}, got {points}")
        sizes = [b - a for a, b in zip(edges, edges[1:])]
    else:
        check(shape[axis] % tops == 0, f"{tops} tops must divide axis {axis} of {shape}")
        sizes = [shape[axis] // tops] * tops
    return Built([(*shape[:axis], size, *shape[axis + 1:]) for size in sizes],
                 lambda bottoms, params: list(torch.split(bottoms[0], sizes, axis)))


def split(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    check_counts(layer, 1, (1, None))
    return Built([shapes[0]] * len(layer.top),
                 lambda bottoms, params: list(linear.split(bottoms[0], len(layer.top))))


def silence(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    check_counts(layer, (1, None), 0)
    return Built([], lambda bottoms, params: [])


def _reshaped(top):
    return Built([top], lambda bottoms, params: [bottoms[0].reshape(top)])


def flatten(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """Axes `axis` to `end_axis` become one."""
    check_counts(layer, 1, 1)
    param, shape = layer.flatten_param, shapes[0]
    start, end = axis_index(param.axis, shape), axis_index(param.end_axis, shape, "end_axis")
    check(start <= end, f"axis must be at most end_axis {end}, got {start}")
    return _reshaped((*shape[:start], math.prod(shape[start:end + 1]), *shape[end + 1:]))


def reshape(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """Replace axes: 0 copies the bottom's size, one -1 takes what is left.

    Instead of a shape, as in the first version, num, channels, height and width stand for four
    axes; axes that the bottom lacks have size 1.
    """
    check_counts(layer, 1, 1)
    param, shape = layer.reshape_param, shapes[0]
    old = [param.num, param.channels, param.height, param.width]
    if any(old):
        check(not param.HasField("shape") and not param.axis and param.num_axes == -1,
              "needs shape or num, channels, height and width, got both")
        param = ReshapeParameter(shape=BlobShape(dim=old))
        shape += (1,) * (4 - len(shape))
    axes = len(shape)
    start = param.axis if param.axis >= 0 else axes + param.axis + 1
    check(0 <= start <= axes, f"axis must be an axis of {shape}, got {param.axis}")
    check(param.num_axes >= -1, f"num_axes must be at least -1, got {param.num_axes}")
    end = axes if param.num_axes == -1 else start + param.num_axes
    check(end <= axes, f"num_axes must fit into {shape} from axis {start}, got {param.num_axes}")
    new = list(param.shape.dim)
    for k, size in enumerate(new):
        check(size >= -1, f"dim must be at least -1, got {size}")
        if size == 0:
            check(start + k < axes, f"dim 0 must copy an axis of {shape}, got axis {start + k}")
            new[k] = shape[start + k]
    check(new.count(-1) <= 1, f"dim must be -1 at most once, got {list(param.shape.dim)}")
    count = math.prod(shape)
    if -1 in new:
        rest = math.prod(size for size in new if size != -1) * math.prod(shape[:start])
        rest *= math.prod(shape[end:])
        check(rest > 0 and count % rest == 0,
              f"{list(param.shape.dim)} must divide the {count} elements of {shape}")
        new[new.index(-1)] = count // rest
    top = (*shape[:start], *new, *shape[end:])
    check(math.prod(top) == count, f"{top} must have the {count} elements of {shape}")
    return _reshaped(top)


def reshape_like(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """The first bottom in the second's shape."""
    check_counts(layer, 2, 1)
    check(math.prod(shapes[0]) == math.prod(shapes[1]),
          f"its bottoms must have as many elements, got {shapes}")
    return _reshaped(shapes[1])


_NO_OFFSET = ("Crop has no offset: it cuts from the first row and column on, as BVLC's Caffe does; "
              "some forks compute an offset from the network: write it as crop_param { offset: N }")


def crop(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """The first bottom cut to the second's sizes from `axis` on, beginning at the offsets."""
    check_counts(layer, 2, 1)
    param, (shape, wanted) = layer.crop_param, shapes
    axis = axis_index(param.axis, shape)
    axes = len(shape) - axis
    check(len(wanted) >= len(shape), f"its second bottom must have the axes of {shape}, got "
                                     f"{wanted}")
    offsets = list(param.offset) or [0]
    check(len(offsets) in (1, axes), f"offset must be given once or for each of {axes} axes, got "
                                     f"{len(offsets)} times")
    offsets = [0] * axis + (offsets * axes if len(offsets) == 1 else offsets)
    top = (*shape[:axis], *wanted[axis:len(shape)])
    for k, (side, size, offset) in enumerate(zip(shape, top, offsets)):
        check(offset + size <= side, f"axis {k} of {shape} must hold {size} from offset {offset} on"
                                     f", as {wanted} asks")
    places = tuple(map(builtins.slice, offsets, map(operator.add, offsets, top)))
    assumption = "" if param.offset or top == shape else _NO_OFFSET
    return Built([top], lambda bottoms, params: [bottoms[0][places].contiguous()],
                 assumption=assumption)


def crop_center(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """The bottom without `crop_size` numbers at either end of each axis."""
    check_counts(layer, 1, 1)
    cuts, shape = list(layer.crop_center_param.crop_size), shapes[0]
    check(len(cuts) == len(shape) and all(2 * cut < side for cut, side in zip(cuts, shape)),
          f"crop_size must be given for each axis of {shape} and leave something, got {cuts}")
    top = tuple(side - 2 * cut for cut, side in zip(cuts, shape))
    places = tuple(map(builtins.slice, cuts, map(operator.add, cuts, top)))
    return Built([top], lambda bottoms, params: [bottoms[0][places].contiguous()])


def permute(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """The axes in the order of `order`, those that it leaves out after it."""
    check_counts(layer, 1, 1)
    order, shape = list(layer.permute_param.order), shapes[0]
    check(len(set(order)) == len(order) and all(axis < len(shape) for axis in order),
          f"order must be axes of {shape}, each once, got {order}")
    order += [axis for axis in range(len(shape)) if axis not in order]
    return Built([tuple(shape[axis] for axis in order)],
                 lambda bottoms, params: [bottoms[0].permute(order).contiguous()])


def shuffle_channel(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """The first channel of each group, then the second of each, and so on."""
    check_counts(layer, 1, 1)
    shape, groups = shapes[0], layer.shuffle_channel_param.group
    check(len(shape) >= 2, f"its bottom must have channels, got {shape}")
    check(groups >= 1 and shape[1] % groups == 0, f"group must divide {shape[1]} channels, got "
                                                  f"{groups}")
    return Built([shape], lambda bottoms, params: [
        bottoms[0].unflatten(1, (groups, -1)).transpose(1, 2).reshape(shape)])


def tile(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """Copies of the bottom, one after the other along an axis."""
    check_counts(layer, 1, 1)
    param, shape = layer.tile_param, shapes[0]
    axis = axis_index(param.axis, shape)
    check(param.tiles >= 1, f"tiles must be at least 1, got {param.tiles}")
    top = (*shape[:axis], shape[axis] * param.tiles, *shape[axis + 1:])
    return Built([top], lambda bottoms, params:
                 [torch.cat(linear.split(bottoms[0], param.tiles), axis)])


def tiling(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """Each tile_dim^2 channels become one, tile_dim times as high and wide: a square of pixels for
    each pixel, row by row."""
    check_counts(layer, 1, 1)
    n, c, *size = check_image(shapes[0])
    side = layer.tiling_param.tile_dim
    check(1 <= side < 2 ** 20 and c % side ** 2 == 0,
          f"tile_dim must be at least 1, its square divide {c} channels, got {side}")
    return Built([(n, c // side ** 2, *(side * pixels for pixels in size))],
                 lambda bottoms, params: [F.pixel_shuffle(bottoms[0], side)])


def _blocks(block, ends, shape, name):
    """Sides of a block along the axes 1, 2 ... and [(before, after)] of what is added or cut."""
    axes = len(block)
    check(1 <= axes < len(shape), f"block_shape must be given for 1 to {len(shape) - 1} axes of "
                                  f"{shape}, got {axes}")
    check(len(ends) == 2 * axes, f"{name} must be two for each of {axes} axes, got {len(ends)}")
    check(min(block) >= 1 and max([*block, *ends]) < 2 ** 20,
          f"block_shape must be at least 1, it and {name} below {2 ** 20}")
    return list(block), list(zip(ends[::2], ends[1::2]))


def space_to_batch(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """Every block-th pixel of the padded bottom is an item of its own, as TensorFlow has it."""
    check_counts(layer, 1, 1)
    param, shape = layer.space_to_batch_nd_param, shapes[0]
    block, pads = _blocks(param.block_shape, param.paddings, shape, "paddings")
    axes = len(block)
    padded = [size + sum(ends) for size, ends in zip(shape[1:], pads)]
    check(all(size % side == 0 for size, side in zip(padded, block)),
          f"block_shape {block} must divide the padded sizes {padded}")
    inner = [part for size, side in zip(padded, block) for part in (size // side, side)]
    order = [*range(2, 2 * axes + 1, 2), 0, *range(1, 2 * axes, 2),
             *range(2 * axes + 1, len(shape) + axes)]
    top = (shape[0] * math.prod(block), *inner[::2], *shape[axes + 1:])
    around = [end for pad in [(0, 0)] * (len(shape) - axes - 1) + pads[::-1] for end in pad]

    def run(bottoms, params):
        x = F.pad(bottoms[0], around).reshape(shape[0], *inner, *shape[axes + 1:])
        return [x.permute(order).reshape(top)]

    return Built([top], run)


def batch_to_space(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """What `space_to_batch` parted, together again, its edges cut by `crops`."""
    check_counts(layer, 1, 1)
    param, shape = layer.batch_to_space_nd_param, shapes[0]
    block, crops = _blocks(param.block_shape, param.crops, shape, "crops")
    axes, parts = len(block), math.prod(block)
    check(shape[0] % parts == 0, f"block_shape {block} must divide {shape[0]} items")
    whole = [size * side for size, side in zip(shape[1:], block)]
    check(all(sum(cut) < size for size, cut in zip(whole, crops)),
          f"crops must leave pixels of {whole}, got {crops}")
    order = [axes, *[axis for k in range(axes) for axis in (axes + 1 + k, k)],
             *range(2 * axes + 1, len(shape) + axes)]
    rest = shape[axes + 1:]
    top = (shape[0] // parts, *[size - sum(cut) for size, cut in zip(whole, crops)], *rest)
    places = (builtins.slice(None), *[builtins.slice(first, size - last) for size, (first, last)
                                      in zip(whole, crops)])

    def run(bottoms, params):
        x = bottoms[0].reshape(*block, shape[0] // parts, *shape[1:]).permute(order)
        return [x.reshape(shape[0] // parts, *whole, *rest)[places].contiguous()]

    return Built([top], run)
