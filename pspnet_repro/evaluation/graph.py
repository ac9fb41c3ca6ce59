"""Passes of a network as CUDA graphs, which a GPU runs without waiting for the program."""

from collections.abc import Callable

import torch
from torch import nn

from pspnet_repro.evaluation.precision import Around

_WARM_UP = 3  # passes before the capture, in which libraries choose their kernels
_KINDS = 8  # of batches that get a graph; later ones run without


def captured(run: Callable[[], object], before: Callable[[], None] = lambda: None,
             ) -> tuple[torch.cuda.CUDAGraph, object]:
    """A CUDA graph of what `run` does, and what it returned: memory that a replay fills anew.

    Args:
        run: on the GPU, without waiting for it; its inputs stay in their place.
        before: called between passes that warm up and the capture, to undo what those changed.
    """
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(_WARM_UP):
            run()
    torch.cuda.current_stream().wait_stream(side)
    before()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = run()
    return graph, result


class GraphedNetwork(Around):
    """A network for testing whose `logits` are a CUDA graph for each shape of a batch.

    A shape's first batch runs without a graph: it may be the only one.

    Args:
        net: on a GPU, in eval mode; a part of this module.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self._graphs = {}  # by kind of batch: None once it was seen, then (graph, input, logits)

    @torch.no_grad()
    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """As PSPNet.logits in eval mode."""
        kind = x.shape, torch.backends.cudnn.conv.fp32_precision  # of use_precision
        if kind not in self._graphs:
            if len(self._graphs) < _KINDS:
                self._graphs[kind] = None
            return self.net.logits(x)
        if self._graphs[kind] is None:
            images = x.clone()
            graph, logits = captured(lambda: self.net.logits(images))
            self._graphs[kind] = graph, images, logits
        graph, images, logits = self._graphs[kind]
        images.copy_(x)
        graph.replay()
        return logits.clone()
