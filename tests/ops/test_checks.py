"""What the operators refuse: the same words from the compiled operators and from their fakes."""

import re

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from pspnet_repro import ops

X = (2, 3, 5, 7)
REFUSED = [
    ("window_pool2d", X[1:], (3, 2), "input must be 4-D (N, C, H, W), got 3-D"),
    ("window_pool2d", (2, 3, 0, 7), (3, 2), "input must have at least one pixel, got H, W = 0, 7"),
    ("window_pool2d", X, (0, 2), "kernel_size must be at least 1, got 0, 0"),
    ("window_pool2d", X, ((3, 3, 3), 2), "kernel_size must be 2 numbers (rows, columns), got 3"),
    ("window_pool2d", X, (3, 0), "stride must be at least 1, got 0, 0"),
    ("window_pool2d", X, (3, 2, -1), "padding must be at least 0, got -1, -1"),
    ("window_pool2d", X, (3, 2, 3), "padding must be less than kernel_size 3, got 3"),
    ("window_pool2d", X, (8, 1), "kernel_size must give at least one window over the input's "
                                 "height 5, got 8"),
    ("window_pool2d", X, (1, 3), "stride must leave no window outside the input's height 5, got 3 "
                                 "with kernel_size 1"),
    ("pyramid_pool2d", X, ((),), "bins must name at least one level, got none"),
    ("pyramid_pool2d", X, ((1, 0),), "bins must be at least 1, got 0"),
    ("pyramid_pool2d", X, ((1, 6),), "bins must be at most the input's height 5, got 6"),
    ("pyramid_pool2d", (2, 3, 7, 5), ((1, 6),), "bins must be at most the input's width 5, got 6"),
    ("window_pool2d", X, (2 ** 20 + 1, 1, 2 ** 20), "kernel_size must be at most 1048576, got "),
    ("interp2d", X, ((2 ** 24 + 1, 1),), "input and out_size must be at most 16777216 pixels a "
                                         "side, got height 5 and 16777217"),
    ("interp2d", X, ((3, 3), -2 ** 63 + 10 ** 9, -2 ** 63), "must leave a pixel of the input's "
                                                            "height 5"),
    ("interp2d", X[2:], ((3, 3),), "input must be 4-D (N, C, H, W), got 2-D"),
    ("interp2d", X, ((0, 3),), "out_size must be at least 1, got 0, 3"),
    ("interp2d", X, ((3,),), "out_size must be 2 numbers (rows, columns), got 1"),
    ("interp2d", X, ((3, 3), 1), "pad_begin must be at most 0 (it crops), got 1"),
    ("interp2d", X, ((3, 3), 0, 2), "pad_end must be at most 0 (it crops), got 2"),
    ("interp2d", X, ((3, 3), -3, -2), "pad_begin -3 and pad_end -2 must leave a pixel of the "
                                      "input's height 5"),
]


@pytest.mark.parametrize("name, shape, arguments, words", REFUSED,
                         ids=[f"{case[0]}-{case[3][:40]}" for case in REFUSED])
@pytest.mark.parametrize("fake", [False, True], ids=["real", "fake"])
def test_ops_rejects(name, shape, arguments, words, fake):
    if fake:
        with FakeTensorMode():
            x = torch.empty(shape)
            with pytest.raises(RuntimeError, match=re.escape(words)):
                getattr(ops, name)(x, *arguments)
    else:
        with pytest.raises(RuntimeError, match=re.escape(words)):
            getattr(ops, name)(torch.zeros(shape), *arguments)


@pytest.mark.parametrize("fake", [False, True], ids=["real", "fake"])
def test_ops_rejects_integers(fake):
    words = r"input must be float16, bfloat16, float32 or float64, got"
    if fake:
        with FakeTensorMode(), pytest.raises(RuntimeError, match=words):
            ops.interp2d(torch.empty(X, dtype=torch.int64), (3, 3))
    else:
        with pytest.raises(RuntimeError, match=words):
            ops.interp2d(torch.zeros(X, dtype=torch.int64), (3, 3))


@pytest.mark.parametrize("pool", [ops.window_pool2d, ops.pyramid_pool2d])
def test_pools_reject_other_modes(pool):
    arguments = (3, 2) if pool is ops.window_pool2d else ((1,),)
    with pytest.raises(ValueError, match='mode must be "ave" or "max", got \'median\''):
        pool(torch.zeros(X), *arguments, mode="median")


def test_max_backward_rejects_foreign_indices():
    grad = torch.zeros(1, 1, 2, 2)

    def backward(indices):
        torch.ops.pspnet.pyramid_max_pool2d_backward([grad], [indices], [3, 3], [2])

    with pytest.raises(RuntimeError, match=r"indices must be less than H \* W = 9, got 9"):
        backward(torch.full((1, 1, 2, 2), 9))
    with pytest.raises(RuntimeError, match="indices must be int64"):
        backward(grad.int())
    with pytest.raises(RuntimeError, match="indices must have shape"):
        backward(grad[..., 0].long())


def test_avg_backward_rejects_wrong_shape():
    with pytest.raises(RuntimeError, match=r"grad_output must have shape \[1, 1, 2, 2\]"):
        torch.ops.pspnet.pyramid_avg_pool2d_backward([torch.zeros(1, 1, 3, 3)], [4, 4], [2])
