"""Times whole networks: testing and training, ours against a plain port and the literal head.

Medians of interleaved runs in one process, so that what else the machine does meets all alike.
"""

import argparse
import copy
import json
import multiprocessing
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from pspnet_repro import PSPNet
from pspnet_repro.distributed import LOCAL
from pspnet_repro.errors import command
from pspnet_repro.model.multiply_adds import logits_multiply_adds
from pspnet_repro.sync_bn import SyncBatchNorm2d
from pspnet_repro.training.loss import guided_loss

from ..peak_memory import peak_bytes
from ..places import RUNS_FOLDER
from ..provenance import claim, provenance
from .timing import figures, interleaved

KEYS = "settings", "provenance", "results"  # of networks.json
GOAL = 0.65  # of the plain port's time, one crop for testing


class PlainPort(nn.Module):
    """PSPNet as it is usually written: torch's own layers, one after the other."""

    def __init__(self, net: PSPNet):
        super().__init__()
        self.net = net  # for its convolutions, and for BN as torch's own layers
        super().train(net.training)

    @staticmethod
    def unit(part: nn.Module, x: torch.Tensor, relu: bool = True) -> torch.Tensor:
        x = part.bn(part.conv(x))
        return F.relu(x, inplace=True) if relu else x

    def block(self, block: nn.Module, x: torch.Tensor) -> torch.Tensor:
        y = self.unit(block.increase, self.unit(block.spatial, self.unit(block.reduce, x)), False)
        y += x if block.project is None else self.unit(block.project, x, False)
        return F.relu(y, inplace=True)

    def scores(self, head: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return head.score(head.dropout(self.unit(head.conv, x)))

    def logits(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        backbone, pyramid, head = self.net.backbone, self.net.pyramid, self.net.head
        for part in backbone.stem:
            x = self.unit(part, x)
        x = F.max_pool2d(x, 3, 2, 1)
        for stage in (backbone.stage2, backbone.stage3, backbone.stage4):
            for block in stage:
                x = self.block(block, x)
        stage4 = x
        for block in backbone.stage5:
            x = self.block(block, x)
        maps = [x]
        for bins, part in zip(pyramid.bins, pyramid.reduce):
            level = self.unit(part, F.adaptive_avg_pool2d(x, bins))
            maps.insert(1, F.interpolate(level, x.shape[2:], mode="bilinear", align_corners=True))
        logits = self.scores(head, torch.cat(maps, 1))
        if self.training and self.net.auxiliary is not None:
            return logits, self.scores(self.net.auxiliary, stage4)
        return logits


def drawn(net: PSPNet) -> PSPNet:
    """The network in eval mode with random statistics, so that folding has something to fold."""
    torch.manual_seed(0)
    for module in net.modules():
        if isinstance(module, SyncBatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 1.5)
    return net.eval()


def plain_port(net: PSPNet) -> PlainPort:
    """A plain port with the weights of `net`."""
    net = copy.deepcopy(net)
    for module in net.modules():
        if isinstance(module, SyncBatchNorm2d):
            module.process_group = LOCAL  # becomes an nn.BatchNorm2d, which the CPU trains too
        elif isinstance(module, nn.Conv2d):
            module.__class__ = nn.Conv2d  # of torch: ours trains by Winograd's
    return PlainPort(SyncBatchNorm2d.convert_to_torch(net))


@torch.inference_mode()
def testing(args: argparse.Namespace) -> dict:
    """One crop: the plain port in both memory formats, ours unfused and fused."""
    net = drawn(PSPNet(args.classes, args.depth))
    x = _crop(args.crop)
    x_last = x.to(memory_format=torch.channels_last)
    port, port_last = (plain_port(net) for _ in range(2))
    port_last.to(memory_format=torch.channels_last)
    fused = net.for_inference()
    logits, wanted = fused.logits(x), port.logits(x)
    error = ((logits - wanted).abs().max() / wanted.abs().max()).item()
    agreement = (logits.argmax(1) == wanted.argmax(1)).double().mean().item()
    times = interleaved({"plain port": lambda: port.logits(x),
                         "plain port, channels last": lambda: port_last.logits(x_last),
                         "ours, unfused": lambda: net.logits(x),
                         "ours, for_inference": lambda: fused.logits(x)}, args.runs, "testing")
    first, last = list(times)[:2]
    # By rounds, as all ratios: medians of times alone move with what else the machine does.
    base = last if figures(times, first)[last]["ratio"] < 1 else first
    return {"base": base, "rows": figures(times, base), "largest_error": error,
            "same_argmax": agreement}


def training(args: argparse.Namespace) -> dict:
    """A step of two crops, both losses at full size: the plain port (torch's normalization takes
    no single value a channel, which one crop has in level 1) and ours."""
    torch.manual_seed(0)
    net = PSPNet(args.classes, args.depth).train()
    port, x = plain_port(net), _crop(args.crop, 2)
    labels = torch.randint(args.classes, (2, *x.shape[2:]))

    def plain(logits):
        logits = F.interpolate(logits, labels.shape[1:], mode="bilinear", align_corners=True)
        return F.cross_entropy(logits, labels, ignore_index=255)

    def step(net, outputs, loss):
        net.zero_grad()
        main, auxiliary = map(loss, outputs(x))
        (main + 0.4 * auxiliary).backward()

    steps = {"plain port": lambda: step(port, port.logits, plain),
             "ours": lambda: step(net, net, lambda logits: guided_loss(logits, labels, "full",
                                                                       net.stride))}
    return {"base": "plain port",
            "rows": figures(interleaved(steps, args.runs, "training"), "plain port")}


def _crop(side, images=1):
    return torch.randn(images, 3, side, side) * 60


def _trainer(settings, crop):
    net, x = PSPNet(**settings).train(), _crop(crop)

    def step():
        net.zero_grad()
        logits, aux_logits = net(x)
        (logits.square().mean() + 0.4 * aux_logits.square().mean()).backward()
    return step


def _tester(settings, crop):
    net, x = drawn(PSPNet(**settings)), _crop(crop)
    return torch.inference_mode()(lambda: net.logits(x))


def _peak(make, settings, crop, threads):
    torch.set_num_threads(threads)
    make(settings, crop)()
    return peak_bytes() / 2 ** 20


def peak_mib(make: Callable, settings: dict, crop: int, threads: int) -> float:
    """Peak memory of a new process that does it once."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_peak, make, settings, crop, threads).result()


def heads(args: argparse.Namespace) -> dict[str, dict]:
    """A training step and a test, literal against factorized: time, memory, multiply-adds."""
    measured = {}
    for reduce in (True, False):
        networks = {head: {"classes": args.classes, "depth": args.depth, "reduce": reduce,
                           "head": head} for head in ("literal", "factorized")}
        for what, make in (("training step", _trainer), ("test", _tester)):
            label = f"{what}, {'with' if reduce else 'without'} reduction"
            rows = figures(interleaved({head: make(settings, args.crop) for head, settings
                                        in networks.items()}, args.runs, label), "literal")
            for head, settings in networks.items():
                rows[head]["peak_mib"] = peak_mib(make, settings, args.crop, args.threads)
                rows[head]["gmac"] = logits_multiply_adds(settings, args.crop,
                                                          what == "training step") / 1e9
            measured[label] = {"base": "literal", "rows": rows}
    return measured


def table(results: dict[str, dict]) -> str:
    """All figures as lines of a Markdown table."""
    lines = ["| what | seconds | quartiles | ratio | quartiles | peak MiB | GMAC forward |",
             "|---|---:|---:|---:|---:|---:|---:|"]
    for label, result in results.items():
        for name, row in result["rows"].items():
            seconds, ratios = row["quartiles"], row["ratio_quartiles"]
            mark = " (= 1)" if name == result["base"] else ""
            lines.append(
                f"| {label}: {name}{mark} | {row['seconds']:.3f} | {seconds[0]:.3f} .. "
                f"{seconds[1]:.3f} | {row['ratio']:.2f} | {ratios[0]:.2f} .. {ratios[1]:.2f} | "
                + " | ".join(f"{row[key]:.0f}" if key in row else "" for key in
                             ("peak_mib", "gmac")) + " |")
    return "\n".join(lines)


def heading(args: argparse.Namespace, results: dict[str, dict]) -> str:
    """What was measured where, in one line."""
    text = (f"PSPNet{args.depth}, {args.classes} classes, crop {args.crop}, batch 1, float32, "
            f"{args.threads} threads, medians of {args.runs} interleaved runs; "
            f"torch {torch.__version__}, {provenance()['processor']}")
    if "one crop" in results:
        crop = results["one crop"]
        ratio = crop["rows"]["ours, for_inference"]["ratio"]
        text += (f". for_inference against the port: {ratio:.2f} of its time (goal {GOAL}), "
                 f"largest error {crop['largest_error']:.1e} of the largest logit, same argmax on "
                 f"{100 * crop['same_argmax']:.3f}% of the map")
    return text


PARTS = {"testing": lambda args: {"one crop": testing(args)},
         "training": lambda args: {"training step, two crops, labels at full size": training(args)},
         "heads": heads}


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=7, help="of each function, interleaved")
    parser.add_argument("--crop", type=int, default=473)
    parser.add_argument("--classes", type=int, default=150)
    parser.add_argument("--depth", type=int, default=50)
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--output", type=Path, default=RUNS_FOLDER / "bench",
                        help="folder of networks.json and networks.md")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    paths = [args.output / "networks.json", args.output / "networks.md"]
    outputs = claim(paths, KEYS)
    machine, results = provenance(), {}
    for part, measure in PARTS.items():
        if args.only in (None, part):
            results |= measure(args)
    text = f"{heading(args, results)}\n\n{table(results)}\n"
    print(text)
    contents = dict(zip(KEYS, ({**vars(args), "output": None}, machine, results), strict=True))
    outputs.write(dict(zip(paths, (json.dumps(contents, indent=1), text), strict=True)))


if __name__ == "__main__":
    sys.exit(main())
