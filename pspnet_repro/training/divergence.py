"""A training whose numbers are no longer finite ends with a sentence."""

import math
from collections.abc import Sequence

import torch

from pspnet_repro.data.training_sequence import TrainingSequence
from pspnet_repro.errors import UserError
from pspnet_repro.training.settings import TrainSettings


def check_losses(gathered: Sequence[Sequence[float]], iteration: int, rate: float,
                 sequence: TrainingSequence, settings: TrainSettings) -> None:
    """Raise UserError for the first of a step's total losses [process][pass] that is not finite.
    `rate` is the learning rate of that step."""
    count = settings.batch_size // len(gathered)
    for k in range(settings.iter_size):
        for rank, totals in enumerate(gathered):
            if not math.isfinite(totals[k]):
                first = (iteration * settings.iter_size + k) * settings.batch_size + rank * count
                raise _diverged(f"loss is {totals[k]} at iteration {iteration}", rate, settings,
                                [sequence.pair(p).image for p in range(first, first + count)])


def check_weights(model: torch.nn.Module, iteration: int, rate: float, sequence: TrainingSequence,
                  settings: TrainSettings) -> None:
    """Raise UserError where a step left a weight or a running statistic that is not finite; the
    other arguments as in `check_losses`."""
    tensors = {name: tensor for name, tensor in model.state_dict().items()
               if tensor.is_floating_point() and tensor.numel()}
    largest = torch.stack(torch._foreach_norm(list(tensors.values()), math.inf)).isfinite().cpu()
    if not largest.all():
        name = list(tensors)[largest.tolist().index(False)]
        passes = settings.iter_size * settings.batch_size
        raise _diverged(f"{name} is not finite after iteration {iteration}", rate, settings,
                        [sequence.pair(p).image
                         for p in range(iteration * passes, (iteration + 1) * passes)])


def _diverged(what, rate, settings, images):
    shown = ", ".join(map(str, images[:16])) + f" and {len(images) - 16} more" * (len(images) > 16)
    return UserError(
        f"{what}: the training diverged at learning rate {rate:.3g}, or an image is damaged. Train "
        f"in a new folder with a rate below {settings.base_lr:g} ({settings.rate_option}), or look "
        f"at the images of this step: {shown}")
