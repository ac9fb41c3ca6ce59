"""How much memory a training needs at least: what cannot work is refused before any work."""

import os

import torch

from pspnet_repro.distributed import Processes
from pspnet_repro.errors import UsageError
from pspnet_repro.model.settings import EXPANSION, NetworkSettings
from pspnet_repro.training.settings import TrainSettings
from pspnet_repro.words import gib


def crop_bytes(network: NetworkSettings, settings: TrainSettings) -> int:
    """Bytes at least that a pass holds for one crop: the crop and, where the backbone learns, two
    maps a convolution of it, its output and what the next reads."""
    floats, stride = 3.0, 4
    if not settings.freeze_backbone:
        floats += 2 * network.stem_width / 4
        for blocks, width, step in zip(network.blocks, network.widths, network.strides):
            stride *= step
            floats += 2 * blocks * (2 + EXPANSION) * width / stride ** 2
    return round((2 if settings.precision == "bfloat16" else 4) * settings.crop_size ** 2 * floats)


def check_memory(network: NetworkSettings, settings: TrainSettings, processes: Processes,
                 device: str) -> None:
    """Raise UsageError where the crops of a pass need more memory than this machine, or its GPU,
    has."""
    if device == "cpu":
        room, where = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), "this machine"
    elif torch.cuda.is_available():
        room, where = torch.cuda.get_device_properties(0).total_memory, "the GPU"
    else:
        return  # choose_device says why
    each, count = crop_bytes(network, settings), len(processes.split(settings.batch_size))
    if each > room:
        raise UsageError(f"crop_size must be smaller: a crop of {settings.crop_size} pixels needs "
                         f"at least {gib(each)}, and {where} has {gib(room)}")
    if count * each > room:
        raise UsageError(
            f"batch_size must be smaller, or the crops: {count} of {settings.crop_size} pixels "
            f"need at least {gib(count * each)}, and {where} has {gib(room)}; --batch-size "
            "times --iter-size are the images of a step")
