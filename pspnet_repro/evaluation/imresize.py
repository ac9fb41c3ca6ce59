"""MATLAB's imresize, bilinear: the resize of the authors' evaluation scripts."""

from collections.abc import Iterator

import numpy as np

from pspnet_repro.data.conventions import strips

BAND = 32  # output lines a product, of which a processor's caches hold the input


def _axis_weights(in_size, out_size, antialias):
    """Indices and weights, both (out_size, taps), of linear resizing of one axis.

    Half-pixel centres; where the axis shrinks, `antialias` stretches the triangle kernel by the
    inverse of the scale; indices beyond the border reflect symmetrically.
    """
    scale = out_size / in_size
    shrink = min(scale, 1.0) if antialias else 1.0
    width = 2.0 / shrink
    # Counted from 1 and in the published order of operations: where a sum is an exact half, its
    # last bit decides the rounding.
    centre = np.arange(1, out_size + 1) / scale + 0.5 * (1 - 1 / scale)
    first = np.floor(centre - width / 2)
    index = (first[:, None] + np.arange(int(np.ceil(width)) + 2)).astype(np.int64)
    distance = shrink * (centre[:, None] - index)
    weights = shrink * np.where(distance < 0, 1 + distance, 1 - distance).clip(min=0)
    weights /= weights.sum(1, keepdims=True)
    index -= 1
    used = weights.any(0)
    index, weights = index[:, used] % (2 * in_size), weights[:, used]
    return np.minimum(index, 2 * in_size - 1 - index), weights


def _opencv_weights(in_size, out_size):
    """As `_axis_weights`, of cv2's linear resize: places in float32, edges repeated."""
    place = ((np.arange(out_size) + 0.5) * (in_size / out_size) - 0.5).astype(np.float32)
    index = np.floor(place).astype(np.int64)
    after = (place - index).astype(np.float32)
    return (np.stack([index, index + 1], 1).clip(0, in_size - 1),
            np.stack([1 - after, after], 1))


def bands(in_size: int, out_size: int, antialias: bool = True, lines: int = BAND,
          opencv: bool = False) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """The resize of one axis as products of matrices, each for so many output lines.

    Args:
        opencv: cv2's linear resize, which has no `antialias`.
    Yields:
        (output slice, input slice, matrix): output lines = matrix @ input lines, float64.
    """
    index, weights = (_opencv_weights(in_size, out_size) if opencv else
                      _axis_weights(in_size, out_size, antialias))
    for start in range(0, out_size, lines):
        out = slice(start, min(start + lines, out_size))
        low, high = int(index[out].min()), int(index[out].max()) + 1
        matrix = np.zeros((out.stop - start, high - low))
        np.add.at(matrix, (np.arange(len(matrix))[:, None], index[out] - low), weights[out])
        yield out, slice(low, high), matrix


def _resize_axis(image, out_size, axis, antialias):
    """One axis of (H, W, C)."""
    lines = np.moveaxis(image, axis, 0)
    result = np.empty((out_size, *lines.shape[1:]), image.dtype)
    for out, source, matrix in bands(len(lines), out_size, antialias):
        # Of a large image only a part of a band at a time is there in double.
        for few in strips(lines.shape[1], lines[source, 0].size):
            band = np.tensordot(matrix, np.ascontiguousarray(lines[source, few], np.float64), 1)
            if image.dtype == np.uint8:
                # Half away from zero: weights and pixels are never negative. Truncation follows.
                band = np.minimum(band + 0.5, 255)
            result[out, few] = band
    return np.moveaxis(result, 0, axis)


def imresize(image: np.ndarray, size: tuple[int, int], antialias: bool = True) -> np.ndarray:
    """Resize as MATLAB's imresize(image, size, 'bilinear').

    Weights and sums are in double; the axis with the smaller scale goes first (rows when equal);
    uint8 is rounded half away from zero after each axis.

    Args:
        image: (H, W) or (H, W, C), uint8 or a floating type.
        size: (rows, columns) in pixels.
        antialias: filter where an axis shrinks.
    Returns:
        (rows, columns[, C]) of the image's dtype.
    Raises:
        ValueError: `image` is empty, of another rank or dtype, or a size is below 1.

    Source: the published algorithm of imresize.
    """
    image = np.asarray(image)
    if image.ndim not in (2, 3) or image.size == 0:
        raise ValueError(f"image must be (H, W) or (H, W, C) and not empty, got {image.shape}")
    if image.dtype != np.uint8 and not np.issubdtype(image.dtype, np.floating):
        raise ValueError(f"image must be uint8 or floating, got {image.dtype}")
    rows, cols = size
    if rows < 1 or cols < 1:
        raise ValueError(f"size must be at least 1, got {rows}, {cols}")
    result = image.reshape(*image.shape[:2], -1)
    for axis in (0, 1) if rows / image.shape[0] <= cols / image.shape[1] else (1, 0):
        if result.shape[axis] != size[axis]:
            result = _resize_axis(result, size[axis], axis, antialias)
    return result.reshape(rows, cols, *image.shape[2:]).copy()
