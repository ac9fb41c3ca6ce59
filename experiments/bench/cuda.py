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

from . import timing

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
FORMATS = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}
PASSES = 10  # a timing is of so many, so that launches do not wait for the clock


@dataclass(frozen=True)
class Case:
    """`faster`, `bandwidth`: goals, times torch's speed and share of copy bandwidth, or None.

    `tensors` are those that must be read or written once.
    """

    name: str
    tensors: Sequence[torch.Tensor]
    ours: Callable[[], object]
    theirs: Callable[[], object]
    faster: float | None = None
    bandwidth: float | None = None


def _pass_back(function, x, grads):
    outputs = function(x)
    return lambda: torch.autograd.grad(outputs, x, grads, retain_graph=True)


def cases(device: torch.device, batch: int, dtype: torch.dtype,
          memory_format: torch.memory_format) -> Iterator[Case]:
    """The goals' cases for one dtype and memory format."""
    def noise(*shape):
        return torch.randn(shape, device=device, dtype=dtype).contiguous(
            memory_format=memory_format)

    bins = (1, 2, 3, 6)
    x = noise(batch, 2048, 60, 60).requires_grad_()
    levels = [noise(batch, 2048, b, b) for b in bins]

    def four(t):
        return [F.adaptive_avg_pool2d(t, b) for b in bins]

    yield Case("pyramid pooling forward", [x], lambda: ops.pyramid_pool2d(x.detach(), bins),
               lambda: four(x.detach()), 3.0, 0.8)
    yield Case("pyramid pooling backward", [x], _pass_back(ops.pyramid_pool2d, x, levels),
               _pass_back(four, x, levels), 3.0, 0.8)

    small = noise(batch, 150, 60, 60).requires_grad_()
    large = noise(batch, 150, 473, 473)

    def stretch(t):
        return F.interpolate(t, (473, 473), mode="bilinear", align_corners=True)

    yield Case("interpolation forward", [small, large],
               lambda: ops.interp2d(small.detach(), (473, 473)), lambda: stretch(small.detach()),
               None, 0.8)
    yield Case("interpolation backward", [small, large],
               _pass_back(lambda t: ops.interp2d(t, (473, 473)), small, [large]),
               _pass_back(stretch, small, [large]), 3.0, None)

    for shape in ((batch, 256, 60, 60), (batch, 64, 237, 237)):
        x, grad = noise(*shape).requires_grad_(), noise(*shape)
        ours = SyncBatchNorm2d(shape[1]).to(device)
        theirs = nn.Sequential(nn.BatchNorm2d(shape[1]), nn.ReLU(inplace=True)).to(device)
        # Eight passes over memory: one for statistics, two to normalize, two for the sums, three
        # for the gradient.
        yield Case(f"BN + ReLU, {shape[1]} x {shape[2]} x {shape[3]}, training step",
                   [x] * 8,
                   timing.forward_backward(lambda t, bn=ours: bn(t, relu=True), x, [grad]),
                   timing.forward_backward(theirs, x, [grad]), 1.3, None)


def seconds(run: Callable[[], object], device: torch.device) -> float:
    """Time of one pass."""
    def passes():
        for _ in range(PASSES):
            run()

    if device.type != "cuda":
        return timing.seconds(passes) / PASSES
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    passes()
    end.record()
    end.synchronize()
    return 1e-3 * begin.elapsed_time(end) / PASSES


def copy_bandwidth(device: torch.device, runs: int, elements: int) -> float:
    """Bytes read and written a second when a float32 tensor is copied."""
    source = torch.randn(elements, device=device)
    target = torch.empty_like(source)
    times = [seconds(lambda: target.copy_(source), device) for _ in range(runs)]
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
    bandwidth = copy_bandwidth(device, args.runs, 2 ** 24 * args.batch)
    print(f"{name}, torch {torch.__version__}, batch {args.batch}; a copy moves "
          f"{bandwidth / 1e9:.0f} GB/s; medians of {args.runs} interleaved runs")
    print(f"{'ours ms':>9} {'torch ms':>9} {'faster':>7} {'goal':>5} {'of copy':>8} {'goal':>5}")
    for dtype_name, dtype in DTYPES.items():
        for format_name, memory_format in FORMATS.items():
            for case in cases(device, args.batch, dtype, memory_format):
                times = timing.interleaved({"ours": case.ours, "torch": case.theirs}, args.runs,
                                           case.name, functools.partial(seconds, device=device))
                ours, theirs = map(statistics.median, times.values())
                share = sum(t.nbytes for t in case.tensors) / ours / bandwidth
                goals = [f"{goal:.1f}" if goal else "" for goal in (case.faster, case.bandwidth)]
                print(f"{1e3 * ours:9.3f} {1e3 * theirs:9.3f} {theirs / ours:7.2f} {goals[0]:>5} "
                      f"{share:8.2f} {goals[1]:>5}  {case.name}, {dtype_name}, {format_name}",
                      flush=True)
    check_printed()


if __name__ == "__main__":
    sys.exit(main())
