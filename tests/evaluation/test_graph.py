"""Passes for testing as CUDA graphs, with a stand-in for CUDA that runs on the CPU."""

import contextlib

import pytest
import torch
from helpers.cuda_stand_in import stand_in
from helpers.networks import tiny_net

from pspnet_repro import Predictor
from pspnet_repro.__main__ import main
from pspnet_repro.errors import UsageError
from pspnet_repro.evaluation.graph import GraphedNetwork
from pspnet_repro.evaluation.precision import use_precision
from pspnet_repro.weights.model_file import save_model


@pytest.fixture
def passes(monkeypatch):
    """Sizes of the batches that a network sees, "capture" and "replay"."""
    events = []

    @contextlib.contextmanager
    def capture(_graph):
        events.append("capture")
        yield

    stand_in(monkeypatch, capture, lambda: events.append("replay"))
    return events


class Network(torch.nn.Module):
    """Doubles a batch, and notes it."""

    classes, stride, image_input, align_corners = 3, 8, None, True

    def __init__(self, events):
        super().__init__()
        self.events = events

    def logits(self, x):
        self.events.append(len(x))
        return 2 * x


def test_a_shape_gets_a_graph_when_it_comes_again(passes):
    net = GraphedNetwork(Network(passes))
    first, second = torch.ones(2, 3, 4, 4), torch.ones(1, 3, 4, 4)
    assert net.logits(first).equal(2 * first) and passes == [2]
    assert net.logits(second).equal(2 * second) and passes == [2, 1]
    assert net.logits(first).equal(2 * first)
    assert passes == [2, 1, 2, 2, 2, "capture", 2, "replay"]
    net.logits(first)
    assert passes[8:] == ["replay"]


def test_a_graph_is_of_one_precision(passes):
    net, x = GraphedNetwork(Network(passes)), torch.ones(2, 3, 4, 4)
    for precision, wanted in (("tf32", [2]), ("float32", [2]),
                              ("float32", [2, 2, 2, "capture", 2, "replay"]),
                              ("tf32", [2, 2, 2, "capture", 2, "replay"]),
                              ("float32", ["replay"])):
        passes.clear()
        with use_precision(precision):
            net.logits(x)
        assert passes == wanted


def test_a_replay_reads_the_batch_and_its_logits_stay(passes):
    net = GraphedNetwork(Network(passes))
    for _ in range(2):
        before = net.logits(torch.ones(2, 3, 4, 4))
    images, logits = net._graphs[next(iter(net._graphs))][1:]
    net.logits(torch.full((2, 3, 4, 4), 5.0))
    assert (images == 5).all()
    logits.zero_()  # as the next replay overwrites it
    assert (before == 2).all()


def test_many_shapes_get_no_graphs(passes):
    net = GraphedNetwork(Network(passes))
    for _ in range(3):
        for size in range(1, 12):
            net.logits(torch.ones(size, 3, 4, 4))
    assert passes.count("capture") == 8 and len(net._graphs) == 8


def test_a_graph_needs_a_gpu(tmp_path, capsys):
    path = tmp_path / "w.pt"
    save_model(path, tiny_net(), crop_size=97)
    with pytest.raises(UsageError, match='^cuda_graph needs device "cuda": a graph is a GPU\'s$'):
        Predictor(path, cuda_graph=True)
    code = main(["predict", str(tmp_path), "--weights", str(path), "-o", str(tmp_path / "out"),
                 "--cuda-graph"])
    assert code == 2 and "--cuda-graph needs --device cuda" in capsys.readouterr().err
