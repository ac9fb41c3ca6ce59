"""Losses of steps that stay on the device until several are read at once."""

import torch

from pspnet_repro.data.training_sequence import TrainingSequence
from pspnet_repro.distributed import Processes
from pspnet_repro.training.divergence import check_losses
from pspnet_repro.training.settings import TrainSettings


class UnreadLosses:
    """The losses of a training's last steps. `sequence` names the images of a loss that is not
    finite."""

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
