"""A step's passes as a CUDA graph, with a stand-in for CUDA that runs on the CPU."""

import contextlib
from types import SimpleNamespace

import pytest
import torch
from helpers.cuda_stand_in import stand_in
from helpers.networks import MODEL
from helpers.trainings import run_training, train_settings

from pspnet_repro import PSPNet
from pspnet_repro.errors import UsageError
from pspnet_repro.training.graph import GraphedPasses
from pspnet_repro.training.loop import average_backward
from pspnet_repro.training.solver import CaffeSGD


@pytest.fixture
def cuda(monkeypatch):
    """torch.cuda with graphs that record nothing and run `cuda.passes` again."""
    fake = SimpleNamespace(passes=None, model=None)

    @contextlib.contextmanager
    def capture(_graph):
        """What is captured does not run: what it changes is put back."""
        before = [b.clone() for b in fake.model.buffers()], torch.get_rng_state()
        yield
        torch._foreach_copy_(list(fake.model.buffers()), before[0])
        torch.set_rng_state(before[1])

    stand_in(monkeypatch, capture, lambda: fake.passes())
    return fake


@pytest.mark.parametrize("iter_size", [1, 2])
def test_a_graph_takes_the_steps_of_the_passes(squares, cuda, iter_size):
    settings = train_settings(squares, iter_size=iter_size)
    results = []
    for graphed in (False, True):
        torch.manual_seed(4)
        model = PSPNet(**MODEL).train()
        solver = CaffeSGD(model.parameters(), 0.01, iter_size=iter_size)

        def passes(batches, model=model, solver=solver):
            return average_backward(model, solver, batches, settings)

        step = passes
        if graphed:
            cuda.model, step = model, GraphedPasses(model, passes)

            def replay(step=step, passes=passes):
                again = passes(list(zip(step._inputs[::2], step._inputs[1::2])))
                for parts, others in zip(step._losses, again):
                    torch._foreach_copy_(parts, others)

            cuda.passes = replay
        generator = torch.Generator().manual_seed(0)
        for _ in range(3):
            batches = [(torch.randn(2, 3, 57, 57, generator=generator),
                        torch.randint(0, 4, (2, 57, 57), generator=generator).byte())
                       for _ in range(iter_size)]
            losses = step(iter(batches))
            solver.step()
        results.append([*(part for parts in losses for part in parts),
                        *model.state_dict().values()])
    assert all(map(torch.equal, *results))


def test_a_graph_needs_a_gpu(squares, tmp_path):
    with pytest.raises(UsageError, match="^cuda_graph is for one process on a GPU, got 1 on cpu: "
                                         "leave it out$"):
        run_training(squares, tmp_path / "run", cuda_graph=True)
    assert not (tmp_path / "run").exists()
