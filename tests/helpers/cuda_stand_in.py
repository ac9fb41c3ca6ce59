"""A stand-in for CUDA's graphs that runs on the CPU."""

import contextlib
from types import SimpleNamespace

import torch


def stand_in(monkeypatch, capture, replay):
    """Put functions for the CPU in the place of torch.cuda's.

    Args:
        capture: a context manager in the place of torch.cuda.graph.
        replay: what replaying any graph does.
    """
    stream = SimpleNamespace(wait_stream=lambda _: None)
    for name, value in {
            "Stream": lambda: stream, "current_stream": lambda: stream, "graph": capture,
            "stream": contextlib.nullcontext, "get_rng_state": torch.get_rng_state,
            "set_rng_state": torch.set_rng_state,
            "CUDAGraph": lambda: SimpleNamespace(replay=replay)}.items():
        monkeypatch.setattr(torch.cuda, name, value)
