"""The operators again in slow, plain torch: the specification that the fast ones are tested by.

Every function is differentiable by autograd, except where the original's gradient is not the
derivative of its forward pass; those gradients are written out. Set PSPNET_OPS=reference to run
the whole program on these.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F

FLT_MAX = torch.finfo(torch.float32).max


def window_output_size(size: int, kernel: int, stride: int, padding: int, padded: bool) -> int:
    """Number of windows along one axis; `padded`: an axis has padding. Source: Pooling layer."""
    out = -((kernel - size - 2 * padding) // stride) + 1
    if padded and (out - 1) * stride >= size + padding:
        out -= 1
    return out


def window_ranges(size: int, kernel: int, stride: int, padding: int,
                  padded: bool) -> list[tuple[int, int, int]]:
    """(begin, end, extent) of every window along one axis. Source: Pooling layer."""
    ranges = []
    for i in range(window_output_size(size, kernel, stride, padding, padded)):
        begin = i * stride - padding
        end = min(begin + kernel, size + padding)
        ranges.append((max(begin, 0), min(end, size), end - begin))
    return ranges


def bin_ranges(size: int, bins: int) -> list[tuple[int, int, int]]:
    """(begin, end, extent) of every pyramid bin along one axis."""
    ranges = [(i * size // bins, -(-(i + 1) * size // bins)) for i in range(bins)]
    return [(begin, end, end - begin) for begin, end in ranges]


def _pool(input, rows, cols, mode):
    work = input.to(torch.promote_types(input.dtype, torch.float32))
    cells = []
    for top, bottom, height in rows:
        for left, right, width in cols:
            window = work[:, :, top:bottom, left:right].flatten(2)
            if mode == "ave":
                cells.append(window.sum(2) / (height * width))
            else:
                cells.append(window.max(2).values.clamp(min=-FLT_MAX))
    return torch.stack(cells, 2).unflatten(2, (len(rows), len(cols))).to(input.dtype)


def window_pool2d(input: torch.Tensor, kernel_size: Sequence[int], stride: Sequence[int],
                  padding: Sequence[int], mode: str) -> torch.Tensor:
    """See ops.window_pool2d; sizes are pairs."""
    padded = padding[0] != 0 or padding[1] != 0
    rows, cols = (window_ranges(input.shape[2 + a], kernel_size[a], stride[a], padding[a], padded)
                  for a in (0, 1))
    return _pool(input, rows, cols, mode)


def pyramid_pool2d(input: torch.Tensor, bins: Sequence[int], mode: str) -> tuple[torch.Tensor, ...]:
    """See ops.pyramid_pool2d."""
    return tuple(_pool(input, bin_ranges(input.shape[2], b), bin_ranges(input.shape[3], b), mode)
                 for b in bins)


def interp_matrix(in_size: int, out_size: int, dtype: torch.dtype,
                  device: torch.device) -> torch.Tensor:
    """(out_size, in_size) weights of corner-aligned interpolation, positions in float32."""
    ratio = torch.tensor(0.0)
    if out_size > 1:
        ratio = torch.tensor(float(in_size - 1)) / torch.tensor(float(out_size - 1))
    position = ratio * torch.arange(out_size, dtype=torch.float32)
    low = position.long()
    high = (low + 1).clamp(max=in_size - 1)
    weight = (position - low).to(dtype)
    matrix = torch.zeros(out_size, in_size, dtype=dtype)
    index = torch.arange(out_size)
    matrix[index, low] += 1 - weight
    matrix[index, high] += weight
    return matrix.to(device)


def interp2d(input: torch.Tensor, out_size: Sequence[int], pad_begin: int,
             pad_end: int) -> torch.Tensor:
    """See ops.interp2d."""
    h, w = input.shape[2:]
    work = input.to(torch.promote_types(input.dtype, torch.float32))
    work = work[:, :, -pad_begin:h + pad_end, -pad_begin:w + pad_end]
    rows = interp_matrix(work.shape[2], out_size[0], work.dtype, work.device)
    cols = interp_matrix(work.shape[3], out_size[1], work.dtype, work.device)
    return (rows @ work @ cols.T).to(input.dtype)


def _per_channel(values):
    return values.view(1, -1, 1, 1)


def batch_norm_statistics(input: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """See ops.batch_norm_statistics."""
    work = input.to(torch.promote_types(input.dtype, torch.float32))
    mean = work.mean((0, 2, 3))
    return mean, ((work - _per_channel(mean)) ** 2).sum((0, 2, 3))


def batch_norm_normalize(input: torch.Tensor, mean: torch.Tensor, invstd: torch.Tensor,
                         weight: torch.Tensor, bias: torch.Tensor, relu: bool,
                         residual: torch.Tensor | None = None) -> torch.Tensor:
    """See ops.batch_norm_normalize."""
    scaled = (input - _per_channel(mean)) * _per_channel(invstd * weight)
    output = scaled + _per_channel(bias)
    if residual is not None:
        output = output + residual
    output = output.to(input.dtype)
    return output.relu() if relu else output


def batch_norm_combine(means: torch.Tensor, sqdevs: torch.Tensor, counts: torch.Tensor | None,
                       count: int, eps: float, unbiased: bool, unbiased_running: bool,
                       momentum: float, running_mean: torch.Tensor, running_var: torch.Tensor
                       ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """See ops.batch_norm_combine."""
    mean, sqdev, total = means[0], sqdevs[0], means.new_tensor(count, dtype=torch.float64)
    if counts is not None:
        total = counts.double().sum()
        mean = (counts[:, None] * means).sum(0) / total
        sqdev = (sqdevs + counts[:, None] * (means - mean) ** 2).sum(0)
    corrected = (total - 1).clamp(min=1)
    var = sqdev / (corrected if unbiased else total)
    running_mean.lerp_(mean.to(running_mean.dtype), momentum)
    running_var.lerp_((sqdev / corrected if unbiased_running else var).to(running_var.dtype),
                      momentum)
    return mean.to(running_mean.dtype), (var + eps).rsqrt().to(running_mean.dtype), total


def _before_relu(grad_output, input, mean, invstd, weight, bias, relu, residual=None):
    grad = grad_output.to(mean.dtype)
    if not relu:
        return grad
    output = batch_norm_normalize(input, mean, invstd, weight, bias, False, residual)
    return grad.masked_fill(output <= 0, 0)


def batch_norm_backward_residual(
        grad_output: torch.Tensor, input: torch.Tensor, residual: torch.Tensor, mean: torch.Tensor,
        invstd: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor
        ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """See ops.batch_norm_backward_residual."""
    norm = mean, invstd, weight, bias
    grad = _before_relu(grad_output, input, *norm, True, residual).to(grad_output.dtype)
    return grad, *batch_norm_backward_reduce(grad, input, *norm, False)


def batch_norm_backward_reduce(grad_output: torch.Tensor, input: torch.Tensor, mean: torch.Tensor,
                               invstd: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor,
                               relu: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """See ops.batch_norm_backward_reduce."""
    grad = _before_relu(grad_output, input, mean, invstd, weight, bias, relu)
    xhat = (input - _per_channel(mean)) * _per_channel(invstd)
    return grad.sum((0, 2, 3)), (grad * xhat).sum((0, 2, 3))


def batch_norm_backward_elementwise(grad_output: torch.Tensor, input: torch.Tensor,
                                    mean: torch.Tensor, invstd: torch.Tensor, weight: torch.Tensor,
                                    bias: torch.Tensor, mean_dy: torch.Tensor,
                                    mean_dy_xhat: torch.Tensor, relu: bool) -> torch.Tensor:
    """See ops.batch_norm_backward_elementwise."""
    grad = _before_relu(grad_output, input, mean, invstd, weight, bias, relu)
    xhat = (input - _per_channel(mean)) * _per_channel(invstd)
    centred = grad - _per_channel(mean_dy) - xhat * _per_channel(mean_dy_xhat)
    return (centred * _per_channel(weight * invstd)).to(grad_output.dtype)


def scores(canvas: torch.Tensor, logits: torch.Tensor, mirrored: torch.Tensor | None,
           tops: Sequence[int], lefts: Sequence[int], out_size: Sequence[int]) -> None:
    """See ops.scores."""
    wide = torch.promote_types(logits.dtype, torch.float32)
    total = interp2d(logits.to(wide), out_size, 0, 0)
    if mirrored is not None:
        total = total + interp2d(mirrored.to(wide), out_size, 0, 0).flip(3)
    probabilities = torch.softmax(total, 1)
    for window, top, left in zip(probabilities, tops, lefts):
        rows, cols = (slice(max(-start, 0), max(min(size, canvas_size - start), 0))
                      for start, size, canvas_size in zip((top, left), out_size, canvas.shape[1:]))
        place = canvas[:, max(top, 0):, max(left, 0):]
        part = window[:, rows, cols]
        place[:, :part.shape[1], :part.shape[2]] += part


def _winograd_grid(tensor, dilation):
    """Tiles an image by axis."""
    return [-(-size // (4 * dilation)) for size in tensor.shape[2:]]


def winograd_tiles(input: torch.Tensor, matrix: torch.Tensor, dilation: int, first: int,
                   count: int) -> torch.Tensor:
    """See ops.winograd_tiles."""
    ends = [dilation * (4 * tiles + 1) - size
            for tiles, size in zip(_winograd_grid(input, dilation), input.shape[2:])]
    padded = F.pad(input, (dilation, ends[1], dilation, ends[0]))
    # (N, C, rows, phase, columns, phase), then six of each four rows and columns.
    steps = padded.unflatten(3, (-1, dilation)).unflatten(2, (-1, dilation))
    tiles = steps.unfold(2, 6, 4).unfold(4, 6, 4).permute(0, 3, 5, 2, 4, 6, 7, 1)
    tiles = tiles.reshape(-1, 6, 6, input.shape[1])[first:first + count]
    if matrix.shape[1] == 4:
        tiles = tiles[:, 1:5, 1:5]
    return torch.einsum("ij,tjkc,lk->tilc", matrix, tiles, matrix).flatten(1, 2)


def winograd_pixels(output: torch.Tensor, products: torch.Tensor, matrix: torch.Tensor,
                    bias: torch.Tensor, dilation: int, first: int, add: bool, relu: bool) -> None:
    """See ops.winograd_pixels."""
    rows, cols = _winograd_grid(output, dilation)
    tiles = torch.einsum("ij,tjkc,lk->tilc", matrix, products.unflatten(1, (6, 6)), matrix) + bias
    grid = output.shape[0], dilation, dilation, rows, cols
    everything = output.new_zeros(math.prod(grid), 4, 4, output.shape[1])
    named = torch.zeros_like(everything, dtype=torch.bool)
    everything[first:first + len(tiles)], named[first:first + len(tiles)] = tiles, True
    values, named = (
        flat.unflatten(0, grid).permute(0, 7, 3, 5, 1, 4, 6, 2).flatten(5, 7).flatten(2, 4)[
            :, :, :output.shape[2], :output.shape[3]] for flat in (everything, named))
    if add:
        values = output + values
    output.copy_(torch.where(named, values.relu() if relu else values, output))
