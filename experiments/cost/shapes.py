"""How much a training and a test compute and keep, counted from shapes."""

import functools
import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch._subclasses import FakeTensorMode

from pspnet_repro import PSPNet
from pspnet_repro.evaluation import Protocol
from pspnet_repro.model.multiply_adds import logits_multiply_adds, multiply_adds

from ..systems.network import Network


@dataclass(frozen=True)
class StepWork:
    """One forward and backward pass: its multiply-adds, and the bytes of the tensors that the
    backward pass needs and of the parameters."""

    multiply_adds: int
    kept_bytes: int
    weight_bytes: int


def network_key(model: dict) -> str:
    """Text that is the same for networks that cost the same: all but what dropout drops and BN's
    kind of variance."""
    return json.dumps({name: value for name, value in model.items()
                       if name not in ("dropout", "spatial_dropout", "variance")}, sort_keys=True)


@functools.lru_cache(maxsize=256)
def step_work(key: str, crop_size: int, batch_size: int) -> StepWork:
    """The work of a network, see network_key; nothing is computed."""
    model = json.loads(key)
    if "system" in model:
        forward, blobs, weights = _system_layers(model, crop_size, batch_size)
        # The backward pass of a convolution is two of its size.
        return StepWork(3 * forward, blobs, weights)
    kept, alive = {}, []

    def keep(tensor):
        storage = tensor.untyped_storage()
        kept[id(storage)] = storage.nbytes()
        alive.append(storage)  # its number must not be given away again
        return tensor

    with FakeTensorMode():
        net = PSPNet(**model).train()
        images = torch.empty(batch_size, 3, crop_size, crop_size)

        def step():
            with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
                outputs = net(images)
            sum(output.sum() for output in outputs if output is not None).backward()

        counts = multiply_adds(step)
        weight_bytes = sum(p.untyped_storage().nbytes() for p in net.parameters())
    return StepWork(sum(counts.values()), sum(kept.values()) - weight_bytes, weight_bytes)


@functools.lru_cache(maxsize=256)
def window_work(key: str, crop_size: int) -> int:
    """Multiply-adds of the logits of one window in a test."""
    model = json.loads(key)
    return (_system_layers(model, crop_size, 1)[0] if "system" in model else
            logits_multiply_adds(model, crop_size))


def _system_layers(model, crop_size, batch_size):
    """(multiply-adds of a forward pass, bytes of all blobs, bytes of the parameters) of a system's
    network."""
    network = Network(Path(model["system"]), model["classes"], (crop_size, batch_size),
                      model["ours"])
    with torch.device("meta"):
        net = network.for_training()
    built = [step.built for step in net.steps]
    return (sum(each.multiply_adds for each in built),
            4 * sum(math.prod(top) for each in built for top in each.tops),
            4 * sum(p.numel() for p in net.parameters()))


def windows_an_image(protocol: Protocol, height: int, width: int) -> float:
    """Windows that testing an image of that size passes through the network, mirrored ones too.

    Windows of another size than the crop's count by their area.
    """
    count = 0.0
    for scale in protocol.scales:
        rows, cols = protocol.scaled_size(height, width, scale)
        window = protocol.window_size(rows, cols)
        number = 1 if protocol.fits(rows, cols) else math.prod(
            len(protocol.window_starts(max(size, side), side))
            for size, side in zip((rows, cols), window))
        count += number * math.prod(window) / protocol.crop_size ** 2
    return count * (2 if protocol.flip else 1)
