"""Times the CUDA operators against torch's own and against the card's measured copy bandwidth."""

import argparse
import functools
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from pspnet_repro import ops
from pspnet_repro.errors import check_printed, command
from pspnet_repro.sync_bn import SyncBatchNorm2d

from .ops import scores_pair, stretch
from .timing import device_seconds, forward_backward, interleaved

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
FORMATS = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}


@dataclass(frozen=True)
class Sizes:
    """What the cases are made of: those of a training with crops of 473 pixels."""

    batch: int = 16
    channels: int = 2048  # of the last stage
    classes: int = 150
    stem: int = 128       # channels of the stem
    side: int = 60        # of the last stage's maps
    crop: int = 473


@dataclass(frozen=True)
class Case:
    name: str
    tensors: Sequence[torch.Tensor]  # those that must be read or written once
    ours: Callable[[], object]
    theirs: Callable[[], object]
    faster: float | None  # goal: times torch's speed
    bandwidth: float | None  # goal: share of the copy bandwidth


def _both(name, tensors, ours, theirs, x, grads, forward, backward):
    """The cases of both directions, each with its goals (faster, bandwidth)."""
    def pass_back(function):
        outputs = function(x)
        return lambda: torch.autograd.grad(outputs, x, grads, retain_graph=True)

    yield Case(f"{name} forward", tensors, lambda: ours(x.detach()), lambda: theirs(x.detach()),
               *forward)
    yield Case(f"{name} backward", tensors, pass_back(ours), pass_back(theirs), *backward)


def cases(device: torch.device, sizes: Sizes, dtype: torch.dtype,
          memory_format: torch.memory_format) -> Iterator[Case]:
    """The cases for one dtype and memory format."""
    def noise(*shape):
        return torch.randn(shape, device=device, dtype=dtype).contiguous(
            memory_format=memory_format)

    batch, side, crop = sizes.batch, sizes.side, sizes.crop
    bins = (1, 2, 3, 6)
    x = noise(batch, sizes.channels, side, side).requires_grad_()
    levels = [noise(batch, sizes.channels, b, b) for b in bins]

    def four(t):
        return [F.adaptive_avg_pool2d(t, b) for b in bins]

    yield from _both("pyramid pooling", [x], ops.pyramid_pool2d, four, x, levels, (3.0, 0.8),
                     (3.0, 0.8))

    small = noise(batch, sizes.classes, side, side).requires_grad_()
    large = noise(batch, sizes.classes, crop, crop)
    yield from _both("interpolation", [small, large], lambda t: ops.interp2d(t, (crop, crop)),
                     lambda t: stretch(t, crop), small, [large], (None, 0.8), (3.0, None))

    wide = noise(batch, sizes.stem, crop // 2 + 1, crop // 2 + 1).requires_grad_()

    def pool1(t):
        return ops.window_pool2d(t, 3, 2, 1, "max")

    halved = torch.randn_like(pool1(wide.detach()))
    yield from _both("pool1", [wide, halved], pool1, lambda t: F.max_pool2d(t, 3, 2, 1), wide,
                     [halved], (1.0, 0.8), (1.0, None))

    for shape in ((batch, sizes.channels, side, side), (batch, sizes.channels // 8, side, side),
                  (batch, sizes.stem // 2, crop // 2 + 1, crop // 2 + 1)):
        x, grad = noise(*shape).requires_grad_(), noise(*shape)
        ours = SyncBatchNorm2d(shape[1]).to(device)
        theirs = nn.Sequential(nn.BatchNorm2d(shape[1]), nn.ReLU(inplace=True)).to(device)
        # Eight passes over memory: one for statistics, two to normalize, two for the sums, three
        # for the gradient.
        yield Case(f"BN + ReLU, {shape[1]} x {shape[2]} x {shape[3]}, training step",
                   [x] * 8, forward_backward(lambda t, bn=ours: bn(t, relu=True), x, [grad]),
                   forward_backward(theirs, x, [grad]), 1.3, None)
    if (dtype, memory_format) == (torch.float32, torch.contiguous_format):
        ours, theirs, canvas = scores_pair(sizes.classes, side, crop, device)
        yield Case("scores, one window mirrored", [canvas] * 2, ours, theirs, 1.0, None)


def rows(device: torch.device, sizes: Sizes, runs: int, dtypes: dict = DTYPES) -> Iterator[dict]:
    """What was measured of each case: milliseconds, times faster, share of the copy bandwidth."""
    bandwidth = copy_bandwidth(device, runs, 2 ** 24 * sizes.batch)
    yield {"case": "copy", "GB/s": round(bandwidth / 1e9)}
    for dtype_name, dtype in dtypes.items():
        for format_name, memory_format in FORMATS.items():
            for case in cases(device, sizes, dtype, memory_format):
                times = interleaved({"ours": case.ours, "torch": case.theirs}, runs, case.name,
                                    functools.partial(device_seconds, device=device))
                ours, theirs = map(statistics.median, times.values())
                share = sum(t.nbytes for t in case.tensors) / ours / bandwidth
                yield {"case": f"{case.name}, {dtype_name}, {format_name}", "ours ms": 1e3 * ours,
                       "torch ms": 1e3 * theirs, "faster": theirs / ours,
                       "goal": case.faster, "of copy": share, "copy goal": case.bandwidth}


def copy_bandwidth(device: torch.device, runs: int, elements: int) -> float:
    """Bytes read and written a second when a float32 tensor is copied."""
    source = torch.randn(elements, device=device)
    target = torch.empty_like(source)
    times = [device_seconds(lambda: target.copy_(source), device) for _ in range(runs)]
    return 2 * source.nbytes / statistics.median(times)


@command
def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda", help="as torch names it")
    parser.add_argument("--batch", type=int, default=16, help="images")
    parser.add_argument("--runs", type=int, default=15, help="of each function, interleaved")
    args = parser.parse_args(argv)
    device = torch.device(args.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        sys.exit("error: torch finds no GPU")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"{name}, torch {torch.__version__}, batch {args.batch}; medians of {args.runs} "
          "interleaved runs")
    for row in rows(device, Sizes(batch=args.batch), args.runs):
        print("  ".join(f"{key} {value:.3f}" if isinstance(value, float) else f"{value}"
                        for key, value in row.items() if value is not None), flush=True)
    check_printed()


if __name__ == "__main__":
    sys.exit(main())
