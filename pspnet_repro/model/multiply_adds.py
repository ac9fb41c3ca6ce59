"""Multiply-adds of a pass, counted from shapes."""

import math
from collections.abc import Callable, Mapping

import torch
from torch._subclasses import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from pspnet_repro.model.pspnet import PSPNet

_ops = torch.ops.pspnet


def _window(input, kernel_size, stride, padding, out_shape):
    # Maxima come with their positions.
    output = out_shape if isinstance(out_shape[0], int) else out_shape[0]
    return math.prod(output) * math.prod(kernel_size)


def _formulas():
    """Multiply-adds of our operators; an addition or a comparison alone counts as one."""
    return {
        _ops.window_avg_pool2d: _window,
        _ops.window_max_pool2d: _window,
        _ops.pyramid_avg_pool2d: lambda input, bins, out_shape: math.prod(input) * len(bins),
        _ops.pyramid_max_pool2d: lambda input, bins, out_shape: math.prod(input) * len(bins),
        _ops.interp2d: lambda input, out_size, begin, end, out_shape: 4 * math.prod(out_shape),
        _ops.batch_norm_statistics: lambda input, out_shape: 2 * math.prod(input),
        _ops.batch_norm_normalize: lambda input, *rest, out_shape: math.prod(input),
    }


def multiply_adds(function: Callable[..., object], *inputs: object) -> dict[str, int]:
    """Count the multiply-adds of function(*inputs): convolutions, matrix products, our operators.

    Convolutions and products count as torch.utils.flop_counter says, borders included; sums,
    activations and copies of torch count nothing. Only shapes matter: under
    torch._subclasses.FakeTensorMode nothing is computed and no memory is needed.

    Returns:
        {the operator's name: its multiply-adds}.
    """
    # That counter means two operations where we mean one multiply-add.
    twice = {op: lambda *args, formula=formula, out_shape=None, **kwargs:
             2 * formula(*args, out_shape=out_shape, **kwargs)
             for op, formula in _formulas().items()}
    with FlopCounterMode(display=False, custom_mapping=twice) as counter:
        function(*inputs)
    counts = counter.get_flop_counts().get("Global", {})
    return {str(op): count // 2 for op, count in counts.items()}


def logits_multiply_adds(settings: Mapping[str, object], crop_size: int,
                         training: bool = False) -> int:
    """Multiply-adds of the logits of one crop, of so many pixels a side, by PSPNet(**settings), in
    training mode if asked for; nothing is computed."""
    with FakeTensorMode():
        net = PSPNet(**settings).train(training)
        return sum(multiply_adds(net.logits, torch.empty(1, 3, crop_size, crop_size)).values())
