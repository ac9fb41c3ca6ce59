"""What torch's dispatcher must know of the operators beside kernels: fakes, gradients, autocast."""

import torch
from torch._prims_common import suggest_memory_format

from pspnet_repro.ops import checks

_ops = torch.ops.pspnet


def _empty(like, shape):
    return torch.empty(shape, dtype=like.dtype, device=like.device,
                       memory_format=suggest_memory_format(like))


def _fake_window(input, kernel_size, stride, padding):
    checks.image(input, "input")
    out = checks.window_output_sizes(input.shape[2:], kernel_size, stride, padding)
    return _empty(input, (*input.shape[:2], *out))


def _fake_pyramid(input, bins):
    checks.image(input, "input")
    checks.bins(bins, *input.shape[2:])
    return [_empty(input, (*input.shape[:2], b, b)) for b in bins]


def _indices_like(output):
    return torch.empty_like(output, dtype=torch.int64)


def _fake_grad_input(grad_output, in_size, *_):
    return _empty(grad_output, (*grad_output.shape[:2], *in_size))


def _fake_interp(input, out_size, pad_begin, pad_end):
    checks.image(input, "input")
    checks.interp(input.shape[2:], out_size, pad_begin, pad_end)
    return _empty(input, (*input.shape[:2], *out_size))


def _fake_per_channel(input):
    dtype = torch.float64 if input.dtype == torch.float64 else torch.float32
    return input.new_empty(input.shape[1], dtype=dtype)


def register_fakes() -> None:
    def register(name, fake):
        torch.library.register_fake(f"pspnet::{name}", fake)

    register("window_avg_pool2d", _fake_window)
    register("window_avg_pool2d_backward", _fake_grad_input)

    def window_max(input, kernel_size, stride, padding):
        output = _fake_window(input, kernel_size, stride, padding)
        return output, _indices_like(output)

    register("window_max_pool2d", window_max)
    register("pyramid_avg_pool2d", _fake_pyramid)
    register("pyramid_avg_pool2d_backward",
             lambda grad_outputs, in_size, bins: _fake_grad_input(grad_outputs[0], in_size))

    def pyramid_max(input, bins):
        outputs = _fake_pyramid(input, bins)
        return outputs, [_indices_like(o) for o in outputs]

    register("pyramid_max_pool2d", pyramid_max)
    register("window_max_pool2d_backward",
             lambda grad_output, indices, in_size, kernel_size, stride, padding:
             _fake_grad_input(grad_output, in_size))
    register("pyramid_max_pool2d_backward",
             lambda grad_outputs, indices, in_size, bins:
             _fake_grad_input(grad_outputs[0], in_size))
    register("interp2d", _fake_interp)
    register("interp2d_backward", _fake_grad_input)
    register("batch_norm_statistics",
             lambda input: (_fake_per_channel(input), _fake_per_channel(input)))
    register("batch_norm_normalize",
             lambda input, mean, invstd, weight, bias, relu, residual=None:
             _empty(input, input.shape))
    register("batch_norm_combine",
             lambda means, sqdevs, counts, count, eps, unbiased, unbiased_running, momentum,
             running_mean, running_var:
             (torch.empty_like(running_mean), torch.empty_like(running_mean),
              means.new_empty((), dtype=torch.float64)))
    register("batch_norm_backward_residual",
             lambda grad_output, input, residual, mean, invstd, weight, bias:
             (_empty(input, input.shape), _fake_per_channel(input), _fake_per_channel(input)))
    register("batch_norm_backward_reduce",
             lambda grad_output, input, mean, invstd, weight, bias, relu:
             (_fake_per_channel(input), _fake_per_channel(input)))
    register("batch_norm_backward_elementwise",
             lambda grad_output, input, mean, invstd, weight, bias, mean_dy, mean_dy_xhat, relu:
             _empty(input, input.shape))
    register("caffe_sgd", lambda *_: None)
    register("scores", checks.scores)
    register("original_gemm", lambda a, b, sum=None: a.new_empty(a.shape[0], b.shape[1]))
    register("original_sum_rows", lambda a, alpha=1, sum=None: a.new_empty(a.shape[0]))
    register("original_sum_columns", lambda a, alpha=1, sum=None: a.new_empty(a.shape[1]))
    register("original_axpy", lambda y, x, alpha: None)
    for name in ("original_exp", "original_log"):
        register(name, lambda input: torch.empty_like(input))
    register("original_pow", lambda input, exponent: torch.empty_like(input))

    def winograd_tiles(input, matrix, dilation, first, count):
        checks.winograd_tiles(input, matrix, dilation, first, count)
        return input.new_empty(count, 36, input.shape[1])

    register("winograd_tiles", winograd_tiles)
    register("winograd_pixels", checks.winograd_pixels)


def register_gradients() -> None:
    def register(name, setup_context, backward):
        torch.library.register_autograd(f"pspnet::{name}", backward, setup_context=setup_context)

    def window_setup(ctx, inputs, output):
        input, ctx.kernel_size, ctx.stride, ctx.padding = inputs
        ctx.in_size = input.shape[2:]

    def window_avg_backward(ctx, grad_output):
        grad = _ops.window_avg_pool2d_backward(grad_output, ctx.in_size, ctx.kernel_size,
                                               ctx.stride, ctx.padding)
        return grad, None, None, None

    register("window_avg_pool2d", window_setup, window_avg_backward)

    def window_max_setup(ctx, inputs, output):
        window_setup(ctx, inputs, output)
        ctx.save_for_backward(output[1])
        ctx.mark_non_differentiable(output[1])

    def window_max_backward(ctx, grad_output, _):
        grad = _ops.window_max_pool2d_backward(grad_output, *ctx.saved_tensors, ctx.in_size,
                                               ctx.kernel_size, ctx.stride, ctx.padding)
        return grad, None, None, None

    register("window_max_pool2d", window_max_setup, window_max_backward)

    def pyramid_avg_setup(ctx, inputs, output):
        input, ctx.bins = inputs
        ctx.in_size = input.shape[2:]

    def pyramid_avg_backward(ctx, grad_outputs):
        return _ops.pyramid_avg_pool2d_backward(grad_outputs, ctx.in_size, ctx.bins), None

    register("pyramid_avg_pool2d", pyramid_avg_setup, pyramid_avg_backward)

    def pyramid_max_setup(ctx, inputs, output):
        pyramid_avg_setup(ctx, inputs, output)
        ctx.save_for_backward(*output[1])
        ctx.mark_non_differentiable(*output[1])

    def pyramid_max_backward(ctx, grad_outputs, _):
        return _ops.pyramid_max_pool2d_backward(grad_outputs, list(ctx.saved_tensors),
                                                ctx.in_size, ctx.bins), None

    register("pyramid_max_pool2d", pyramid_max_setup, pyramid_max_backward)

    def interp_setup(ctx, inputs, output):
        input, _, ctx.pad_begin, ctx.pad_end = inputs
        ctx.in_size = input.shape[2:]

    def interp_backward(ctx, grad_output):
        grad = _ops.interp2d_backward(grad_output, ctx.in_size, ctx.pad_begin, ctx.pad_end)
        return grad, None, None, None

    register("interp2d", interp_setup, interp_backward)


def register_autocast() -> None:
    # Batch normalization needs none: it takes half input with float32 parameters as it is.
    for device in ("cpu", "cuda"):
        torch.library.register_autocast("pspnet::interp2d", device, torch.float32)
