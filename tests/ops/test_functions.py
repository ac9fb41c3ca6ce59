"""Every image operator against its specification, in both directions."""

import pytest
import torch
from helpers.ops_cases import CASES, image, run_with_gradient

from pspnet_repro import ops
from pspnet_repro.ops import reference

each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


@each_case
@pytest.mark.parametrize("shape", [(2, 3, 7, 9), (1, 19, 13, 11), (2, 16, 12, 12), (0, 4, 8, 8)],
                         ids=str)
def test_ops_matches_reference(case, shape):
    x = image(*shape)
    outputs, grad = run_with_gradient(case.fast, x)
    expected, expected_grad = run_with_gradient(case.slow, x)
    for actual, wanted in zip(outputs, expected, strict=True):
        # float64: only the order of at most 143 additions differs.
        torch.testing.assert_close(actual, wanted, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(grad, expected_grad, rtol=1e-13, atol=1e-13)


@each_case
@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
def test_ops_dtypes(case, dtype):
    # Values of at most 8 bits are exact in every dtype, so inputs agree.
    x = image(2, 17, 8, 10, torch.float64).round().clamp(-128, 127)
    outputs, grad = run_with_gradient(case.fast, x.to(dtype))
    expected, _ = run_with_gradient(case.slow, x)
    for actual, wanted in zip(outputs, expected, strict=True):
        assert actual.dtype == dtype and actual.device == x.device
        # Sums are in float32: one rounding to the dtype, and 80 roundings of float32.
        eps = torch.finfo(dtype).eps
        torch.testing.assert_close(actual.double(), wanted, rtol=eps + 1e-5, atol=128 * 1e-6)
    assert grad.dtype == dtype and torch.isfinite(grad).all()


@each_case
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_ops_half_gradient_is_float32_gradient_rounded(case, dtype):
    x = image(1, 18, 8, 10, torch.float64).round().clamp(-128, 127).to(dtype)
    _, grad = run_with_gradient(case.fast, x)
    wide = x.float().requires_grad_()
    outputs = case.fast(wide)
    generator = torch.Generator().manual_seed(1)
    grads = [torch.randn(o.shape, generator=generator, dtype=torch.float64).to(dtype).float()
             for o in outputs]
    torch.autograd.backward(outputs, grads)
    assert torch.equal(grad, wide.grad.to(dtype))


@each_case
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_ops_channels_last_has_the_same_bits(case, dtype):
    x = image(2, 37, 9, 11, dtype)
    outputs, grad = run_with_gradient(case.fast, x)
    last_outputs, last_grad = run_with_gradient(
        case.fast, x.contiguous(memory_format=torch.channels_last))
    for actual, wanted in zip(last_outputs, outputs, strict=True):
        assert torch.equal(actual, wanted)
        assert actual.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(last_grad, grad)


@each_case
def test_ops_any_strides(case):
    x = image(2, 5, 9, 12, torch.float32)
    wanted, wanted_grad = run_with_gradient(case.fast, x)
    for view in (x.transpose(2, 3).contiguous().transpose(2, 3),
                 torch.stack([x, -x], 4)[..., 0],
                 x.flip(3).flip(3),
                 torch.cat([x, x], 1)[:, :5]):
        outputs, grad = run_with_gradient(case.fast, view)
        assert all(torch.equal(a, b) for a, b in zip(outputs, wanted, strict=True))
        assert torch.equal(grad, wanted_grad)


@each_case
def test_ops_accepts_expanded_gradients(case):
    x = image(1, 3, 8, 8, torch.float32).requires_grad_()
    sum(o.sum() for o in case.fast(x)).backward()
    expanded = x.grad.clone()
    x.grad = None
    torch.autograd.backward(case.fast(x), [torch.ones_like(o) for o in case.fast(x)])
    assert torch.equal(expanded, x.grad)


@each_case
def test_ops_gradcheck(case):
    x = image(1, 2, 7, 8).requires_grad_()
    assert torch.autograd.gradcheck(lambda t: tuple(case.fast(t)), x)


@each_case
@pytest.mark.parametrize("threads", [1, 2])
def test_ops_repeats_bitwise(case, threads):
    x = image(3, 35, 12, 13, torch.float32)
    wanted = run_with_gradient(case.fast, x)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        outputs, grad = run_with_gradient(case.fast, x)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(outputs, wanted[0], strict=True))
    assert torch.equal(grad, wanted[1])


_OP = torch.ops.pspnet
OPCHECKS = {
    "window_avg_pool2d": lambda x: (_OP.window_avg_pool2d, (x, [3, 3], [2, 2], [1, 1])),
    "window_max_pool2d": lambda x: (_OP.window_max_pool2d, (x, [3, 3], [2, 2], [1, 1])),
    "window_avg_pool2d_backward": lambda x: (
        _OP.window_avg_pool2d_backward, (x.detach(), [13, 15], [3, 3], [2, 2], [1, 1])),
    "pyramid_avg_pool2d": lambda x: (_OP.pyramid_avg_pool2d, (x, [1, 2, 3])),
    "pyramid_max_pool2d": lambda x: (_OP.pyramid_max_pool2d, (x, [1, 2, 3])),
    "pyramid_avg_pool2d_backward": lambda x: (
        _OP.pyramid_avg_pool2d_backward,
        ([x.detach()[:, :, :b, :b].contiguous() for b in (2, 3)], [7, 9], [2, 3])),
    "window_max_pool2d_backward": lambda x: (
        _OP.window_max_pool2d_backward,
        (x.detach(), torch.arange(x.numel()).view(x.shape) % 195 - 1, [13, 15], [3, 3], [2, 2],
         [1, 1])),
    "pyramid_max_pool2d_backward": lambda x: (
        _OP.pyramid_max_pool2d_backward,
        ([x.detach()[:, :, :2, :2].contiguous()],
         [torch.arange(24).view(2, 3, 2, 2) % 20 - 1], [4, 5], [2])),
    "interp2d": lambda x: (_OP.interp2d, (x, [9, 5], -1, 0)),
    "interp2d_backward": lambda x: (_OP.interp2d_backward, (x.detach(), [5, 4], -1, 0)),
}


@pytest.mark.parametrize("name", OPCHECKS)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
def test_ops_opcheck(name, memory_format):
    x = image(2, 3, 7, 8, torch.float32).contiguous(memory_format=memory_format).requires_grad_()
    op, arguments = OPCHECKS[name](x)
    torch.library.opcheck(op, arguments)


@pytest.mark.slow
def test_ops_compiles():
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph.forward

    def network(x):
        levels = ops.pyramid_pool2d(ops.window_pool2d(x, 3, 2, 1, "max"), (1, 2), "ave")
        peaks = ops.pyramid_pool2d(x, (2,), "max")
        up = [ops.interp2d(level, x.shape[2:]) for level in (*levels, *peaks)]
        return sum(up) + ops.interp2d(ops.window_pool2d(x, 2, 2), x.shape[2:])

    compiled = torch.compile(network, fullgraph=True, dynamic=True, backend=backend)
    for shape in ((2, 3, 12, 14), (3, 5, 17, 21)):
        x = image(*shape, torch.float32)
        torch.testing.assert_close(compiled(x), network(x), rtol=0, atol=0)
    assert len(graphs) == 1, "sizes made the compiler start again"


@pytest.mark.slow
def test_ops_compiles_gradients():
    def loss(x):
        levels = ops.pyramid_pool2d(ops.window_pool2d(x, 3, 2, 1, "max"), (1, 2))
        return sum(ops.interp2d(level, (9, 9)).square().sum() for level in levels)

    x = image(2, 3, 12, 14, torch.float32).requires_grad_()
    loss(x).backward()
    wanted = x.grad.clone()
    x.grad = None
    torch.compile(loss, fullgraph=True, dynamic=True, backend="aot_eager")(x).backward()
    # The same operators run; only torch's own sums may be taken in another order.
    torch.testing.assert_close(x.grad, wanted, rtol=1e-5, atol=1e-5)


def test_max_pool2d_takes_first_maximum():
    x = torch.zeros(1, 1, 4, 4, requires_grad=True)
    ops.window_pool2d(x, 2, 2, 0, "max").sum().backward()
    assert x.grad[0, 0].nonzero().tolist() == [[0, 0], [0, 2], [2, 0], [2, 2]]


def test_max_pool2d_propagates_nan():
    x = image(1, 3, 6, 6, torch.float32)
    x[0, 1, 2, 3] = float("nan")
    peaks = ops.bin_max_pool2d(x, 2)
    assert peaks.isnan().nonzero().tolist() == [[0, 1, 0, 1]]
    assert torch.equal(peaks.isnan(), reference.pyramid_pool2d(x, (2,), "max")[0].isnan())


def test_max_pool2d_of_minus_infinity_is_lowest_float():
    x = torch.full((1, 2, 4, 4), -torch.inf, requires_grad=True)
    peaks = ops.bin_max_pool2d(x, 1)
    assert (peaks == -torch.finfo(torch.float32).max).all()
    peaks.sum().backward()
    assert not x.grad.any()


def test_pyramid_pool2d_levels_without_gradient():
    x = image(1, 3, 6, 6).requires_grad_()
    ops.pyramid_pool2d(x, (1, 2, 3))[1].sum().backward()
    assert torch.equal(x.grad, torch.full_like(x, 1 / 9))


def test_bin_pools_are_levels_of_the_pyramid():
    x = image(2, 3, 11, 7, torch.float32)
    assert torch.equal(ops.bin_avg_pool2d(x, 3), ops.pyramid_pool2d(x, (1, 3))[1])
    assert torch.equal(ops.bin_max_pool2d(x, 3), ops.pyramid_pool2d(x, (1, 3), "max")[1])


@pytest.mark.parametrize("in_size", [1, 2, 5, 60])
@pytest.mark.parametrize("out_size", [1, 2, 7, 473])
def test_interp2d_edge_sizes(in_size, out_size):
    x = image(1, 2, in_size, in_size)
    outputs, grad = run_with_gradient(lambda t: [ops.interp2d(t, (out_size, 3))], x)
    wanted, wanted_grad = run_with_gradient(
        lambda t: [reference.interp2d(t, (out_size, 3), 0, 0)], x)
    torch.testing.assert_close(outputs[0], wanted[0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(grad, wanted_grad, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 13])
def test_window_pool2d_edge_sizes(size):
    for kernel, stride, padding in ((1, 1, 0), (3, 2, 1), (2, 2, 1), (size, size, 0), (size, 1, 0),
                                    (size + 1, 2, 0), (3, 3, 2)):
        for mode in ("ave", "max"):
            x = image(1, 2, size, size + 2)
            ranges = reference.window_ranges(size, kernel, stride, padding, padding > 0)
            if not ranges or ranges[-1][0] >= ranges[-1][1]:
                continue
            outputs, grad = run_with_gradient(
                lambda t: [ops.window_pool2d(t, kernel, stride, padding, mode)], x)
            wanted, wanted_grad = run_with_gradient(
                lambda t: [reference.window_pool2d(t, (kernel,) * 2, (stride,) * 2,
                                                   (padding,) * 2, mode)], x)
            torch.testing.assert_close(outputs, wanted, rtol=1e-13, atol=1e-13)
            torch.testing.assert_close(grad, wanted_grad, rtol=1e-13, atol=1e-13)
