"""conv5_4 on the pyramid without upsampled maps or their concatenation: half the arithmetic."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from pspnet_repro.model import winograd
from pspnet_repro.model.upsampling import upsample2d

TAPS = 3  # rows and columns of conv5_4's kernel


def shifted_interpolation(bins: int, size: int, dtype: torch.dtype, device: torch.device,
                          align_corners: bool = True) -> torch.Tensor:
    """Weights that carry `bins` values to `size` pixels, once for each tap of a kernel of 3.

    Row (tap, p), column i holds the weight of value p at upsampled pixel i + tap - 1, which is 0
    outside of the image: the convolution's zero padding.

    Returns:
        (3 * bins, size).
    """
    identity = torch.eye(bins, dtype=dtype, device=device)
    upsampled = upsample2d(identity[None, None], (size, bins), align_corners)[0, 0]
    padded = F.pad(upsampled, (0, 0, TAPS // 2, TAPS // 2)).T
    return torch.cat([padded[:, tap:tap + size] for tap in range(TAPS)])


def tap_matrix(weight: torch.Tensor) -> torch.Tensor:
    """A kernel as `tap_products` reads it: (O, C, 3, 3) -> (C, 9 * O)."""
    return weight.transpose(0, 1).flatten(1)


def tap_products(level: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """Every tap of a kernel applied to a small map: (N, C, b, b), (C, 9 * O) -> (N, 3b, 3b, O).

    Row (i, p), column (j, q) is the sum over c of weight[:, c, i, j] * level[:, c, p, q].
    """
    products = (level.permute(0, 2, 3, 1) @ matrix).unflatten(3, (-1, TAPS, TAPS))
    return products.permute(0, 4, 1, 5, 2, 3).flatten(3, 4).flatten(1, 2)


def upsampled_conv2d(products: Sequence[torch.Tensor], rows: torch.Tensor,
                     columns: Sequence[torch.Tensor]) -> torch.Tensor:
    """What convolutions of upsampled maps add up to, from the products of their taps.

    Args:
        products: for each level (N, 3b, 3b, O) of `tap_products`.
        rows: (sum of 3b, H), `shifted_interpolation` of all levels, one below the other.
        columns: for each level (3b, W).
    Returns:
        (N, O, H, W), channels last.
    """
    # Rows of all levels in one product, over all columns and channels at once.
    wide = torch.cat([matrix.T @ taps for taps, matrix in zip(products, columns)], 1)
    output = rows.T @ wide.flatten(2)
    return output.unflatten(2, wide.shape[2:]).permute(0, 3, 1, 2)


def pyramid_conv2d(x: torch.Tensor, levels: Sequence[torch.Tensor], weight: torch.Tensor,
                   align_corners: bool = True) -> torch.Tensor:
    """conv2d(cat([x, up(levels[-1]), ..., up(levels[0])], 1), weight, padding=1), factorized.

    The convolution is linear, so the features have their share of it and each level its own: nine
    taps applied to the b x b map, then constant matrices of shifted interpolation weights.

    Args:
        x: (N, C, H, W), any floating dtype.
        levels: maps (N, C_l, b, b), one a level; up is `upsample2d` to (H, W).
        weight: (O, C + sum of C_l, 3, 3).
        align_corners: of `upsample2d`.
    Returns:
        (N, O, H, W), dtype of conv2d. The levels' part is computed in float32 (float64 for
        float64), also under autocast.

    Source: paper, 3.2, and layers conv5_3_concat and conv5_4; the algebra is ours.
    """
    channels = [x.shape[1], *(level.shape[1] for level in reversed(levels))]
    own, *parts = weight.split(channels, 1)
    output = winograd.conv2d(x, own)
    with torch.autocast(x.device.type, enabled=False):
        wide = torch.promote_types(weight.dtype, torch.float32)
        products = [tap_products(level.to(wide), tap_matrix(part.to(wide)))
                    for level, part in zip(reversed(levels), parts)]
        rows, columns = ([shifted_interpolation(level.shape[2], size, wide, x.device, align_corners)
                          for level in reversed(levels)] for size in x.shape[2:])
        return (output + upsampled_conv2d(products, torch.cat(rows), columns)).to(output.dtype)
