"""Argument checks: of the operators by the rules and in the words of csrc/checks.h; of crops."""

from collections.abc import Sequence

import torch

from pspnet_repro.ops.reference import window_output_size

# As in csrc/checks.h.
MAX_KERNEL = 2 ** 20
MAX_INTERP_SIZE = 2 ** 24


def _check(condition, message):
    torch._check(condition, lambda: message)


def image(tensor: torch.Tensor, name: str) -> None:
    _check(tensor.dim() == 4, f"{name} must be 4-D (N, C, H, W), got {tensor.dim()}-D")
    _check(tensor.is_floating_point(),
           f"{name} must be float16, bfloat16, float32 or float64, got {tensor.dtype}")
    h, w = tensor.shape[2:]
    _check(h > 0 and w > 0, f"{name} must have at least one pixel, got H, W = {h}, {w}")


def window_output_sizes(size: Sequence[int], kernel: Sequence[int], stride: Sequence[int],
                        padding: Sequence[int]) -> list[int]:
    """The checked output's [rows, columns]."""
    for value, name, least in ((kernel, "kernel_size", 1), (stride, "stride", 1),
                               (padding, "padding", 0)):
        _check(len(value) == 2, f"{name} must be 2 numbers (rows, columns), got {len(value)}")
        _check(value[0] >= least and value[1] >= least,
               f"{name} must be at least {least}, got {value[0]}, {value[1]}")
    _check(kernel[0] <= MAX_KERNEL and kernel[1] <= MAX_KERNEL,
           f"kernel_size must be at most {MAX_KERNEL}, got {kernel[0]}, {kernel[1]}")
    padded = padding[0] != 0 or padding[1] != 0
    result = []
    for s, k, d, p, side in zip(size, kernel, stride, padding, ("height", "width")):
        _check(p < k, f"padding must be less than kernel_size {k}, got {p}")
        out = window_output_size(s, k, d, p, padded)
        _check(out > 0, f"kernel_size must give at least one window over the input's {side} {s}, "
                        f"got {k}")
        _check((out - 1) * d - p < s, f"stride must leave no window outside the input's {side} "
                                      f"{s}, got {d} with kernel_size {k}")
        result.append(out)
    return result


def bins(bins: Sequence[int], h: int, w: int) -> None:
    _check(len(bins) > 0, "bins must name at least one level, got none")
    for b in bins:
        _check(b >= 1, f"bins must be at least 1, got {b}")
        _check(b <= h, f"bins must be at most the input's height {h}, got {b}")
        _check(b <= w, f"bins must be at most the input's width {w}, got {b}")


def interp(size: Sequence[int], out_size: Sequence[int], pad_begin: int, pad_end: int) -> None:
    _check(len(out_size) == 2, f"out_size must be 2 numbers (rows, columns), got {len(out_size)}")
    _check(out_size[0] >= 1 and out_size[1] >= 1,
           f"out_size must be at least 1, got {out_size[0]}, {out_size[1]}")
    _check(pad_begin <= 0, f"pad_begin must be at most 0 (it crops), got {pad_begin}")
    _check(pad_end <= 0, f"pad_end must be at most 0 (it crops), got {pad_end}")
    for s, o, side in zip(size, out_size, ("height", "width")):
        _check(s <= MAX_INTERP_SIZE and o <= MAX_INTERP_SIZE,
               f"input and out_size must be at most {MAX_INTERP_SIZE} pixels a side, got {side} "
               f"{s} and {o}")
        _check(s + pad_begin + pad_end > 0, f"pad_begin {pad_begin} and pad_end {pad_end} must "
                                            f"leave a pixel of the input's {side} {s}")


def _winograd(tensor, name, dilation, first, count):
    _check(tensor.dtype == torch.float32, f"{name} must be float32, got {tensor.dtype}")
    _check(tensor.shape[1] % 16 == 0,
           f"{name} must have a multiple of 16 channels, got {tensor.shape[1]}")
    _check(1 <= dilation <= MAX_KERNEL, f"dilation must be 1 to {MAX_KERNEL}, got {dilation}")
    rows, cols = ((size + 4 * dilation - 1) // (4 * dilation) for size in tensor.shape[2:])
    tiles = tensor.shape[0] * dilation ** 2 * rows * cols
    _check(first >= 0 and count >= 0 and first + count <= tiles,
           f"first and count must lie within the {tiles} tiles, got {first} and {count}")


def _winograd_matrix(matrix, rows, cols):
    _check(matrix.dim() == 2 and matrix.shape == (rows, cols) and matrix.dtype == torch.float32
           and matrix.device.type == "cpu",
           f"matrix must be ({rows}, {cols}) float32 on the CPU, got {list(matrix.shape)}, "
           f"{matrix.dtype} on {matrix.device}")


def winograd_tiles(input: torch.Tensor, matrix: torch.Tensor, dilation: int, first: int,
                   count: int) -> None:
    image(input, "input")
    _winograd(input, "input", dilation, first, count)
    _winograd_matrix(matrix, 6, 4 if matrix.dim() == 2 and matrix.shape[1] == 4 else 6)


def winograd_pixels(output: torch.Tensor, products: torch.Tensor, matrix: torch.Tensor,
                    bias: torch.Tensor, dilation: int, first: int, add: bool, relu: bool) -> None:
    image(output, "output")
    _check(output.is_contiguous(memory_format=torch.channels_last),
           f"output must be channels last, got strides {list(output.stride())}")
    channels = output.shape[1]
    _check(products.dim() == 3 and products.shape[1:] == (36, channels),
           f"products must be (count, 36, channels) with the output's {channels} channels, got "
           f"shape {list(products.shape)}")
    _check(products.dtype == output.dtype,
           f"products must be {output.dtype}, got {products.dtype}")
    _check(bias.shape == (channels,), f"bias must have shape [{channels}], got "
                                      f"{list(bias.shape)}")
    _check(bias.dtype == output.dtype, f"bias must be {output.dtype}, got {bias.dtype}")
    _winograd(output, "output", dilation, first, products.shape[0])
    _winograd_matrix(matrix, 4, 6)


def scores(canvas: torch.Tensor, logits: torch.Tensor, mirrored: torch.Tensor | None,
           tops: Sequence[int], lefts: Sequence[int], out_size: Sequence[int]) -> None:
    image(logits, "logits")
    interp(logits.shape[2:], out_size, 0, 0)
    _check(canvas.dim() == 3 and canvas.shape[0] == logits.shape[1],
           f"canvas must be (classes, H, W) with the logits' {logits.shape[1]} classes, got shape "
           f"{list(canvas.shape)}")
    _check(canvas.dtype == torch.float32 and canvas.is_contiguous(),
           f"canvas must be float32 and contiguous, got {canvas.dtype}, strides "
           f"{list(canvas.stride())}")
    _check(canvas.device == logits.device,
           f"canvas must be on {logits.device}, got {canvas.device}")
    if mirrored is not None:
        _check(mirrored.shape == logits.shape, f"mirrored must have shape {list(logits.shape)}, "
                                               f"got {list(mirrored.shape)}")
        _check(mirrored.device == logits.device,
               f"mirrored must be on {logits.device}, got {mirrored.device}")
        _check(mirrored.dtype == logits.dtype,
               f"mirrored must be {logits.dtype}, got {mirrored.dtype}")
    _check(len(tops) == len(lefts) == logits.shape[0],
           f"tops and lefts must have a number for each of the {logits.shape[0]} windows, got "
           f"{len(tops)} and {len(lefts)}")
    for start in (*tops, *lefts):
        _check(-MAX_INTERP_SIZE <= start <= MAX_INTERP_SIZE,
               f"tops and lefts must be within +-{MAX_INTERP_SIZE} pixels, got {start}")


def crop(sizes: Sequence[int], stride: int, bins: Sequence[int], any_size: bool = False) -> None:
    """Raise ValueError unless each size in pixels is stride * k + 1, or `any_size`, and holds all
    bins."""
    for size in sizes:
        if size < 1 or (size - 1) % stride and not any_size:
            raise ValueError(f"crop sizes must be {stride} * k + 1 pixels, got {size}")
        features = (size - 1) // stride + 1
        if max(bins, default=0) > features:
            raise ValueError(f"bins must be at most the {features} pixels of a crop of {size}'s "
                             f"feature map, got {max(bins)}")
