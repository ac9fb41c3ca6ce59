"""Layers of caffe-segnet and DeconvNet: their BN, Upsample and Unpooling."""

import torch
from torch.autograd.function import once_differentiable

from prototxt_import.format.caffe_pb2 import BNParameter, LayerParameter, UnpoolingParameter
from prototxt_import.layers.base import (
    WINDOW,
    Built,
    Param,
    Shapes,
    check,
    check_counts,
    check_image,
    filler_or,
    pair,
)
from pspnet_repro.exact import norm

EPS = 1e-9
_REPEATS = ("Upsample with one bottom repeats each value, as in the Caffe of YOLOv3; that of "
            "caffe-segnet needs the mask of a pooling as second bottom")
_OWN_FIELDS = ("scale_filler", "shift_filler", "bn_mode")
_FUSENETS = {"scale", "output_h", "output_w"}
_OTHER_FIELDS = ("slope_filler", "bias_filler", "momentum", "eps", "frozen", "engine")


def is_segnet_bn(param: BNParameter) -> bool:
    """Whether a bn_param is caffe-segnet's; ValueError where it is of both kinds."""
    own, other = ([name for name in names if param.HasField(name)]
                  for names in (_OWN_FIELDS, _OTHER_FIELDS))
    check(not (own and other), f"must have fields of one program: {', '.join(own)} are of "
                               f"caffe-segnet, {', '.join(other)} of PSPNet's Caffe")
    return bool(own)


def has_own_statistics(layer: LayerParameter) -> bool:
    """Whether a layer is caffe-segnet's BN that normalizes by the batch, in testing too."""
    return (layer.type == "BN" and is_segnet_bn(layer.bn_param)
            and layer.bn_param.bn_mode == BNParameter.LEARN)


def bn(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """Blobs: scale, shift, each (1, C, 1, 1).

    LEARN normalizes with the batch's mean and biased variance, in testing too, then scales and
    shifts; a second and a third top get mean and variance (1, C, 1, 1). INFERENCE only scales and
    shifts.
    """
    check_counts(layer, 1, (1, 3))
    channels = check_image(shapes[0])[1]
    param, tops = layer.bn_param, len(layer.top)
    learn = param.bn_mode == BNParameter.LEARN
    check(learn or tops == 1, "bn_mode INFERENCE has no statistics: needs one top")
    shape = (1, channels, 1, 1)

    def run(bottoms, blobs):
        x, (scale, shift) = bottoms[0], blobs
        if not learn:
            return [norm.affine(x, scale, shift)]
        y, mean, var = norm.own_statistics_norm(x, scale, shift, EPS)
        return [y, mean.view(shape), var.view(shape)][:tops]

    return Built([shapes[0], shape, shape][:tops], run,
                 [Param(shape, filler_or(param, "scale_filler", 0)),
                  Param(shape, filler_or(param, "shift_filler", 0))])


class _Upsample(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, index, size):
        ctx.save_for_backward(index)
        y = x.new_zeros(*x.shape[:2], size)
        # On the CPU the last one wins where two meet, as in the original.
        return y.scatter_(2, index, x)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        index, = ctx.saved_tensors
        return grad.gather(2, index), None, None


def _output_size(param, size):
    """(rows, columns) of an Upsample layer's top."""
    fields = {name: param.HasField(name) for name in
              ("scale", "scale_h", "scale_w", "upsample_h", "upsample_w")}
    check(fields["upsample_h"] == fields["upsample_w"],
          "upsample_h and upsample_w must stand together")
    if fields["upsample_h"]:
        out = (param.upsample_h, param.upsample_w)
        check(min(out) > 1, f"upsample_h and upsample_w must be above 1, got {out}")
        return out
    check(fields["scale_h"] == fields["scale_w"] and not (fields["scale"] and fields["scale_h"]),
          "needs upsample_h and upsample_w, or scale, or scale_h and scale_w")
    scales = (param.scale_h, param.scale_w) if fields["scale_h"] else (param.scale,) * 2
    pads = (param.pad_out_h, param.pad_out_w)
    for scale, pad, way in zip(scales, pads, "hw"):
        check(1 < scale < 2 ** 20, f"scale must be 2 to {2 ** 20 - 1}, got {scale}")
        check(not pad or scale == 2, f"pad_out_{way} must stand with scale 2, got {scale}")
    return tuple(side * scale - pad for side, scale, pad in zip(size, scales, pads))


def upsample(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """Each value goes to its mask's position in a plane of zeros; backward reads there.

    The mask is the second top of a MAX Pooling layer. Without it, and with `scale` alone, each
    value is repeated `scale` times in rows and columns.
    """
    check_counts(layer, (1, 2), 1)
    n, c, *size = check_image(shapes[0])
    param = layer.upsample_param
    out = _output_size(param, size)
    if len(shapes) == 2:
        return _placed(shapes, out)
    check([field.name for field, _ in param.ListFields()] == ["scale"],
          "with one bottom must have scale alone; caffe-segnet's needs a mask as second bottom")

    def run(bottoms, params):
        return [bottoms[0].repeat_interleave(param.scale, 2).repeat_interleave(param.scale, 3)]

    return Built([(n, c, *out)], run, assumption=_REPEATS)


def unpooling(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """DeconvNet's Upsample: its size is unpool_size, or what its windows cover. FuseNet's has
    output_h and output_w, or scale."""
    check_counts(layer, 2, 1)
    param, size = layer.unpooling_param, check_image(shapes[0])[2:]
    check(param.unpool == UnpoolingParameter.MAX, "unpool must be MAX")
    fields = {field.name for field, _ in param.ListFields()}
    if fields & _FUSENETS:
        check(fields in ({"scale"}, {"output_h", "output_w"}, _FUSENETS),
              "needs output_h and output_w, or scale, without fields of DeconvNet's Caffe")
        out = ([param.output_h, param.output_w] if param.HasField("output_h") else
               [side * param.scale for side in size])
    else:
        out = _unpooled(param, size)
    check(min(out) >= 1, f"its top must have at least one pixel, got {out}")
    return _placed(shapes, tuple(out))


def _unpooled(param, size):
    kernel, stride, pad = (pair(param, *names) for names in WINDOW)
    return [fixed or param.unpool_size or (side - 1) * s + k - 2 * p for side, k, s, p, fixed
           in zip(size, kernel, stride, pad, (param.unpool_h, param.unpool_w))]


def _placed(shapes, out):
    """Built of a layer that places its first bottom's values in planes of the size `out`."""
    n, c = shapes[0][:2]
    check(shapes[1] == shapes[0], f"its mask must be {shapes[0]}, got {shapes[1]}")
    pixels = out[0] * out[1]

    def run(bottoms, params):
        index = bottoms[1].detach().flatten(2).long()
        low, high = (value.item() for value in index.aminmax())
        check(low >= 0 and high < pixels,
              f"its mask must be positions of the top's {out[0]} x {out[1]} pixels, got "
              f"{high if high >= pixels else low}: the pooling's input has another size")
        return [_Upsample.apply(bottoms[0].flatten(2), index, pixels).view(n, c, *out)]

    return Built([(n, c, *out)], run)
