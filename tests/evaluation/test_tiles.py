"""Canvases resized to the photograph, in tiles."""

import pytest
import torch

from pspnet_repro.evaluation import imresize, tiles


@pytest.mark.parametrize("canvas_size, size", [((150, 260), (101, 70)), ((40, 33), (70, 90))])
@pytest.mark.parametrize("rows, columns", [(32, 32), (7, 9), (256, 500)])
def test_tiles_of_any_size_are_imresize(monkeypatch, canvas_size, size, rows, columns):
    """Also those that a GPU takes: all columns at once."""
    canvas = torch.rand(3, *canvas_size, generator=torch.Generator().manual_seed(0))
    resized = imresize(canvas.permute(1, 2, 0).double().numpy(), size)
    bands = tiles.bands
    monkeypatch.setattr(tiles, "bands", lambda in_size, out_size, antialias, _, opencv: bands(
        in_size, out_size, antialias, rows if out_size == size[0] else columns, opencv))
    all_tiles = tiles.Tiles((3, *size), [canvas_size], antialias=True)
    all_tiles.add(canvas)
    wanted = torch.from_numpy(resized / resized.sum(2, keepdims=True)).permute(2, 0, 1)
    # Sums of at most 8 products in float32, of values below 1.
    torch.testing.assert_close(all_tiles.whole().double(), wanted, rtol=0, atol=1e-6)
