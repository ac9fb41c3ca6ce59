"""The CUDA kernels against the original's values and against our operators on the CPU.

Without a card the same source runs on the CPU (cuda_on_cpu/). Pooling over windows, the backward
pass of bins and interpolation forward take sums in the original's order: equal bits. The others
sum in another order: 1e-5 of the largest value in float32, an ulp of half types.
"""

import pytest
import torch
from helpers.cuda_kernels import DEVICES, REQUIRED, kernels_of, same
from helpers.golden import assert_same_bits, golden_files, read_golden
from helpers.golden_ops import bin_arguments, interp_arguments, pool_arguments
from helpers.ops_cases import PLACES, image, maps

from pspnet_repro.ops import reference

FORMATS = [torch.contiguous_format, torch.channels_last]
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12, torch.float16: 2.0 ** -10,
             torch.bfloat16: 2.0 ** -7}
CPU = torch.ops.pspnet


@pytest.fixture(scope="module", params=DEVICES)
def kernels(request):
    return kernels_of(request.param)


@pytest.mark.cuda
def test_a_card_is_there():
    """Says once, instead of in every test, that nothing ran on a GPU."""
    if not REQUIRED and not torch.cuda.is_available():
        pytest.skip("torch finds no GPU: the kernels ran on the CPU only")
    assert torch.cuda.is_available(), "PSPNET_REQUIRE_CUDA=1, but torch finds no GPU"


def _format(tensor):
    return torch._prims_common.suggest_memory_format(tensor) if tensor.dim() == 4 else (
        torch.contiguous_format)


def _close(actual, wanted):
    """Largest error within TOLERANCE of the largest value; dtype and memory format equal."""
    assert actual.dtype == wanted.dtype and actual.shape == wanted.shape
    assert actual.is_contiguous(memory_format=_format(wanted))
    if wanted.numel():
        scale = wanted.double().abs().max().item()
        error = (actual.double() - wanted.double()).abs().max().item()
        assert error <= TOLERANCE[wanted.dtype] * scale, (error, scale)


def _on_cpu(name, *arguments):
    result = getattr(CPU, name)(*arguments)
    if isinstance(result, torch.Tensor):
        return [result]
    return [t for part in result for t in ([part] if isinstance(part, torch.Tensor) else part)]


def _compare(kernels, name, *arguments, exact):
    """The kernels' results, after a comparison with the CPU operator's."""
    results = kernels.call(name, *arguments)
    for actual, wanted in zip(results, _on_cpu(name, *arguments), strict=True):
        if exact:
            assert same(actual, wanted), (actual, wanted)
        else:
            _close(actual, wanted)
    return results


def _noise(like, seed):
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(like.shape, generator=generator, dtype=torch.float64).to(like.dtype)
    return noise.contiguous(memory_format=_format(like))


def _golden(path, memory_format):
    arrays = read_golden(path)
    x = torch.from_numpy(arrays["bottom_x"]).contiguous(memory_format=memory_format)
    return arrays, x, torch.from_numpy(arrays["dtop_y"])


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@pytest.mark.parametrize("path", golden_files("layers", "pool_*"))
def test_window_pool2d_kernels_match_golden(kernels, path, memory_format):
    arrays, x, dy = _golden(path, memory_format)
    dy = dy.contiguous(memory_format=memory_format)
    kernel, stride, padding, mode = pool_arguments(arrays)
    window, size = (kernel, stride, padding), list(x.shape[2:])
    if mode == "ave":
        y, = kernels.call("window_avg_pool2d", x, *window)
        dx, = kernels.call("window_avg_pool2d_backward", dy, size, *window)
    else:
        y, indices = kernels.call("window_max_pool2d", x, *window)
        dx, = kernels.call("window_max_pool2d_backward", dy, indices, size, *window)
    assert_same_bits(y, arrays["top_y"])
    assert_same_bits(dx, arrays["dbottom_x"])


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@pytest.mark.parametrize("path", golden_files("layers", "pool_*_bin*"))
def test_pyramid_kernels_match_golden(kernels, path, memory_format):
    arrays, x, dy = _golden(path, memory_format)
    dy = dy.contiguous(memory_format=memory_format)
    bins, mode = bin_arguments(path)
    size = list(x.shape[2:])
    if mode == "ave":
        y, = kernels.call("pyramid_avg_pool2d", x, [bins])
        _close(y.contiguous(), torch.from_numpy(arrays["top_y"]))
        dx, = kernels.call("pyramid_avg_pool2d_backward", [dy], size, [bins])
    else:
        y, indices = kernels.call("pyramid_max_pool2d", x, [bins])
        assert_same_bits(y, arrays["top_y"])
        dx, = kernels.call("pyramid_max_pool2d_backward", [dy], [indices], size, [bins])
    assert_same_bits(dx, arrays["dbottom_x"])


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@pytest.mark.parametrize("path", golden_files("layers", "interp_*"))
def test_interp2d_kernels_match_golden(kernels, path, memory_format):
    arrays, x, dy = _golden(path, memory_format)
    out_size, *pads = interp_arguments(arrays)
    y, = kernels.call("interp2d", x, out_size, *pads)
    assert_same_bits(y, arrays["top_y"])
    dy = dy.contiguous(memory_format=memory_format)
    dx, = kernels.call("interp2d_backward", dy, list(x.shape[2:]), *pads)
    _close(dx.contiguous(), torch.from_numpy(arrays["dbottom_x"]))


WINDOWS = [
    ((2, 8, 13, 16), ([3, 3], [2, 2], [1, 1])), ((1, 3, 9, 7), ([4, 3], [3, 2], [2, 1])),
    ((2, 5, 6, 11), ([2, 2], [2, 2], [0, 0])), ((1, 1, 1, 1), ([1, 1], [1, 1], [0, 0])),
    ((0, 4, 5, 5), ([2, 2], [1, 1], [0, 0])), ((3, 16, 12, 12), ([5, 5], [1, 1], [2, 2])),
    # Channels that packs of 16 bytes do not divide, but smaller packs do.
    ((2, 6, 9, 10), ([3, 3], [2, 2], [1, 1])), ((1, 12, 5, 5), ([3, 3], [2, 2], [0, 0])),
]


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape, window", WINDOWS, ids=str)
def test_window_pool2d_kernels_match_cpu(kernels, shape, window, dtype, memory_format):
    x = image(*shape, dtype).contiguous(memory_format=memory_format)
    y, = _compare(kernels, "window_avg_pool2d", x, *window, exact=True)
    dy = _noise(y, 1)
    _compare(kernels, "window_avg_pool2d_backward", dy, list(shape[2:]), *window, exact=True)
    y, indices = _compare(kernels, "window_max_pool2d", x, *window, exact=True)
    _compare(kernels, "window_max_pool2d_backward", dy, indices, list(shape[2:]), *window,
             exact=True)


PYRAMIDS = [
    ((2, 8, 12, 12), [1, 2, 3, 6]), ((1, 3, 13, 17), [1, 2, 3, 6]), ((2, 5, 7, 6), [6, 4]),
    ((1, 1, 1, 1), [1]), ((0, 3, 6, 6), [1, 2]), ((2, 16, 60, 60), [1, 2, 3, 6]),
    ((2, 6, 20, 90), [1, 2, 3, 6]), ((3, 33, 12, 14), [1, 2, 3, 6]), ((1, 2, 64, 64), [64, 1]),
    # More cells than the one-pass kernels take: more bins, more levels, larger maps.
    ((1, 4, 70, 70), [65, 1]), ((1, 8, 9, 9), [1, 2, 3, 4, 5, 6, 7]), ((1, 4, 150, 8), [1, 7]),
]


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape, bins", PYRAMIDS, ids=str)
def test_pyramid_kernels_match_cpu(kernels, shape, bins, dtype, memory_format):
    x = image(*shape, dtype).contiguous(memory_format=memory_format)
    outputs = _compare(kernels, "pyramid_avg_pool2d", x, bins, exact=False)
    grads = [_noise(y, k) for k, y in enumerate(outputs)]
    _compare(kernels, "pyramid_avg_pool2d_backward", grads, list(shape[2:]), bins, exact=True)
    results = _compare(kernels, "pyramid_max_pool2d", x, bins, exact=True)
    _compare(kernels, "pyramid_max_pool2d_backward", grads, results[len(bins):], list(shape[2:]),
             bins, exact=True)


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
def test_max_kernels_keep_first_maximum_and_nan(kernels, memory_format):
    nan, inf = float("nan"), float("inf")
    x = torch.tensor([[1.0, 3.0, 3.0, nan, 2.0, nan], [3.0, -inf, -inf, 5.0, 9.0, 9.0],
                      [-inf, -inf, 0.0, -0.0, nan, 1.0], [-inf, -inf, -0.0, 0.0, 1.0, 1.0]])
    x = x.view(1, 1, 4, 6).expand(2, 8, 4, 6).contiguous(memory_format=memory_format)
    _compare(kernels, "pyramid_max_pool2d", x, [1, 2, 3, 4], exact=True)
    _compare(kernels, "window_max_pool2d", x, [2, 2], [2, 2], [0, 0], exact=True)
    lowest = torch.full((1, 8, 4, 4), -inf).contiguous(memory_format=memory_format)
    _, indices = _compare(kernels, "pyramid_max_pool2d", lowest, [2], exact=True)
    assert (indices == -1).all()
    grad = torch.ones(1, 8, 2, 2).contiguous(memory_format=memory_format)
    _compare(kernels, "pyramid_max_pool2d_backward", [grad], [indices], [4, 4], [2], exact=True)


INTERPS = [
    ((2, 8, 7, 9), (23, 31), 0, 0), ((1, 3, 12, 12), (5, 4), 0, 0), ((2, 4, 9, 9), (9, 9), 0, 0),
    ((1, 8, 6, 6), (41, 41), 0, 0), ((1, 2, 9, 11), (12, 5), -1, -2), ((1, 1, 1, 1), (4, 3), 0, 0),
    ((2, 6, 5, 7), (13, 11), 0, 0), ((1, 12, 4, 4), (9, 6), 0, 0), ((70, 1, 2, 2), (3, 3), 0, 0),
    ((1, 5, 5, 7), (1, 1), 0, 0), ((0, 3, 4, 4), (7, 7), 0, 0), ((1, 3, 9, 9), (7, 7), -1, -1),
    # Wider than a block's tile of columns, both ways.
    ((1, 1, 2, 300), (3, 2500), 0, 0), ((1, 1, 3, 2500), (2, 300), 0, 0),
    ((1, 1, 2, 12000), (2, 12100), 0, 0),
]


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape, out_size, begin, end", INTERPS, ids=str)
def test_interp2d_kernels_match_cpu(kernels, shape, out_size, begin, end, dtype, memory_format):
    x = _noise(torch.empty(shape, dtype=dtype).contiguous(memory_format=memory_format), 0)
    y, = _compare(kernels, "interp2d", x, list(out_size), begin, end, exact=True)
    _compare(kernels, "interp2d_backward", _noise(y, 1), list(shape[2:]), begin, end, exact=False)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_kernels_take_memory_that_is_not_aligned(kernels, dtype):
    """A contiguous view may start anywhere: no pack of 16 bytes is whole there."""
    for memory_format in FORMATS:
        def shifted(*shape):
            like = torch.empty(shape, device="meta").contiguous(memory_format=memory_format)
            values = _noise(torch.empty(like.numel() + 1, dtype=dtype).view(1, 1, 1, -1), 2)
            return values.flatten()[1:].as_strided(shape, like.stride(), 1)

        x = shifted(2, 8, 12, 12)
        _compare(kernels, "pyramid_avg_pool2d", x, [1, 2, 3, 6], exact=False)
        _compare(kernels, "window_avg_pool2d", x, [3, 3], [2, 2], [1, 1], exact=True)
        _compare(kernels, "interp2d", x, [23, 23], 0, 0, exact=True)
        _compare(kernels, "interp2d_backward", x, [5, 5], 0, 0, exact=False)
        _compare(kernels, "batch_norm_statistics", x, exact=False)


BATCH_NORMS = [(2, 8, 12, 12), (2, 6, 5, 6), (3, 5, 7, 9), (1, 1, 1, 1), (2, 130, 3, 5),
               (1, 64, 119, 119), (5, 3, 1, 1), (2, 4, 150, 100)]


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", BATCH_NORMS, ids=str)
@pytest.mark.parametrize("relu", [False, True], ids=["", "relu"])
def test_batch_norm_kernels_match_cpu(kernels, shape, dtype, memory_format, relu):
    like = torch.empty(shape, dtype=dtype).contiguous(memory_format=memory_format)
    x, dy = _noise(like, 0) + 3, _noise(like, 1)
    channel = torch.double if dtype == torch.double else torch.float
    mean, _ = _compare(kernels, "batch_norm_statistics", x, exact=False)
    assert mean.dtype == channel
    generator = torch.Generator().manual_seed(2)
    invstd, weight, bias, mean_dy, mean_dy_xhat = (
        torch.rand(shape[1], generator=generator, dtype=torch.double).add(0.1).to(channel)
        for _ in range(5))
    norm = (mean, invstd, weight, bias - 0.5)
    _compare(kernels, "batch_norm_normalize", x, *norm, relu, exact=False)
    _compare(kernels, "batch_norm_backward_reduce", dy, x, *norm, relu, exact=False)
    _compare(kernels, "batch_norm_backward_elementwise", dy, x, *norm, mean_dy, mean_dy_xhat,
             relu, exact=False)
    if relu:
        other = _noise(like, 3)
        _compare(kernels, "batch_norm_normalize", x, *norm, True, other, exact=False)
        _compare(kernels, "batch_norm_backward_residual", dy, x, other, *norm, exact=False)


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
def test_batch_norm_statistics_kernel_survives_a_large_mean(kernels, memory_format):
    x = torch.randn(4, 8, 40, 40, dtype=torch.double) + 1e4
    x = x.float().contiguous(memory_format=memory_format)
    mean, sqdev = kernels.call("batch_norm_statistics", x)
    wanted = x.double().mean((0, 2, 3))
    torch.testing.assert_close(mean.double(), wanted, rtol=1e-6, atol=0)
    wanted = ((x.double() - wanted.view(1, -1, 1, 1)) ** 2).sum((0, 2, 3))
    torch.testing.assert_close(sqdev.double(), wanted, rtol=1e-4, atol=0)


@pytest.mark.parametrize("mirror", [False, True], ids=["once", "mirrored"])
@pytest.mark.parametrize("place", PLACES, ids=lambda place: "-".join(map(str, place[1] + place[2])))
def test_scores_kernel_matches_reference(kernels, place, mirror):
    classes, size, window, canvas, tops, lefts = place
    logits, mirrored = maps(len(tops), classes, *size)
    mirrored = mirrored if mirror else None
    start = torch.rand(classes, *canvas)
    actual = kernels.add("scores", start, logits, mirrored, tops, lefts, list(window))
    wanted = start
    reference.scores(wanted, logits.double(), mirrored.double() if mirror else None, tops, lefts,
                     window)
    # As in test_scores.py: float32 places logits of 20 to 2e-6.
    torch.testing.assert_close(actual, wanted, rtol=0, atol=1e-5)


def test_scores_kernel_takes_more_logits_than_shared_memory_holds(kernels):
    logits, mirrored = maps(1, 400, 5, 40)
    actual = kernels.add("scores", torch.zeros(400, 9, 80), logits, mirrored, [0], [0], [9, 80])
    wanted = torch.zeros(400, 9, 80)
    reference.scores(wanted, logits.double(), mirrored.double(), [0], [0], [9, 80])
    torch.testing.assert_close(actual, wanted, rtol=0, atol=1e-5)


def test_kernels_refuse_what_the_cpu_refuses(kernels):
    with pytest.raises(RuntimeError, match="bins must be at most the input's height 2, got 3"):
        kernels.call("pyramid_avg_pool2d", torch.zeros(1, 1, 2, 5), [3])
    with pytest.raises(RuntimeError, match=r"grad_output must have shape \[1, 1, 2, 2\]"):
        kernels.call("pyramid_avg_pool2d_backward", [torch.zeros(1, 1, 3, 3)], [4, 4], [2])
    with pytest.raises(RuntimeError, match="bins must have at most 16 levels on CUDA, got 17"):
        kernels.call("pyramid_avg_pool2d", torch.zeros(1, 1, 2, 5), [1] * 17)
    with pytest.raises(RuntimeError, match=r"mean must have shape \[3\], got \[4\]"):
        kernels.call("batch_norm_normalize", torch.zeros(2, 3, 4, 4), *[torch.zeros(4)] * 4, False)
