"""A PSPNet as a file of torch.export."""

import json
from typing import BinaryIO

import torch
from torch.export import Dim

from pspnet_repro.model.plain import PlainPSPNet
from pspnet_repro.model.pspnet import PSPNet
from pspnet_repro.weights.score_check import ScoreCheck, checked_sizes

FACTS = "pspnet.json"  # among the file's extra files


class TorchExportFile:
    """Content of a file for torch.export.load, for files.write_bytes.

    Its program takes (N, 3, crop_size, crop_size) float32, see PSPNet.prepare, for any N, and gives
    scores (N, classes, crop_size, crop_size). The extra file FACTS holds the settings and the
    Check. It is written once, and needs memory for two networks at most, with `release` for one.

    Arguments and `check` are those of onnx.OnnxFile. Raises UserError for a size that the network
    does not allow; when called, for other scores.
    """

    def __init__(self, net: PSPNet, crop_size: int, dynamic_size: bool = False,
                 release: bool = False) -> None:
        self.sizes = checked_sizes(net, crop_size, dynamic_size)
        self.net, self.dynamic_size, self.release, self.check = net, dynamic_size, release, None

    def __call__(self, file: BinaryIO) -> None:
        """Write to an open file."""
        net, dims = self.net, {0: Dim("N")}
        check, settings = ScoreCheck(net, self.sizes), dict(net.settings)
        if self.dynamic_size:
            step, least = net.stride, max(net.pyramid.bins, default=1) - 1
            dims |= {axis: Dim(name, min=step * least + 1) if net.any_size else
                     step * Dim(name, min=max(least, 1), max=2 ** 20) + 1
                     for axis, name in ((2, "h"), (3, "w"))}
        plain = PlainPSPNet(net, release=self.release)
        net = self.net = None
        with torch.no_grad():
            program = torch.export.export(plain, (check.inputs[-1],), dynamic_shapes=(dims,))
        module = program.module()
        self.check = check(f"torch {torch.__version__}", lambda _, x: module(x))
        facts = {"settings": settings, "check": self.check._asdict()}
        torch.export.save(program, file, extra_files={FACTS: json.dumps(facts)})
