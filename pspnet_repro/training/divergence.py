"""What the steps of a training leave: their losses, and numbers that must be finite."""

import math
from collections.abc import Sequence

import torch

from pspnet_repro.data.training_sequence import TrainingSequence
from pspnet_repro.distributed import Processes
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


class UnreadLosses:
    """The losses of a training's last steps, which stay on the device until several are read at
    once. `sequence` names the images of a loss that is not finite."""

    def __init__(self, model: torch.nn.Module, sequence: TrainingSequence,
                 settings: TrainSettings, processes: Processes) -> None:
        self._has_aux = model.auxiliary is not None
        self._sequence, self._settings, self._processes = sequence, settings, processes
        self._steps, self._losses = [], []

    def add(self, iteration: int, rate: float,
            parts: list[list[torch.Tensor | None]]) -> None:
        """Add a step's losses as `average_backward` gives them; nothing waits for the device."""
        totals, (_, *last) = [total for total, _, _ in parts], parts[-1]
        self._steps.append((iteration, rate))
        self._losses.append(torch.stack([*last[:1 + self._has_aux], *totals]))

    def read(self) -> list[dict]:
        """The lines of losses.jsonl of all steps since the last call; all processes call this. The
        losses of a line are means over the processes. Raises UserError where one is not finite."""
        gathered = self._processes.gather(torch.stack(self._losses).cpu().double()).numpy()
        lines = []
        for k, (iteration, rate) in enumerate(self._steps):
            losses = gathered[:, k]
            check_losses(losses[:, 1 + self._has_aux:].tolist(), iteration, rate, self._sequence,
                         self._settings)
            loss, *aux_loss = losses[:, :1 + self._has_aux].mean(0).tolist()
            lines.append({"iteration": iteration, "lr": rate, "loss": loss,
                          "loss_aux": aux_loss[0] if aux_loss else None})
        self._steps, self._losses = [], []
        return lines
