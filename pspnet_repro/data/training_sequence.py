"""Training samples by their position in the endless, shuffled sequence, and batches of them."""

import math
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from pspnet_repro.data.augment import Augmentation, augment
from pspnet_repro.data.check import check_lesson
from pspnet_repro.data.images import MAX_PIXELS
from pspnet_repro.data.pairs import Pair, read_pair
from pspnet_repro.errors import UserError, first_line
from pspnet_repro.glibc import keep_freed_memory
from pspnet_repro.model import image_input as image_inputs
from pspnet_repro.torchrun import variable

_AHEAD = 2  # batches that a worker reads ahead
_SHARED = "/dev/shm"  # where workers leave their batches on Linux


class TrainingSequence(Dataset):
    """Sample number p of training: a pure function of the seed and p.

    Epoch p // len(pairs) visits every pair once in an order drawn from (seed, epoch); the
    augmentation is drawn from (seed, p). So neither workers nor interruptions change anything.

    Args:
        crop_size: side of the crops in pixels.
        image_input: of the network, see model.image_input.
    """

    def __init__(self, pairs: Sequence[Pair], classes: int, crop_size: int,
                 augmentation: Augmentation, seed: int,
                 image_input: image_inputs.ImageInput = image_inputs.CAFFE) -> None:
        self.pairs = pairs
        self.classes = classes
        self.crop_size = crop_size
        self.augmentation = augmentation
        self.seed = seed
        self.image_input = image_input
        self._epoch, self._order = -1, None

    def pair(self, position: int) -> Pair:
        """The Pair that sample `position` shows."""
        epoch, index = divmod(position, len(self.pairs))
        if epoch != self._epoch:
            self._order = np.random.default_rng((self.seed, 0, epoch)).permutation(len(self.pairs))
            self._epoch = epoch
        return self.pairs[self._order[index]]

    def __getitem__(self, position):
        """(image, label) tensors, or the UserError that reading met (errors cross processes)."""
        try:
            pair = self.pair(position)
            image, label = read_pair(pair, self.classes)
            factor = max(self.augmentation.scales or (1,))
            if label.size * factor ** 2 > MAX_PIXELS:
                raise UserError(
                    f"{pair.image}: must have at most {int(MAX_PIXELS / factor ** 2)} pixels, as a "
                    f"training enlarges it up to {factor:g} times, has {label.shape[0]} x "
                    f"{label.shape[1]}: make it and its label smaller, or train without resizing, "
                    "--augmentation none")
        except UserError as error:
            return error
        rng = np.random.default_rng((self.seed, 1, position))
        image, label = augment(image, label, self.crop_size, self.augmentation, rng,
                               self.image_input)
        return torch.from_numpy(image), torch.from_numpy(label)


def _collate(samples):
    for sample in samples:
        if isinstance(sample, UserError):
            return sample
    images, labels = zip(*samples)
    return torch.stack(images), torch.stack(labels)


def _start_worker(_):
    keep_freed_memory()  # unless it is a fork of a command's process, which does already
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def batches(sequence: TrainingSequence, batch_size: int, start: int, stop: int, workers: int,
            slots: range | None = None) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches number start..stop-1 of the sequence, or some slots of each.

    Args:
        workers: processes that read ahead; 0 reads in this process.
        slots: range within 0..batch_size-1, see distributed.Processes.split; None is all.
    Yields:
        (images (N, 3, crop, crop) float32, labels (N, crop, crop) uint8).
    Raises:
        UserError: an image or label could not be used, or the labels teach nothing: see
            data.check.check_lesson.
    """
    cv2.setNumThreads(0)
    slots = slots or range(batch_size)
    check_lesson(sequence.pairs, sequence.classes, say=slots.start == 0)
    positions = (range(k * batch_size + slots.start, k * batch_size + slots.stop)
                 for k in range(start, stop))
    loader = DataLoader(sequence, batch_sampler=positions, num_workers=workers,
                        collate_fn=_collate, worker_init_fn=_start_worker,
                        prefetch_factor=_AHEAD if workers else None,
                        # From such memory a GPU copies while the program goes on.
                        pin_memory=torch.cuda.is_initialized(),
                        # Its own generator: the global one belongs to dropout alone.
                        generator=torch.Generator())
    try:
        for batch in loader:
            if isinstance(batch, UserError):
                raise batch
            yield batch
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise UserError(f"a process that reads images ended: {first_line(error)}: --workers 0 "
                        "reads without such processes") from error


def spare_cores(device: torch.device, threads: int, pixels: int) -> int:
    """How many processes should read images for this one: its share of the machine's cores, less
    those that compute (on a CPU `threads`), as far as the system's shared memory goes for batches
    of so many pixels, and at most 8."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    share = 1 / variable("LOCAL_WORLD_SIZE", 1, 2 ** 20, "1")
    room = shutil.disk_usage(_SHARED).free if os.path.isdir(_SHARED) else math.inf
    batch = pixels * 13  # bytes: three float32 and a label
    return min(max(int(cores * share) - (threads if device.type == "cpu" else 1), 0), 8,
               int(min(room * share / (batch * (_AHEAD + 1)), 8)))


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
