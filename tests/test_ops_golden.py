"""Pooling and interpolation against the original program: equal bits in both directions."""

import re

import pytest
import torch
from conftest import assert_same_bits, golden_files, read_golden

from pspnet_repro import ops

FORMATS = [torch.contiguous_format, torch.channels_last]


def _field(prototxt, name, default):
    found = re.search(rf"\b{name}: (-?\d+)", prototxt)
    return int(found.group(1)) if found else default


def _pair(prototxt, name, default):
    both = _field(prototxt, {"kernel": "kernel_size"}.get(name, name), default)
    return [_field(prototxt, f"{name}_{axis}", both) for axis in "hw"]


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
    prototxt = str(arrays["prototxt"])
    kernel = _pair(prototxt, "kernel", None)
    if "global_pooling: true" in prototxt:
        kernel = list(arrays["bottom_x"].shape[2:])
    mode = "max" if "pool: MAX" in prototxt else "ave"
    _run(arrays, memory_format,
         lambda x: ops.window_pool2d(x, kernel, _pair(prototxt, "stride", 1),
                                     _pair(prototxt, "pad", 0), mode))


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@pytest.mark.parametrize("path", golden_files("layers", "pool_*_bin*"))
def test_bin_pool2d_matches_golden(path, memory_format):
    mode, bins = re.fullmatch(r"pool_(AVE|MAX)_\d+_bin(\d)", path.stem).groups()
    pool = ops.bin_avg_pool2d if mode == "AVE" else ops.bin_max_pool2d
    _run(read_golden(path), memory_format, lambda x: pool(x, int(bins)))


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@pytest.mark.parametrize("path", golden_files("layers", "interp_*"))
def test_interp2d_matches_golden(path, memory_format):
    arrays = read_golden(path)
    prototxt = str(arrays["prototxt"])
    _run(arrays, memory_format,
         lambda x: ops.interp2d(x, arrays["top_y"].shape[2:], _field(prototxt, "pad_beg", 0),
                                _field(prototxt, "pad_end", 0)))
