"""The public operators; register.py holds their fake implementations and gradients.

The compiled extension must be there; PSPNET_OPS=reference asks for the slow specification of
reference.py instead.
"""

import os
from collections.abc import Sequence

import torch

from pspnet_repro.errors import UserError
from pspnet_repro.ops import checks, reference, register
from pspnet_repro.ops.extension import load_extension
from pspnet_repro.words import check_choice

_CHOICE = os.environ.get("PSPNET_OPS") or "compiled"
if _CHOICE not in ("compiled", "reference"):
    raise UserError(f"PSPNET_OPS must be reference, or not be set, got {_CHOICE}")
USE_REFERENCE = _CHOICE == "reference"


if not USE_REFERENCE:
    load_extension()
_ops = torch.ops.pspnet


def _pair(value):
    return [value, value] if isinstance(value, (int, torch.SymInt)) else list(value)


def _run(name, *arguments, check=None):
    """The compiled operator of a name, which checks its arguments, or its specification."""
    if USE_REFERENCE and check is not None:
        check(*arguments)
    return getattr(reference if USE_REFERENCE else _ops, name)(*arguments)


def window_pool2d(input: torch.Tensor, kernel_size: int | Sequence[int],
                  stride: int | Sequence[int], padding: int | Sequence[int] = 0,
                  mode: str = "ave") -> torch.Tensor:
    """Pool over sliding windows by the original's rule (Caffe's Pooling).

    ceil((H + 2 * padding - kernel_size) / stride) + 1 rows; with padding, a last window that would
    start behind the padded image is dropped. "ave" divides by the window's area clipped to the
    padded image, "max" takes the first maximum (a NaN wins).

    Args:
        input: (N, C, H, W), float16, bfloat16, float32 or float64, any strides.
        kernel_size, stride, padding: pixels, a number or (rows, columns); padding < kernel_size.
        mode: "ave" or "max".
    Returns:
        (N, C, H_out, W_out), dtype, device and memory format of `input`.
    Raises:
        RuntimeError: `input` is not 4-D or empty, a size is out of range, or a window would lie
            outside the image.
        ValueError: another `mode`.

    Sums run in row order in float32 (float64 for float64): float32 gives the original's bits in
    both directions. Source: the Pooling layer.
    """
    check_choice("mode", mode, ("ave", "max"))
    kernel_size, stride, padding = _pair(kernel_size), _pair(stride), _pair(padding)
    if USE_REFERENCE:
        checks.image(input, "input")
        checks.window_output_sizes(input.shape[2:], kernel_size, stride, padding)
        return reference.window_pool2d(input, kernel_size, stride, padding, mode)
    if mode == "ave":
        return _ops.window_avg_pool2d(input, kernel_size, stride, padding)
    return _ops.window_max_pool2d(input, kernel_size, stride, padding)[0]


def pyramid_pool2d(input: torch.Tensor, bins: Sequence[int] = (1, 2, 3, 6),
                   mode: str = "ave") -> tuple[torch.Tensor, ...]:
    """Pool into square grids of bins, one grid a level, in one pass over the input.

    Bin i of b covers rows floor(i * H / b) to ceil((i + 1) * H / b); where b divides H these are
    the windows of the released networks.

    Args:
        input: (N, C, H, W), float16, bfloat16, float32 or float64, any strides.
        bins: bins a side of each level, from 1 to min(H, W).
        mode: "ave" or "max".
    Returns:
        A tuple of (N, C, b, b), one for each b of `bins`.
    Raises:
        RuntimeError: `input` is not 4-D or empty, or a level has more bins than rows or columns.
        ValueError: another `mode`.

    Sums run in row order in float32 (float64 for float64). Source: paper, 3.2; the rule for sizes
    that bins do not divide is ours.
    """
    check_choice("mode", mode, ("ave", "max"))
    bins = list(bins)
    if USE_REFERENCE:
        checks.image(input, "input")
        checks.bins(bins, *input.shape[2:])
        return reference.pyramid_pool2d(input, bins, mode)
    if mode == "ave":
        return tuple(_ops.pyramid_avg_pool2d(input, bins))
    return tuple(_ops.pyramid_max_pool2d(input, bins)[0])


def bin_avg_pool2d(input: torch.Tensor, bins: int) -> torch.Tensor:
    """One level of `pyramid_pool2d` with mode "ave": (N, C, H, W) -> (N, C, bins, bins)."""
    return pyramid_pool2d(input, (bins,), "ave")[0]


def bin_max_pool2d(input: torch.Tensor, bins: int) -> torch.Tensor:
    """One level of `pyramid_pool2d` with mode "max": (N, C, H, W) -> (N, C, bins, bins)."""
    return pyramid_pool2d(input, (bins,), "max")[0]


def interp2d(input: torch.Tensor, out_size: Sequence[int], pad_begin: int = 0,
             pad_end: int = 0) -> torch.Tensor:
    """Resize bilinearly, corner pixels onto corner pixels (Caffe's Interp).

    Output row i reads input row i * (H - 1) / (H_out - 1), computed in float32 for every dtype; a
    one-pixel output reads row 0; equal sizes copy.

    Args:
        input: (N, C, H, W), float16, bfloat16, float32 or float64, any strides.
        out_size: (H_out, W_out) in pixels, each at least 1.
        pad_begin, pad_end: pixels, at most 0; negative values crop the input first.
    Returns:
        (N, C, H_out, W_out), dtype, device and memory format of `input`; sums in float32 (float64
        for float64).
    Raises:
        RuntimeError: `input` is not 4-D, is empty after cropping, or a size is below 1.

    Deterministic in both directions; float32 on the CPU gives the original's bits. Under autocast
    half input is computed and returned in float32. Source: the Interp layer.
    """
    out_size = list(out_size)
    if USE_REFERENCE:
        checks.image(input, "input")
        checks.interp(input.shape[2:], out_size, pad_begin, pad_end)
    return _run("interp2d", input, out_size, pad_begin, pad_end)


def batch_norm_statistics(input: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and sum of squared deviations of each channel over N, H and W.

    Args:
        input: (N, C, H, W), any floating dtype and strides, N * H * W at least 1.
    Returns:
        (mean, sqdev), each (C,): float64 for float64 input, else float32.

    Not differentiable by itself: sync_bn.py holds the gradient of the whole.
    """
    return _run("batch_norm_statistics", input)


def batch_norm_normalize(input: torch.Tensor, mean: torch.Tensor, invstd: torch.Tensor,
                         weight: torch.Tensor, bias: torch.Tensor, relu: bool = False,
                         residual: torch.Tensor | None = None) -> torch.Tensor:
    """(input - mean) * invstd * weight + bias, channel by channel, plus `residual`, and the ReLU.

    Args:
        input: (N, C, H, W).
        mean, invstd, weight, bias: (C,), float64 for float64 input, else float32.
        relu: negative results become 0; a NaN stays.
        residual: None, or shape and dtype of `input`.
    Returns:
        (N, C, H, W), dtype and memory format of `input`.
    """
    return _run("batch_norm_normalize", input, mean, invstd, weight, bias, relu, residual)


def batch_norm_combine(means: torch.Tensor, sqdevs: torch.Tensor, counts: torch.Tensor | None,
                       count: int, eps: float, unbiased: bool, unbiased_running: bool,
                       momentum: float, running_mean: torch.Tensor, running_var: torch.Tensor
                       ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What normalizes a batch, from the statistics of processes that share it.

    Args:
        means, sqdevs: (P, C), of `batch_norm_statistics`, float32 or float64.
        counts: (P,), the same dtype: elements a channel in each process; None for one process.
        count: elements a channel where `counts` is None.
        eps: added to the variance.
        unbiased, unbiased_running: whether the variance that normalizes, and the one to remember,
            is divided by the elements less one.
        momentum: weight of the new value.
        running_mean, running_var: (C,), float32 or float64; changed in place.
    Returns:
        mean and invstd, (C,), dtype of the running values; the elements of all, () float64.
    """
    return _run("batch_norm_combine", means, sqdevs, counts, count, eps, unbiased,
                unbiased_running, momentum, running_mean, running_var)


def batch_norm_backward_reduce(grad_output: torch.Tensor, input: torch.Tensor, mean: torch.Tensor,
                               invstd: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor,
                               relu: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """The two sums that BN's backward needs: of dy, and of dy * xhat, over N, H and W.

    Args:
        grad_output, input: (N, C, H, W), the same dtype.
        mean, invstd, weight, bias: (C,) as in the forward pass.
        relu: as in the forward pass; dy is 0 where the ReLU gave 0.
    Returns:
        (sum_dy, sum_dy_xhat), each (C,), dtype of `mean`; xhat = (input - mean) * invstd.
    """
    return _run("batch_norm_backward_reduce", grad_output, input, mean, invstd, weight, bias, relu)


def batch_norm_backward_residual(
        grad_output: torch.Tensor, input: torch.Tensor, residual: torch.Tensor, mean: torch.Tensor,
        invstd: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor
        ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The gradient of `residual` in `batch_norm_normalize` with a ReLU, and the sums that BN needs.

    Args: as in `batch_norm_backward_reduce`, and residual: (N, C, H, W), dtype of `input`.
    Returns:
        (grad_residual, sum_dy, sum_dy_xhat): dy, which is 0 where the ReLU gave 0, and its sums.
    """
    return _run("batch_norm_backward_residual", grad_output, input, residual, mean, invstd, weight,
                bias)


def batch_norm_backward_elementwise(grad_output: torch.Tensor, input: torch.Tensor,
                                    mean: torch.Tensor, invstd: torch.Tensor, weight: torch.Tensor,
                                    bias: torch.Tensor, mean_dy: torch.Tensor,
                                    mean_dy_xhat: torch.Tensor, relu: bool = False) -> torch.Tensor:
    """weight * invstd * (dy - mean_dy - xhat * mean_dy_xhat), dy as in the sums.

    Args:
        grad_output, input, mean, invstd, weight, bias, relu: as in `batch_norm_backward_reduce`.
        mean_dy, mean_dy_xhat: (C,), the sums of `batch_norm_backward_reduce` over all processes,
            divided by the number of elements a channel.
    Returns:
        The gradient of the input, (N, C, H, W).
    """
    return _run("batch_norm_backward_elementwise", grad_output, input, mean, invstd, weight, bias,
                mean_dy, mean_dy_xhat, relu)


def scores(canvas: torch.Tensor, logits: torch.Tensor, mirrored: torch.Tensor | None,
           tops: Sequence[int], lefts: Sequence[int], out_size: Sequence[int]) -> None:
    """Add the class probabilities of a batch of windows to a canvas, in place.

    canvas[:, top:top + h, left:left + w] += softmax(up(logits) + flip(up(mirrored))), window after
    window, where up is `interp2d` to (h, w) = out_size; what sticks out of the canvas is dropped.

    Args:
        canvas: (classes, H, W) float32, contiguous.
        logits: (N, classes, h', w'), float16, bfloat16, float32 or float64, any strides.
        mirrored: logits of the mirrored windows, shape and dtype of `logits`; or None.
        tops, lefts: N numbers each, pixels; windows may start outside the canvas.
        out_size: (h, w) of the windows in pixels, each at least 1.
    Raises:
        RuntimeError: an argument is not as above.

    In float32, in one pass that holds no full-size logits; the same bits whatever the threads. Not
    differentiable. Where the map's positions are no exact float32 (sizes other than 8k + 1 and
    their like), those of `mirrored` are the other side's. Source: Interp and Softmax layers, the
    evaluation script.
    """
    return _run("scores", canvas, logits, mirrored, list(tops), list(lefts), list(out_size),
                check=checks.scores)


def winograd_tiles(input: torch.Tensor, matrix: torch.Tensor, dilation: int, first: int,
                   count: int) -> torch.Tensor:
    """6x6 pixels of each of some 4x4 tiles of outputs of a 3x3 kernel, times a matrix: M d M^T.

    With a matrix of 4 columns the 4x4 pixels of the tiles themselves.

    Tiles are numbered image by image; within one, for each of the dilation^2 images of every
    dilation-th pixel in turn, row by row, ceil(ceil(H / dilation) / 4) rows of them. Pixels outside
    of the image are 0: the padding is the dilation.

    Args:
        input: (N, C, H, W) float32, C a multiple of 16, any strides.
        matrix: (6, 6) or (6, 4) float32.
        dilation: pixels.
        first, count: which tiles.
    Returns:
        (count, 36, C) float32.
    Raises:
        RuntimeError: an argument is not as above.

    CPU only, not differentiable. Source: see winograd.py.
    """
    return _run("winograd_tiles", input, matrix, dilation, first, count,
                check=checks.winograd_tiles)


def winograd_pixels(output: torch.Tensor, products: torch.Tensor, matrix: torch.Tensor,
                    bias: torch.Tensor, dilation: int, first: int, add: bool, relu: bool) -> None:
    """Write tiles of 4x4 outputs onto an image, in place: M p M^T + bias for each 6x6 products p.

    Args:
        output: (N, O, H, W) float32, O a multiple of 16, channels last; of tiles that are not
            named nothing is touched, what sticks out of the image is dropped.
        products: (count, 36, O) float32, of the tiles from `first` on; see `winograd_tiles`.
        matrix: (4, 6) float32.
        bias: (O,) float32.
        add: add to what is there.
        relu: of the sum.
    Raises:
        RuntimeError: an argument is not as above.

    CPU only, not differentiable. Source: see winograd.py.
    """
    return _run("winograd_pixels", output, products, matrix, bias, dilation, first, add, relu,
                check=checks.winograd_pixels)


if not USE_REFERENCE:
    register.register_fakes()
    register.register_gradients()
    register.register_autocast()
