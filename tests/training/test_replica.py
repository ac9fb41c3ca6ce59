"""The replicas of a network in several processes, and the means of their gradients."""

import os
import signal

import pytest
import torch
import torch.distributed as dist
from helpers.networks import MODEL
from helpers.processes import Processes as Pool

from pspnet_repro import PSPNet, distributed
from pspnet_repro.distributed import Processes, ProcessLost
from pspnet_repro.training.loop import _losses, average_backward
from pspnet_repro.training.replica import one_pass, replicate
from pspnet_repro.training.settings import TrainSettings
from pspnet_repro.training.solver import CaffeSGD

pytestmark = pytest.mark.dist
NET = {**MODEL, "dropout": 0.0}


@pytest.fixture(params=[2, 4])
def processes(request, group_of):
    return group_of(request.param)


def _network():
    torch.manual_seed(3)
    return PSPNet(**NET).double().train()


def _gradients(rank, size, shares):
    """Gradients by name, of replicas and of a mean over everything after the backward passes.

    Args:
        shares: images of each process in each pass.
    """
    settings = TrainSettings(model=NET, data="test", list_sha256="", crop_size=57, threads=1,
                             iter_size=len(shares))
    generator = torch.Generator().manual_seed(rank)
    batches = [(torch.randn((share[rank], 3, 57, 57), generator=generator).double() * 60,
                torch.randint(0, 4, (share[rank], 57, 57), generator=generator))
               for share in shares]
    network = _network()
    average_backward(replicate(network, Processes(rank, size)),
                     CaffeSGD(network.parameters(), 0.01), batches, settings)
    plain = _network()
    for images, labels in batches:
        _losses(plain, images, labels, settings)[0].backward()
    for parameter in plain.parameters():
        distributed.all_sum(parameter.grad).div_(size)
    return [{name: p.grad.numpy() for name, p in net.named_parameters()}
            for net in (network, plain)]


@pytest.mark.parametrize("shares", [[[2, 2, 2, 2]], [[3, 1, 2, 1]], [[2, 0, 1, 0]],
                                    [[1, 2, 0, 1], [2, 1, 1, 0]]],
                         ids=["even", "uneven", "empty", "two-passes"])
def test_gradients_are_means_over_the_processes(processes, shares):
    size = len(processes.members)
    answers = processes.run(_gradients, size, shares)
    for name, wanted in answers[0][1].items():
        error = max(abs(answers[rank][0][name] - wanted).max() for rank in range(size))
        assert error <= 1e-9 * abs(wanted).max(), name
        assert len({answers[rank][0][name].tobytes() for rank in range(size)}) == 1, name


def _two_steps(rank, size):
    """Gradients of equal steps: DistributedDataParallel changes its buckets after the first."""
    torch.manual_seed(rank)
    inputs, steps = torch.randn(64, 300), []
    torch.manual_seed(0)
    network = torch.nn.Sequential(*(torch.nn.Linear(300, 300) for _ in range(9)))
    replica = replicate(network, Processes(rank, size))
    for _ in range(3):
        network.zero_grad()
        with one_pass(replica, last=True):
            replica(inputs).square().sum().backward()
        steps.append(b"".join(p.grad.numpy().tobytes() for p in network.parameters()))
    return steps


def test_bits_do_not_depend_on_buckets(group_of):
    first = group_of(4).run(_two_steps, 4)[0]
    assert first[0] == first[1] == first[2]


def _lose(rank, number):
    network = torch.nn.Linear(2, 2)
    replica = replicate(network, Processes(rank, 2))
    if rank == 1:
        os.kill(os.getpid(), number)
    try:
        with one_pass(replica, last=True):
            replica(torch.ones(1, 2)).sum().backward()
    except ProcessLost as error:
        return str(error)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=lambda n: n.name)
def test_a_process_lost_in_the_backward_pass_is_named(tmp_path, number):
    pool = Pool(2, tmp_path / "meeting", timeout_seconds=8)
    try:
        pool.start(_lose, number)
        assert pool.answer(0).startswith("another process ended or did not answer in time: ")
    finally:
        pool.close()


@pytest.mark.parametrize("kind, wanted", [
    ("RuntimeError", "RuntimeError: aborted"),
    ("DistBackendError", "ProcessLost: another process ended or did not answer in time: aborted")])
def test_failures_of_a_backward_pass_have_their_cause(two, kind, wanted):
    """NCCL's failures are torch.distributed's own; others stay what they are."""
    assert two.run(_fail, kind) == [wanted] * 2


def _fail(rank, kind):
    def fail(_grad):
        raise {"RuntimeError": RuntimeError, "DistBackendError": dist.DistBackendError}[kind](
            "aborted")

    replica = replicate(torch.nn.Linear(2, 2), Processes(rank, 2))
    try:
        with one_pass(replica, last=True):
            output = replica(torch.ones(1, 2))
            output.register_hook(fail)
            output.sum().backward()
    except RuntimeError as error:
        return f"{type(error).__name__}: {error}"


def test_one_process_has_its_network():
    network = torch.nn.Linear(2, 2)
    assert replicate(network, Processes()) is network
