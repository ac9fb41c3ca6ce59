"""BN, SyncBN, BatchNorm, Scale and Bias."""

import warnings
from collections.abc import Iterable
from pathlib import Path

import torch
from torch.func import functional_call

from prototxt_import.format.caffe_pb2 import BiasParameter, LayerParameter
from prototxt_import.layers import segnet
from prototxt_import.layers.base import (
    Built,
    Param,
    Shapes,
    axis_index,
    check,
    check_counts,
    constant,
    filler_or,
)
from pspnet_repro.distributed import LOCAL
from pspnet_repro.exact import linear, norm
from pspnet_repro.sync_bn import SyncBatchNorm2d, torch_momentum


def _normalize(module, x, weight, bias, mean, var):
    """A SyncBatchNorm2d on blobs of any shape; in training it updates mean and var in place."""
    names = ("weight", "bias", "running_mean", "running_var")
    tensors = {name: t.view(-1) for name, t in zip(names, (weight, bias, mean, var))}
    return functional_call(module, tensors, (x,))


def _check_eps(eps):
    check(eps > 0, f"eps must be above 0, got {eps}")


def _bn(layer, shapes, train, variance, group, exact, frozen):
    check_counts(layer, 1, 1)
    shape = shapes[0]
    check(2 <= len(shape) <= 4, f"its bottom must be 2-D to 4-D (N, C, H, W), got {shape}")
    channels, param = shape[1], layer.bn_param
    check(0 <= param.momentum <= 1, f"momentum must be 0 to 1, got {param.momentum}")
    _check_eps(param.eps)
    size = (1, channels, 1, 1)
    # Running values start at 0, as in the original; a frozen variance at 1.
    params = [Param(size, filler_or(param, "slope_filler", 0), not frozen),
              Param(size, filler_or(param, "bias_filler", 0), not frozen),
              Param(size, constant(0), False),
              Param(size, constant(1 if frozen else 0), False)]
    module = SyncBatchNorm2d(channels, param.eps, torch_momentum(param.momentum), variance,
                             group)
    module.train(train and not frozen)

    def run(bottoms, params):
        x = bottoms[0]
        image = x if x.ndim == 4 else x.reshape(*x.shape, *[1] * (4 - x.ndim))
        if exact and linear.is_exact(image, *params):
            y = norm.batch_norm(image, *params, param.eps, module.training, param.momentum)
        else:
            y = _normalize(module, image, *params)
        return [y.view(x.shape)]

    return Built([shapes[0]], run, params)


def bn(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """Blobs: slope, bias, running mean, running variance, each (1, C, 1, 1); biased variance.

    With fields of caffe-segnet, its BN.
    """
    if segnet.is_segnet_bn(layer.bn_param):
        return segnet.bn(layer, shapes, train)
    return _bn(layer, shapes, train, "biased", LOCAL, exact=True, frozen=layer.bn_param.frozen)


def sync_bn(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """BN with the corrected variance, over all processes of torch.distributed.

    As in the original, `frozen` changes nothing: `warn_of_frozen` says so.
    """
    return _bn(layer, shapes, train, "unbiased", None, exact=False, frozen=False)


def warn_of_frozen(path: Path | str, layers: Iterable[LayerParameter]) -> None:
    """Warn of SyncBN layers that say `frozen: true`: the original's SyncBN does not read it."""
    names = [layer.name for layer in layers if layer.type == "SyncBN" and layer.bn_param.frozen]
    if names:
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        warnings.warn(f"{path}: layer {names[0]!r}{more}: SyncBN ignores frozen: true, as in the "
                      "original, and trains; to freeze the layer, write type: \"BN\"",
                      stacklevel=2)


def batch_norm(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """Blobs: sums of means (C) and of variances (C), and their weight (1); channels are axis 1.

    In training the batch normalizes with its biased variance, and each sum s becomes
    s * moving_average_fraction + new, with the unbiased variance. With fields of NVIDIA's Caffe,
    its BatchNorm; with four param fields besides, Xilinx's.
    """
    check_counts(layer, 1, 1)
    shape, param = shapes[0], layer.batch_norm_param
    check(len(shape) >= 1, "its bottom must have an axis")
    channels = shape[1] if len(shape) > 1 else 1
    _check_eps(param.eps)
    use_global = param.use_global_stats if param.HasField("use_global_stats") else not train
    update = not param.HasField("update_global_stats") or param.update_global_stats
    part = param.stats_batch_size
    check(use_global or not part or shape[0] <= part,
          f"statistics of each {part} images of a batch are not supported: give batches of at most "
          f"{part}, got {shape[0]}")
    if _is_nvidias(param) and len(layer.param) == 4 and not param.scale_bias:
        return _xilinxs(param, shape, channels, use_global)
    if _is_nvidias(param):
        return _nvidias(layer, shape, channels, train)
    module = SyncBatchNorm2d(channels, param.eps, 1.0, "torch", LOCAL)
    module.train(not use_global)

    def run(bottoms, params):
        x, (mean, var, factor) = bottoms[0].reshape(shape[0], channels, -1, 1), params
        one, zero = torch.ones_like(mean), torch.zeros_like(mean)
        if use_global:
            scale = torch.where(factor == 0, 0, 1 / factor)
            if linear.is_exact(x, *params):
                return [norm.standardize(x, mean * scale, var * scale, param.eps).view(shape)]
            return [_normalize(module, x, one, zero, mean * scale, var * scale).view(shape)]
        new = [torch.zeros_like(mean), torch.zeros_like(var)]
        output = _normalize(module, x, one, zero, *new)
        if update:
            with torch.no_grad():
                for total, value in zip((mean, var, factor), (*new, 1)):
                    total.mul_(param.moving_average_fraction).add_(value)
        return [output.view(shape)]

    intels = param.HasField("filler") or param.HasField("use_weight_bias") and param.use_weight_bias
    return Built([shape], run, _statistics(channels), assumption=_INTELS if intels else "")


def _statistics(channels):
    return [Param((size,), constant(0), False) for size in (channels, channels, 1)]


_INTELS = ("BatchNorm has fields of Intel's own engines; it is computed as by Caffe's engine, in "
           "which a Scale layer behind it has the scale and the bias")


def _is_nvidias(param):
    return (param.HasField("scale_bias") or param.HasField("scale_filler")
            or param.HasField("bias_filler") and not param.HasField("filler"))


def _nvidias(layer, shape, channels, train):
    """NVIDIA's BatchNorm: its last blobs are scale (C) and bias (C), if it has these. Mean and
    variance are those of the first two batches, then moving averages; their weight counts where it
    is not 0. In testing they are taken whatever use_global_stats says."""
    param = layer.batch_norm_param
    check(not (train and param.use_global_stats), "use_global_stats of NVIDIA's BatchNorm must not "
                                                  "be true in training: remove it")
    for spec in layer.param[3:]:
        # Scale and bias learn, whatever the file says: the original overwrites it.
        spec.lr_mult = spec.decay_mult = 1
    eps, fraction = max(param.eps, 1e-5), param.moving_average_fraction
    module = SyncBatchNorm2d(channels, eps, 1.0, "biased", LOCAL)
    module.train(train)
    state = {"passes": 0}
    own = [Param((channels,), filler_or(param, "scale_filler", 1)),
           Param((channels,), filler_or(param, "bias_filler", 0))]
    if not (param.scale_bias or param.HasField("scale_filler") or param.HasField("bias_filler")):
        own = []

    def run(bottoms, params):
        x, (mean, var, factor) = bottoms[0].reshape(shape[0], channels, -1, 1), params[:3]
        scale, bias = params[3:] or (torch.ones_like(mean), torch.zeros_like(mean))
        if not train:
            weight = torch.where(factor == 0, 1, factor)
            return [_normalize(module, x, scale, bias, mean / weight, var / weight).view(shape)]
        new = [torch.zeros_like(mean), torch.zeros_like(var)]
        output = _normalize(module, x, scale, bias, *new)
        with torch.no_grad():
            for average, value in zip((mean, var), new):
                average.lerp_(value, 1 - fraction if state["passes"] > 1 else 1.0)
        state["passes"] += 1
        return [output.view(shape)]

    return Built([shape], run, [*_statistics(channels), *own], state=state)


_XILINXS = ("BatchNorm with four param fields is taken for Xilinx's, whose blobs are scale, bias, "
            "mean and variance, the last two moving averages; NVIDIA's has five")


def _xilinxs(param, shape, channels, use_global):
    """Xilinx's BatchNorm; blobs: scale, bias, mean, variance, each (C)."""
    module = SyncBatchNorm2d(channels, param.eps, torch_momentum(param.moving_average_fraction),
                             "biased", LOCAL)
    module.train(not use_global)
    blobs = [Param((channels,), filler_or(param, "scale_filler", 1)),
             Param((channels,), filler_or(param, "bias_filler", 0)),
             Param((channels,), constant(0), False), Param((channels,), constant(1), False)]

    def run(bottoms, params):
        x = bottoms[0].reshape(shape[0], channels, -1, 1)
        return [_normalize(module, x, *params).view(shape)]

    return Built([shape], run, blobs, assumption=_XILINXS)


def _operand(layer, shapes, param, value):
    """(parameters, shape that broadcasts) of what a Scale or Bias layer applies to its bottom."""
    check_counts(layer, (1, 2), 1)
    shape = shapes[0]
    axis = 0 if len(shapes) == 2 and not shapes[1] else axis_index(param.axis, shape)
    if len(shapes) == 2:
        own = shapes[1]
    else:
        check(param.num_axes >= -1, f"num_axes must be at least -1, got {param.num_axes}")
        end = len(shape) if param.num_axes == -1 else axis + param.num_axes
        check(end <= len(shape), f"num_axes must fit into {shape} from axis {axis}, got "
                                 f"{param.num_axes}")
        own = shape[axis:end]
    check(axis + len(own) <= len(shape)
          and all(size in (1, whole) for size, whole in zip(own, shape[axis:])),
          f"its second bottom must have the sizes of {shape} from axis {axis}, or 1, got {own}")
    wide = (1,) * axis + own + (1,) * (len(shape) - axis - len(own))
    return ([] if len(shapes) == 2 else [Param(own, filler_or(param, "filler", value))]), own, wide


def scale(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """Bottom times a blob, or times a second bottom, from `axis` on; then a bias if asked for."""
    param = layer.scale_param
    params, own, wide = _operand(layer, shapes, param, 1)
    if param.bias_term:
        params.append(Param(own, filler_or(param, "bias_filler", 0)))

    def run(bottoms, blobs):
        factor, *bias = [*bottoms[1:], *blobs]
        output = bottoms[0] * factor.reshape(wide)
        return [output + bias[0].reshape(wide) if bias else output]

    return Built([shapes[0]], run, params)


def bias(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """Bottom plus a blob, or plus a second bottom, from `axis` on.

    In a fork: plus one number per channel, or one (`channel_shared`), at first 0.1.
    """
    param = layer.bias_param
    if param.HasField("channel_shared"):
        check_counts(layer, 1, 1)
        check(not param.HasField("axis") and not param.HasField("num_axes"),
              "channel_shared stands in place of axis and num_axes: give one of them")
        param = BiasParameter(num_axes=0 if param.channel_shared else 1,
                              filler=filler_or(param, "filler", 0.1))
    params, _, wide = _operand(layer, shapes, param, 0)

    def run(bottoms, blobs):
        return [bottoms[0] + [*bottoms[1:], *blobs][0].reshape(wide)]

    return Built([shapes[0]], run, params)
