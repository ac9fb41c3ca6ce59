"""Times the operators against torch's own functions: medians of interleaved runs, ratios."""

import argparse
import json
import platform
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from pspnet_repro import ops
from pspnet_repro.errors import check_printed, command
from pspnet_repro.outputs import Outputs
from pspnet_repro.sync_bn import SyncBatchNorm2d

from .timing import figures, forward_backward, interleaved

# At most ours / torch's; None: no goal was set.
GOALS = {"pyramid pooling": 0.25, "interpolation": 0.5, "batch norm": 1.0, "scores": 0.4}


def stretch(input: torch.Tensor, side: int) -> torch.Tensor:
    """Torch's interpolation to a square."""
    return F.interpolate(input, (side, side), mode="bilinear", align_corners=True)


def scores_pair(classes: int, side: int, crop: int, device: torch.device | str = "cpu"
                ) -> tuple[Callable[[], object], Callable[[], object], torch.Tensor]:
    """Closures that add a window and its mirror image to a canvas, ours and torch's chain; and the
    canvas."""
    logits, mirrored = torch.randn(2, 1, classes, side, side, device=device) * 4
    canvas, other = torch.zeros(2, classes, crop, crop, device=device)

    def chain():
        total = stretch(logits, crop) + stretch(mirrored, crop).flip(3)
        other.add_(torch.softmax(total, 1)[0])

    return (lambda: ops.scores(canvas, logits, mirrored, [0], [0], (crop, crop)), chain, canvas)


def cases() -> Iterator[tuple[str, str, Callable[[], object], Callable[[], object]]]:
    """(name, description, our closure, torch's closure), forward and backward but for scores."""
    bins = (1, 2, 3, 6)
    x = torch.randn(1, 2048, 60, 60, requires_grad=True)
    grads = [torch.randn(1, 2048, b, b) for b in bins]
    yield ("pyramid pooling", "1x2048x60x60, bins 1, 2, 3, 6, against 4 adaptive_avg_pool2d",
           forward_backward(ops.pyramid_pool2d, x, grads),
           forward_backward(lambda t: [F.adaptive_avg_pool2d(t, b) for b in bins], x, grads))
    x = torch.randn(1, 150, 60, 60, requires_grad=True)
    grads = [torch.randn(1, 150, 473, 473)]
    yield ("interpolation", "150 channels, 60 -> 473, against F.interpolate(align_corners=True)",
           forward_backward(lambda t: ops.interp2d(t, (473, 473)), x, grads),
           forward_backward(lambda t: stretch(t, 473), x, grads))
    for shape in ((4, 256, 60, 60), (4, 64, 119, 119), (16, 512, 12, 12)):
        for name, memory_format in (("NCHW", torch.contiguous_format),
                                    ("channels_last", torch.channels_last)):
            x = torch.randn(shape).contiguous(memory_format=memory_format).requires_grad_()
            grads = [torch.randn(shape).contiguous(memory_format=memory_format)]
            yield ("batch norm", f"{'x'.join(map(str, shape))} {name}, training, against "
                                 "nn.BatchNorm2d",
                   forward_backward(SyncBatchNorm2d(shape[1]), x, grads),
                   forward_backward(nn.BatchNorm2d(shape[1]), x, grads))
    for classes, side, crop in ((150, 60, 473), (19, 90, 713)):
        ours, theirs, _ = scores_pair(classes, side, crop)
        yield ("scores", f"{classes} classes, {side} -> {crop}, mirrored, forward, against "
                         "interpolate, flip, add, softmax, add", ours, theirs)


@command
def main() -> None:
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
    for name, what, *functions in cases():
        rows = figures(interleaved(dict(zip(("ours", "torch"), functions)), args.runs, name),
                       "torch")
        results.append({"name": name, "what": what, "goal": GOALS[name],
                        **{f"{whose}_ms": 1e3 * row["seconds"] for whose, row in rows.items()},
                        **{key: rows["ours"][key] for key in ("ratio", "ratio_quartiles")}})
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
