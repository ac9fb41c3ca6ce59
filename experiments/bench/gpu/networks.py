"""The networks of the parts: ours, and the plain port as it is usually trained."""

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from pspnet_repro import PSPNet
from pspnet_repro.evaluation.precision import use_precision
from pspnet_repro.training.solver import CaffeSGD, parameter_groups

from ..networks import PlainPort, plain_port
from .part import Setting

PRECISIONS = ("float32", "tf32", "bfloat16")


def network(setting: Setting) -> PSPNet:
    """PSPNet50 for 150 classes, or a miniature, on the device; the same weights each time."""
    torch.manual_seed(0)
    shape = ({"classes": 3, "blocks": (1, 1, 1, 1), "width": 0.125, "stem_width": 8}
             if setting.small else {"classes": 150, "depth": 50})
    # Without dropout and auxiliary branch both sides do the same.
    return PSPNet(**shape, aux=False, dropout=0.0).to(setting.device)


def batch(setting: Setting, images: int) -> torch.Tensor:
    """Random images of the paper's crop, or small ones."""
    crop = 57 if setting.small else 473
    return torch.randn(images, 3, crop, crop, device=setting.device) * 60


class TrainingPort(PlainPort):
    """The plain port as DistributedDataParallel calls it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.logits(x)


def training_port(net: PSPNet, setting: Setting) -> nn.Module:
    """The plain port under DistributedDataParallel with its defaults and SyncBatchNorm."""
    port = TrainingPort(plain_port(net).net).to(setting.device)
    if setting.device == "cuda":  # torch's refuses the CPU
        port = nn.SyncBatchNorm.convert_sync_batchnorm(port)
    return nn.parallel.DistributedDataParallel(port.train())


@contextlib.contextmanager
def one_rank(setting: Setting) -> Iterator[None]:
    """A group of this process alone, through NCCL, or Gloo on the CPU."""
    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group("nccl" if setting.device == "cuda" else "gloo", rank=0,
                                world_size=1, init_method=f"file://{Path(folder, 'meeting')}")
        try:
            yield
        finally:
            dist.destroy_process_group()


@contextlib.contextmanager
def precise(setting: Setting, precision: str) -> Iterator[None]:
    """Arithmetic in one of PRECISIONS."""
    with (use_precision("tf32" if precision == "tf32" else "float32"),
          torch.autocast(setting.device, torch.bfloat16, enabled=precision == "bfloat16")):
        yield


def our_step(net: PSPNet, x: torch.Tensor) -> Callable[[], None]:
    """A training step of ours with the trainer's solver, as a closure."""
    solver = CaffeSGD(parameter_groups(net.train()), 1e-3, 0.9, 1e-4)

    def step():
        solver.zero_grad(set_to_none=True)
        solver.backward(net(x)[0].float().square().mean())
        solver.step()
    return step


def port_step(port: nn.Module, x: torch.Tensor) -> Callable[[], None]:
    """A training step of the plain port, as a closure."""
    solver = torch.optim.SGD(port.parameters(), 1e-3, 0.9, weight_decay=1e-4)

    def step():
        solver.zero_grad(set_to_none=True)
        port(x).float().square().mean().backward()
        solver.step()
    return step
