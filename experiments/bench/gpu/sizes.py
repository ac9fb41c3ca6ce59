"""Sizes that no test has: more than 2^31 elements, maps of 90 x 90, another stream, a graph.

Slices of the results are compared with the same operators in float64 on the CPU. An error is told
over the largest value of the slice; `allowed` is an ulp of the data's type.
"""

from collections.abc import Callable, Iterator

import torch

from pspnet_repro import ops
from pspnet_repro.sync_bn import SyncBatchNorm2d

from ..cuda import FORMATS
from .part import Row, Setting

ALLOWED = {torch.float32: 1e-5, torch.bfloat16: 2.0 ** -7, torch.float16: 2.0 ** -10}
BINS = (1, 2, 3, 6)


def pool1(x: torch.Tensor) -> list[torch.Tensor]:
    """The first pooling of the network."""
    return [ops.window_pool2d(x, 3, 2, 1, "max")]


def pyramid(x: torch.Tensor) -> list[torch.Tensor]:
    """The pyramid's levels."""
    return list(ops.pyramid_pool2d(x, BINS))


def stretch(side: int) -> Callable:
    """Interpolation to a square."""
    return lambda x: [ops.interp2d(x, (side, side))]


def normalize(x: torch.Tensor) -> list[torch.Tensor]:
    """Batch normalization with ReLU; the statistics of a channel are over all images."""
    bn = SyncBatchNorm2d(x.shape[1]).to(x.device)
    return [(bn.double() if x.dtype == torch.double else bn)(x, relu=True)]


def _passes(function, x, grads=None):
    """Outputs, gradients given and the input's gradient of a pass in both directions."""
    x = x.detach().requires_grad_()
    outputs = function(x)
    grads = grads or [torch.randn_like(y) for y in outputs]
    gradient, = torch.autograd.grad(outputs, x, grads)
    return [y.detach() for y in outputs], grads, gradient


def _error(actual, wanted):
    return ((actual.double().cpu() - wanted).abs().max() / wanted.abs().max()).item()


def largest_error(function: Callable, x: torch.Tensor, whole_batch: bool) -> float:
    """Of the first and last plane, or of a channel of all images, both directions."""
    outputs, grads, gradient = _passes(function, x)
    errors = []
    for n, c in ((0, 0), (-1, -1)):
        image = slice(None) if whole_batch else slice(n % len(x), n % len(x) + 1)
        part = image, slice(c % x.shape[1], c % x.shape[1] + 1)

        def exact(t, part=part):
            return t[part].double().cpu()

        wanted, _, wanted_gradient = _passes(function, exact(x), [exact(g) for g in grads])
        errors += [_error(y[part], w) for y, w in zip(outputs, wanted, strict=True)]
        errors.append(_error(gradient[part], wanted_gradient))
    return max(errors)


def _cases(setting: Setting):
    """(what, function, shape, dtype, memory format, statistics of the whole batch)."""
    batch, wide, side, out = (2, 4, 13, 20) if setting.small else (16, 64, 1531, 1000)
    pyramid_shape = (2, 8, 13, 13) if setting.small else (16, 2048, 271, 271)
    half = torch.bfloat16
    for name, memory_format in FORMATS.items():
        yield f"pool1, {name}", pool1, (batch, wide, side, side), half, memory_format, False
        yield f"pyramid, {name}", pyramid, pyramid_shape, half, memory_format, False
        yield (f"interpolation to {out}, {name}", stretch(out),
               (batch, 4 if setting.small else 150, 10 if setting.small else 60,
                10 if setting.small else 60), half, memory_format, False)
        yield f"BN + ReLU, {name}", normalize, (batch, wide, side, side), half, memory_format, True
    channels, classes = (8, 3) if setting.small else (2048, 19)
    for dtype in ALLOWED:
        for name, memory_format in FORMATS.items():
            shape, what = (2, channels, 90, 90), f"{str(dtype)[6:]}, {name}"
            yield f"pyramid, 90 x 90, {what}", pyramid, shape, dtype, memory_format, False
            yield f"BN + ReLU, 90 x 90, {what}", normalize, shape, dtype, memory_format, True
            yield (f"interpolation, 90 to 713, {what}", stretch(89 if setting.small else 713),
                   (2, classes, 90, 90), dtype, memory_format, False)


def _chain(bn):
    """All operators, one after the other."""
    def run(x):
        y, = pool1(bn(x, relu=True))
        return [stretch(x.shape[2])(level)[0] for level in pyramid(y)]
    return run


def _same(one, other):
    return all(torch.equal(a, b) for a, b in zip([*one[0], one[2]], [*other[0], other[2]],
                                                 strict=True))


def _elsewhere(setting: Setting) -> Iterator[Row]:
    """Equal bits on another stream, and replayed from a graph; on the CPU called twice."""
    torch.manual_seed(0)
    x = torch.randn(2, 16, 49, 49, device=setting.device)
    chain = _chain(SyncBatchNorm2d(16).to(setting.device))
    wanted = _passes(chain, x)
    grads = wanted[1]
    if setting.device == "cpu":
        yield {"what": "no stream and no graph on the CPU: the same twice",
               "equal": _same(_passes(chain, x, grads), wanted)}
        return
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            beside = _passes(chain, x, grads)
    torch.cuda.current_stream().wait_stream(stream)
    yield {"what": "on another stream", "equal": _same(beside, wanted)}
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = _passes(chain, x, grads)
    graph.replay()
    torch.cuda.synchronize()
    yield {"what": "replayed from a graph", "equal": _same(captured, wanted)}


def work(setting: Setting) -> Iterator[Row]:
    yield from _elsewhere(setting)
    for what, function, shape, dtype, memory_format, whole_batch in _cases(setting):
        torch.manual_seed(0)
        x = torch.randn(shape, device=setting.device, dtype=dtype).contiguous(
            memory_format=memory_format)
        error = largest_error(function, x, whole_batch)
        yield {"what": what, "input": " x ".join(map(str, shape)), "error": error,
               "allowed": ALLOWED[dtype]}
