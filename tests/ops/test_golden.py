"""Pooling and interpolation against the original program: equal bits in both directions."""

import pytest
import torch
from helpers.golden import assert_same_bits, golden_files, read_golden
from helpers.golden_ops import bin_arguments, interp_arguments, pool_arguments

from pspnet_repro import ops

FORMATS = [torch.contiguous_format, torch.channels_last]


def _run(arrays, memory_format, layer):
    x = torch.from_numpy(arrays["bottom_x"]).contiguous(memory_format=memory_format)
    x.requires_grad_()
    y = layer(x)
    y.backward(torch.from_numpy(arrays["dtop_y"]))
    assert_same_bits(y, arrays["top_y"])
    assert_same_bits(x.grad, arrays["dbottom_x"])


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@pytest.mark.parametrize("path", golden_files("layers", "pool_*"))
def test_window_pool2d_matches_golden(path, memory_format):
    arrays = read_golden(path)
    _run(arrays, memory_format, lambda x: ops.window_pool2d(x, *pool_arguments(arrays)))


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@pytest.mark.parametrize("path", golden_files("layers", "pool_*_bin*"))
def test_bin_pool2d_matches_golden(path, memory_format):
    bins, mode = bin_arguments(path)
    pool = ops.bin_avg_pool2d if mode == "ave" else ops.bin_max_pool2d
    _run(read_golden(path), memory_format, lambda x: pool(x, bins))


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@pytest.mark.parametrize("path", golden_files("layers", "interp_*"))
def test_interp2d_matches_golden(path, memory_format):
    arrays = read_golden(path)
    _run(arrays, memory_format, lambda x: ops.interp2d(x, *interp_arguments(arrays)))
