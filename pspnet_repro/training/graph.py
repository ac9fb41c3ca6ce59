"""The forward and backward passes of a step as one CUDA graph."""

from collections.abc import Callable, Iterable

import torch

from pspnet_repro.distributed import Processes
from pspnet_repro.errors import UsageError
from pspnet_repro.evaluation.graph import captured
from pspnet_repro.model.pspnet import PSPNet

Batch = tuple[torch.Tensor, torch.Tensor]
Losses = list[list[torch.Tensor | None]]


def check_place(device: torch.device, processes: Processes) -> None:
    """Raise UsageError where no graph can be made."""
    if device.type == "cpu" or processes.size > 1:
        raise UsageError(f"cuda_graph is for one process on a GPU, got {processes.size} on "
                         f"{device.type}: leave it out")


class GraphedPasses:
    """Replays a step's passes, which a GPU then runs without waiting for the program.

    Gradients stay in the same memory from step to step. The learning rate is no part of the graph.
    Running values and random numbers are those of the passes without a graph.

    Args:
        model: on a GPU, in training mode.
        passes: (batches) -> losses; makes the gradients anew.
    """

    def __init__(self, model: PSPNet, passes: Callable[[list[Batch]], Losses]) -> None:
        self._model, self._passes = model, passes
        self._graph = None

    def __call__(self, batches: Iterable[Batch]) -> Losses:
        """The losses of the passes; as many, and of the same shapes, in every call."""
        batches = list(batches)
        if self._graph is None:
            self._capture(batches)
        torch._foreach_copy_(self._inputs, _flat(batches))
        self._graph.replay()
        return [[None if part is None else part.clone() for part in parts]
                for parts in self._losses]

    def _capture(self, batches):
        buffers = list(self._model.buffers())
        before, drawn = [buffer.clone() for buffer in buffers], torch.cuda.get_rng_state()
        inputs = [tuple(part.clone() for part in batch) for batch in batches]

        def undo():
            torch._foreach_copy_(buffers, before)
            torch.cuda.set_rng_state(drawn)

        self._graph, self._losses = captured(lambda: self._passes(inputs), undo)
        self._inputs = _flat(inputs)


def _flat(batches):
    return [part for batch in batches for part in batch]
