"""Where batches are read, and how they reach the device that computes."""

import math
import os
import shutil
from collections.abc import Iterable, Iterator

import torch

from pspnet_repro.data.training_sequence import AHEAD
from pspnet_repro.torchrun import variable

_SHARED = "/dev/shm"  # where workers leave their batches on Linux


def spare_cores(device: torch.device, threads: int, pixels: int) -> int:
    """How many processes should read images for this one: its share of the machine's cores, less
    those that compute, as far as the system's shared memory goes, and at most 8.

    Args:
        threads: of the computation on a CPU.
        pixels: of a batch.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    share = 1 / variable("LOCAL_WORLD_SIZE", 1, 2 ** 20, "1")
    room = shutil.disk_usage(_SHARED).free if os.path.isdir(_SHARED) else math.inf
    batch = pixels * 13  # bytes: three float32 and a label
    return min(max(int(cores * share) - (threads if device.type == "cpu" else 1), 0), 8,
               int(min(room * share / (batch * (AHEAD + 1)), 8)))


def on_device(batches: Iterable[tuple[torch.Tensor, torch.Tensor]],
              device: torch.device) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches on a device. A GPU copies one in a stream of its own while it computes the step
    before, and has images channels last."""
    streams = torch.get_device_module(device)
    side = streams.Stream()
    for images, labels in batches:
        with streams.stream(side):
            images, labels = (part.to(device, non_blocking=True) for part in (images, labels))
            if images.is_cuda:
                images = images.contiguous(memory_format=torch.channels_last)
        main = streams.current_stream()
        main.wait_stream(side)
        if images.is_cuda:
            # Their memory is free again when the step has used them, not before.
            images.record_stream(main)
            labels.record_stream(main)
        yield images, labels
