"""Attention: Axpy, SpatialProduct and PointwiseSpatialAttention."""

import torch

from prototxt_import.format.caffe_pb2 import LayerParameter, PointwiseSpatialAttentionParameter
from prototxt_import.layers.base import Built, Shapes, check, check_counts, check_image


def axpy(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """scale * x + y of the bottoms scale (N, C[, 1, 1]), x and y (N, C, ...)."""
    check_counts(layer, 3, 1)
    scale, shape = shapes[:2]
    check(len(shape) >= 2 and shapes[2] == shape,
          f"its second and third bottom must be alike (N, C, ...), got {shapes[1:]}")
    check(scale[:2] == shape[:2] and set(scale[2:]) <= {1},
          f"its first bottom must be {shape[:2]} or {(*shape[:2], 1, 1)}, got {scale}")
    wide = shape[:2] + (1,) * (len(shape) - 2)
    return Built([shape], lambda bottoms, params:
                 [bottoms[0].reshape(wide) * bottoms[1] + bottoms[2]])


def spatial_product(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """Each channel of the first bottom (N, C, H, W) times the second, (N, 1, H, W)."""
    check_counts(layer, 2, 1)
    shape = check_image(shapes[0])
    check(shapes[1] == (shape[0], 1, *shape[2:]),
          f"its second bottom must be {(shape[0], 1, *shape[2:])}, got {shapes[1]}")
    return Built([shape], lambda bottoms, params: [bottoms[0] * bottoms[1]])


def pointwise_spatial_attention(layer: LayerParameter, shapes: Shapes, train: bool) -> Built:
    """Each position gathers all (COLLECT) or gives to all (DISTRIBUTE), weighted by its mask.

    Bottoms: features (N, C, H, W), masks (N, rows * columns, H, W) centred at each position.
    """
    check_counts(layer, 2, 1)
    param = layer.pointwise_spatial_attention_param
    n, c, *size = check_image(shapes[0])
    given = [param.HasField(f"attention_mask_{way}") for way in ("height", "width")]
    check(given[0] == given[1], "needs both attention_mask_height and attention_mask_width")
    mask = ([param.attention_mask_height, param.attention_mask_width] if given[0] else
            [2 * side - 1 for side in size])
    check(not given[0] or all(side > 1 and side % 2 == 1 for side in mask),
          f"attention_mask_height and _width must be odd and above 1, got {mask}")
    check(shapes[1] == (n, mask[0] * mask[1], *size),
          f"its masks must be {(n, mask[0] * mask[1], *size)}, got {shapes[1]}")
    positions = size[0] * size[1]
    has_factor = param.HasField("normalization_factor")
    factor = param.normalization_factor if has_factor else mask[0] * mask[1]
    check(factor != 0, "normalization_factor must not be 0")
    collect = param.psa_type == PointwiseSpatialAttentionParameter.COLLECT

    def run(bottoms, params):
        inside, index = _offsets(size, mask, bottoms[1].device)
        # weights[n, q, p]: of the mask at p for the position q.
        weights = bottoms[1].flatten(2).gather(1, index.expand(n, -1, -1)).where(inside, 0)
        weights = weights if collect else weights.transpose(1, 2)
        if param.is_softmax:
            weights = weights.softmax(1)
        return [(bottoms[0].flatten(2) @ weights / factor).view(shapes[0])]

    return Built([shapes[0]], run, multiply_adds=n * c * positions ** 2)


def _offsets(size, mask, device):
    """For positions q and p: whether q is in p's mask, and where; each (H * W, H * W)."""
    inside, index = True, 0
    places = torch.arange(size[0] * size[1], device=device)
    for places_1d, side in zip((places // size[1], places % size[1]), mask):
        offset = places_1d[:, None] - places_1d + side // 2
        inside = (offset >= 0) & (offset < side) & inside
        index = index * side + offset.clamp(0, side - 1)
    return inside, index
