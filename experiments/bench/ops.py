"""Times the operators against torch's own functions: medians of interleaved runs, ratios."""

import argparse
import json
import platform
import statistics
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

from pspnet_repro import ops
from pspnet_repro.errors import check_printed, command
from pspnet_repro.outputs import Outputs
from pspnet_repro.sync_bn import SyncBatchNorm2d

# At most ours / torch's; None: no goal was set.
GOALS = {"pyramid pooling": 0.25, "interpolation": 0.5, "batch norm": 1.0, "scores": 0.4}


def _backward(function, x, grads):
    def run():
        x.grad = None
        torch.autograd.backward(function(x), grads)
    return run


def scores_pair(classes, side, crop, device="cpu"):
    """Closures that add a window and its mirror image to a canvas, ours and torch's chain; and the
    canvas."""
    logits, mirrored = torch.randn(2, 1, classes, side, side, device=device) * 4
    canvas, other = torch.zeros(2, classes, crop, crop, device=device)

    def chain():
        a, b = (F.interpolate(t, (crop, crop), mode="bilinear", align_corners=True)
                for t in (logits, mirrored))
        other.add_(torch.softmax(a + b.flip(3), 1)[0])

    return (lambda: ops.scores(canvas, logits, mirrored, [0], [0], (crop, crop)), chain, canvas)


def cases():
    """(name, description, our closure, torch's closure), forward and backward but for scores."""
    bins = (1, 2, 3, 6)
    x = torch.randn(1, 2048, 60, 60, requires_grad=True)
    grads = [torch.randn(1, 2048, b, b) for b in bins]
    yield ("pyramid pooling", "1x2048x60x60, bins 1, 2, 3, 6, against 4 adaptive_avg_pool2d",
           _backward(ops.pyramid_pool2d, x, grads),
           _backward(lambda t: [F.adaptive_avg_pool2d(t, b) for b in bins], x, grads))
    x = torch.randn(1, 150, 60, 60, requires_grad=True)
    grads = [torch.randn(1, 150, 473, 473)]
    yield ("interpolation", "150 channels, 60 -> 473, against F.interpolate(align_corners=True)",
           _backward(lambda t: ops.interp2d(t, (473, 473)), x, grads),
           _backward(lambda t: F.interpolate(t, (473, 473), mode="bilinear", align_corners=True),
                     x, grads))
    for shape in ((4, 256, 60, 60), (4, 64, 119, 119), (16, 512, 12, 12)):
        for name, memory_format in (("NCHW", torch.contiguous_format),
                                    ("channels_last", torch.channels_last)):
            x = torch.randn(shape).contiguous(memory_format=memory_format).requires_grad_()
            grads = [torch.randn(shape).contiguous(memory_format=memory_format)]
            yield ("batch norm", f"{'x'.join(map(str, shape))} {name}, training, against "
                                 "nn.BatchNorm2d",
                   _backward(SyncBatchNorm2d(shape[1]), x, grads),
                   _backward(nn.BatchNorm2d(shape[1]), x, grads))
    for classes, side, crop in ((150, 60, 473), (19, 90, 713)):
        ours, theirs, _ = scores_pair(classes, side, crop)
        yield ("scores", f"{classes} classes, {side} -> {crop}, mirrored, forward, against "
                         "interpolate, flip, add, softmax, add", ours, theirs)


def measure(ours, theirs, runs):
    """Medians in milliseconds of both, and the median of the ratios of neighbouring runs."""
    ours(), theirs()
    times = []
    for _ in range(runs):
        pair = []
        for run in (ours, theirs):
            began = time.perf_counter()
            run()
            pair.append(1e3 * (time.perf_counter() - began))
        times.append(pair)
    a, b = zip(*times)
    ratios = sorted(x / y for x, y in times)
    return {"ours_ms": statistics.median(a), "torch_ms": statistics.median(b),
            "ratio": statistics.median(ratios),
            "ratio_quartiles": [ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]]}


@command
def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=25, help="of each function, interleaved")
    parser.add_argument("--output", type=Path, help="JSON file for the figures")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    outputs = Outputs()
    if args.output is not None:
        outputs.claim([args.output])
    results = []
    for name, what, ours, theirs in tqdm(list(cases()), leave=False):
        results.append({"name": name, "what": what, "goal": GOALS[name],
                        **measure(ours, theirs, args.runs)})
    print(f"forward + backward (scores: forward), float32, {args.threads} threads, medians of "
          f"{args.runs} interleaved runs; torch {torch.__version__}, {platform.machine()}")
    print(f"{'ours ms':>9} {'torch ms':>9} {'ratio':>6} {'quartiles':>12} {'goal':>5}")
    for r in results:
        low, high = r["ratio_quartiles"]
        print(f"{r['ours_ms']:9.2f} {r['torch_ms']:9.2f} {r['ratio']:6.2f} "
              f"{low:5.2f} ..{high:5.2f} {r['goal']:5.2f}  {r['name']}: {r['what']}")
    if args.output is None:
        check_printed()
    else:
        outputs.write({args.output: json.dumps(
            {"threads": args.threads, "runs": args.runs, "torch": torch.__version__,
             "results": results}, indent=1)})


if __name__ == "__main__":
    sys.exit(main())
