"""Number formats for testing, and what they cost in agreement with float32."""

import contextlib
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from pspnet_repro.evaluation.protocol import Protocol
from pspnet_repro.evaluation.sliding import first_windows
from pspnet_repro.model.pspnet import PSPNet
from pspnet_repro.model.upsampling import upsample2d


@contextlib.contextmanager
def use_precision(precision: str) -> Iterator[None]:
    """Let torch's float32 mean TF32 on GPUs, or float32 alone, for the length of a with block.

    Torch by default lets convolutions of cuDNN round to TF32: "float32" and "bfloat16" forbid it.
    On the CPU float32 means float32, whatever torch.set_float32_matmul_precision says. Afterwards
    the switches are as before.
    """
    cudnn, mkldnn = torch.backends.cudnn, torch.backends.mkldnn
    # Recurrent layers only go along: torch's older switch is true or false for all of a library.
    gpu = torch.backends.cuda.matmul, cudnn.conv, cudnn.rnn
    cpu = mkldnn.matmul, mkldnn.conv, mkldnn.rnn
    before = [(switch, switch.fp32_precision) for switch in (*gpu, *cpu)]
    for switch, _ in before:
        switch.fp32_precision = "tf32" if precision == "tf32" and switch in gpu else "ieee"
    try:
        yield
    finally:
        for switch, value in before:
            switch.fp32_precision = value


class Around(nn.Module):
    """A network around another, which is a part of it and tells what it is for; a subclass computes
    `logits`."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.classes, self.stride = net.classes, net.stride
        self.image_input, self.align_corners = net.image_input, net.align_corners
        super().train(net.training)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As PSPNet.forward in eval mode."""
        return upsample2d(self.logits(x), x.shape[2:], self.align_corners)


class Autocast(Around):
    """A network whose convolutions and products run in bfloat16, layer by layer; float32 logits."""

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """As PSPNet.logits in eval mode."""
        with torch.autocast(x.device.type, torch.bfloat16):
            return self.net.logits(x).float()


def network_in(net: PSPNet, precision: str, fused: bool) -> nn.Module:
    """A network in eval mode for testing in one of PRECISIONS, for use under `use_precision`. With
    `fused` it is PSPNet.for_inference, else the network itself or a wrapper of it."""
    if fused:
        return net.for_inference(torch.bfloat16 if precision == "bfloat16" else None)
    return Autocast(net) if precision == "bfloat16" else net


@torch.no_grad()
def agreement(net: nn.Module, exact: nn.Module, precision: str, image_rgb: np.ndarray,
              protocol: Protocol, count: int) -> dict[str, float]:
    """How far a network in less precision is from itself in float32, on an image's first windows.

    Args:
        net: of network_in(..., precision, ...); run under use_precision(precision).
        exact: the same for "float32"; run under use_precision("float32").
        count: at most so many windows, of the scale nearest 1.
    Returns:
        {"same_argmax": share of the image's pixels on the windows whose class is the same,
        "largest_error": largest error over the largest logit, both of float32,
        "windows": their number}.
    """
    device = next(net.parameters()).device
    windows, areas = first_windows(image_rgb, protocol, count, net.stride, net.image_input)
    windows = windows.to(device)
    with use_precision(precision):
        logits = net.logits(windows)
    with use_precision("float32"):
        wanted = exact.logits(windows)
    same = pixels = 0
    for one, other, (rows, cols) in zip(logits, wanted, areas, strict=True):
        labels = [upsample2d(maps[None], windows.shape[2:], net.align_corners)
                  [0, :, rows, cols].argmax(0) for maps in (one, other)]
        same += (labels[0] == labels[1]).sum().item()
        pixels += labels[0].numel()
    largest = wanted.abs().max().clamp_min(torch.finfo(wanted.dtype).tiny)
    return {"same_argmax": same / pixels,
            "largest_error": ((logits - wanted).abs().max() / largest).item(),
            "windows": len(windows)}
