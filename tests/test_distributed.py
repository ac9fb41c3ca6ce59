"""Processes that train and test together: in one pool here, under torchrun in test_torchrun.py."""

import json
import os
import re
import signal
import time

import numpy as np
import pytest
import torch
from helpers.networks import MODEL
from helpers.processes import Processes as Pool
from helpers.trainings import run_training, run_until_saved, train_settings

from pspnet_repro import PSPNet, distributed
from pspnet_repro.data.augment import Augmentation
from pspnet_repro.data.pairs import read_list
from pspnet_repro.data.training_sequence import TrainingSequence, batches
from pspnet_repro.distributed import Processes, ProcessLost
from pspnet_repro.errors import FailedElsewhere, Interrupted, UsageError, UserError
from pspnet_repro.sync_bn import SyncBatchNorm2d
from pspnet_repro.training.freezing import freeze, learning
from pspnet_repro.training.loop import _build, average_backward, weights_digest
from pspnet_repro.training.replica import replicate
from pspnet_repro.training.settings import TrainSettings
from pspnet_repro.training.solver import CaffeSGD, parameter_groups, poly_rate
from pspnet_repro.weights import plain_file

pytestmark = pytest.mark.dist
# No label is lost at a border, so every process has as many labelled pixels.
WHOLE = Augmentation(scales=None, rotation=0.0, blur=False)
# At 0.01 a ReLU near its edge turns in one seed of two: one process parts from itself in float64.
SLOW = 0.001
TWO_PASSES = {"iter_size": 2, "max_iter": 6}
CALM = {**MODEL, "dropout": 0.0, "variance": "biased"}


@pytest.fixture
def fragile(tmp_path):
    """Two processes that wait for each other for 3 seconds, to be broken by the test."""
    pool = Pool(2, tmp_path / "meeting", timeout_seconds=3)
    yield pool
    pool.close()


def test_batches_are_split_evenly_or_refused():
    assert [list(Processes(rank, 4).split(8)) for rank in range(4)] == [
        [0, 1], [2, 3], [4, 5], [6, 7]]
    assert Processes().split(3) == range(3)
    with pytest.raises(UsageError, match="batch_size must be a multiple of the 3 processes, got "
                                         "16"):
        Processes(0, 3).split(16)


@pytest.mark.parametrize("count", [0, 1, 7, 8])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_shards_hold_every_item_once(count, size):
    shards = [Processes(rank, size).shard(list(range(count))) for rank in range(size)]
    assert sorted(sum(shards, [])) == list(range(count))
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


def test_processes_start_with_the_same_weights_and_dropout_of_their_own(squares):
    starts = []
    for processes in (Processes(), Processes(0, 2), Processes(1, 2)):
        model, _ = _build(train_settings(squares), processes)
        starts.append((weights_digest(model), torch.rand(8).tolist()))
    assert starts[0] == starts[1]
    assert starts[2][0] == starts[0][0] and starts[2][1] != starts[0][1]


@pytest.mark.parametrize("workers", [0, 2])
def test_slots_of_all_processes_are_the_whole_batch(squares, workers):
    sequence = TrainingSequence(read_list(squares / "train.txt"), 4, 57, Augmentation(), 3)
    whole = list(batches(sequence, 6, 2, 5, 0))
    parts = [list(batches(sequence, 6, 2, 5, workers, Processes(rank, 3).split(6)))
             for rank in range(3)]
    assert len(whole) == 3
    for step, (images, labels) in enumerate(whole):
        assert torch.equal(images, torch.cat([part[step][0] for part in parts]))
        assert torch.equal(labels, torch.cat([part[step][1] for part in parts]))


def _exchange(rank):
    with distributed.join() as processes:
        assert (processes.rank, processes.size, processes.first) == (rank, 2, rank == 0)
        counts = np.array([[1, 2 ** 53 + 1], [rank, 0]])
        processes.sum_array(counts)
        processes.wait()
        return {"numbers": processes.gather_numbers([rank, 0.1]), "counts": counts.tolist(),
                "bytes": [processes.share_bytes(data if rank == 0 else None)
                          for data in (b"", b"\0abc")],
                "first": processes.on_first(lambda: [rank, "done"])}


def test_processes_exchange(two):
    answer = {"numbers": [[0, 0.1], [1, 0.1]], "counts": [[2, 2 ** 54 + 2], [1, 0]],
              "bytes": [b"", b"\0abc"], "first": [0, "done"]}
    assert two.run(_exchange) == [answer, answer]


def _fail_on_first(rank, kind):
    def fail():
        assert rank == 0, "the others only wait"
        raise kind("no space")

    with distributed.join() as processes:
        try:
            processes.on_first(fail)
        except (FailedElsewhere, UserError, OSError) as error:
            return type(error).__name__, str(error)


@pytest.mark.parametrize("kind", [UserError, UsageError, OSError])
def test_mistakes_of_the_first_process_end_all(two, kind):
    assert two.run(_fail_on_first, kind) == [(kind.__name__, "no space"),
                                             ("FailedElsewhere", "no space")]


def _follow(rank, dtype, size, frozen):
    """Ten iterations on given images; parameters and running values afterwards.

    What is frozen has the statistics of the first images.
    """
    processes = Processes(rank, size)
    settings = _settings_of(CALM)
    torch.manual_seed(0)
    model = PSPNet(**CALM, initial_running_var=0.0).to(dtype).train()
    generator = torch.Generator().manual_seed(7)
    if frozen:
        for module in model.modules():
            if isinstance(module, SyncBatchNorm2d):
                module.momentum = 1.0
        model(torch.randn((8, 3, 57, 57), generator=generator, dtype=torch.float64).to(dtype) * 60)
        freeze(model, **frozen)
    replica = replicate(model, processes)
    solver = CaffeSGD(learning(parameter_groups(model)), SLOW)
    slots = processes.split(8)
    for iteration in range(10):
        images = torch.randn((8, 3, 57, 57), generator=generator, dtype=torch.float64) * 60
        labels = torch.randint(0, 4, (8, 57, 57), generator=generator)
        solver.set_rate(poly_rate(SLOW, iteration, 10, 0.9))
        part = slice(slots.start, slots.stop)
        losses = average_backward(replica, solver, [(images[part].to(dtype), labels[part])],
                                  settings)
        solver.step()
    assert losses[0][0].isfinite()
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def _worst_error(tensors, wanted):
    """Largest error over a tensor's largest value.

    A BN's weight and bias are one scale: the bias starts at 0 and stays near it.
    """
    def scale(name):
        names = (name, name[:-4] + "weight") if name.endswith(".bn.bias") else (name,)
        return max(float(abs(wanted[n]).max()) for n in names)

    return max(float(abs(tensors[name] - value).max()) / scale(name)
               for name, value in wanted.items())


def _settings_of(model):
    return TrainSettings(model=model, data="test", list_sha256="", crop_size=57, threads=1)


@pytest.mark.parametrize("dtype, tolerance, frozen", [
    (torch.float64, 1e-9, {}), (torch.float32, 2e-4, {}),
    (torch.float64, 1e-9, {"backbone": True})], ids=["float64", "float32", "frozen-backbone"])
def test_two_processes_follow_one(two, dtype, tolerance, frozen):
    """2 ranks x batch 4 against 1 x batch 8: the original's data parallelism is no other step."""
    ranks = two.run(_follow, dtype, 2, frozen)
    wanted = _follow(0, dtype, 1, frozen)
    for name in wanted:
        assert ranks[0][name].tobytes() == ranks[1][name].tobytes(), name
    assert _worst_error(ranks[0], wanted) <= tolerance


def _train_part(rank, data, output, changes):
    torch.set_num_threads(1)
    return str(run_training(data, output, changes))


def test_training_over_processes_follows_one(two, squares, tmp_path):
    """The same through files: sampler, augmentation, losses, checkpoints of the first rank.

    For four steps: in the sixth the rounding of float32 turns a ReLU at its edge, and parameters
    part by 4e-4. test_two_processes_follow_one goes on in float64.
    """
    changes = {"model": CALM, "batch_size": 8, "max_iter": 4, "augmentation": WHOLE,
               "base_lr": SLOW}
    together, alone = tmp_path / "two", tmp_path / "one"
    assert two.run(_train_part, squares, together, changes) == [str(together / "weights.pt")] * 2
    _train_part(0, squares, alone, changes)
    ours, wanted = (plain_file.load(folder / "weights.pt") for folder in (together, alone))
    assert (ours["processes"], wanted["processes"]) == (2, 1)
    assert ours["initial_sha256"] == wanted["initial_sha256"]
    assert _worst_error(ours["weights"], wanted["weights"]) <= 5e-5
    lines = [[json.loads(line) for line in (folder / "losses.jsonl").read_text().splitlines()]
             for folder in (together, alone)]
    assert len(lines[0]) == 4
    for a, b in zip(*lines, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=5e-5)
        assert a["loss_aux"] == pytest.approx(b["loss_aux"], rel=5e-5)
    assert sorted(p.name for p in together.iterdir()) == sorted(p.name for p in alone.iterdir())
    assert "processes: 2" in (together / "log.txt").read_text()


def _fail_to_train(rank, data, output, changes):
    try:
        _train_part(rank, data, output, changes)
    except UserError as error:
        return type(error).__name__, str(error)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_missing_gpus_are_named(squares, tmp_path):
    with pytest.raises(UsageError, match="device cuda: (this torch .* is built without CUDA|torch "
                                         "finds no GPU)"):
        run_training(squares, tmp_path, device="cuda")


def _fail_to_train_unlike(rank, data, output):
    return _fail_to_train(rank, data, output, {"seed": rank})


def test_processes_that_start_otherwise_are_refused(fragile, squares, tmp_path):
    fragile.start(_fail_to_train_unlike, squares, tmp_path / "run")
    assert fragile.answer(1) == ("UserError", "process 1 must have the first one's settings and "
                                              "initial weights")
    assert fragile.answer(0)[0] == "ProcessLost"


def test_uneven_batches_are_refused(two, squares, tmp_path):
    failed = two.run(_fail_to_train, squares, tmp_path / "run", {"batch_size": 3})
    words = "batch_size must be a multiple of the 2 processes, got 3"
    assert failed == [("UsageError", words)] * 2


def test_a_loss_that_is_not_finite_ends_all_with_its_images(two, squares, tmp_path):
    failed = two.run(_fail_to_train, squares, tmp_path / "run", {"base_lr": 1e30})
    assert failed[0] == failed[1] and failed[0][0] == "UserError"
    assert re.search(r"loss is nan at iteration 1: .* images of this step: \S+\.png$", failed[0][1])


def test_states_belong_to_a_number_of_processes(two, squares, tmp_path):
    run_until_saved(squares, tmp_path)
    failed = two.run(_fail_to_train, squares, tmp_path, {})
    assert failed[0] == failed[1]
    assert failed[0][1].endswith("does not fit this training: it was saved by 1 process, not 2")


def _train_with_signal(rank, data, output, number):
    """Train; in the third pass rank 1 gets a signal. Kind, words and seconds of the end."""
    forward, calls = PSPNet.forward, []

    def forward_with_signal(self, x):
        calls.append(1)
        if rank == 1 and len(calls) == 3:
            os.kill(os.getpid(), number)
        return forward(self, x)

    began = time.monotonic()
    PSPNet.forward = forward_with_signal
    try:
        _train_part(rank, data, output, TWO_PASSES)
    except (UserError, Interrupted) as stop:
        return type(stop).__name__, str(stop), time.monotonic() - began
    finally:
        PSPNet.forward = forward


def test_a_signal_to_one_stops_all_and_resumes_to_the_same_bits(two, squares, tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    two.run(_train_part, squares, whole, TWO_PASSES)
    stops = two.run(_train_with_signal, squares, cut, signal.SIGTERM)
    assert [stop[:2] for stop in stops] == [
        ("Interrupted", "stopped after step 2 of 6; the same command resumes")] * 2
    assert plain_file.load(cut / "checkpoint.pt")["iteration"] == 2
    two.run(_train_part, squares, cut, TWO_PASSES)
    ours, wanted = (plain_file.load(folder / "weights.pt")["weights"] for folder in (cut, whole))
    assert all(torch.equal(ours[name], tensor) for name, tensor in wanted.items())
    assert (cut / "losses.jsonl").read_text() == (whole / "losses.jsonl").read_text()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=lambda n: n.name)
def test_a_lost_process_ends_the_others(fragile, squares, tmp_path, number):
    fragile.start(_train_with_signal, squares, tmp_path / "run", number)
    kind, words, seconds = fragile.answer(0)
    assert kind == "ProcessLost" and words.startswith(
        "another process ended or did not answer in time: "), words
    assert ("Timed out" in words) == (number == signal.SIGSTOP), words
    assert seconds < 60  # two steps and 3 seconds of waiting, on a busy machine
    assert "failed: another process" in (tmp_path / "run" / "log.txt").read_text()
    assert fragile.members[0].is_alive()


def test_a_failed_collective_is_also_a_runtime_error():
    with pytest.raises(RuntimeError), distributed.collective():
        raise RuntimeError("[gloo.cc:5] Timed out waiting 5ms. This is advice.")
    with pytest.raises(ProcessLost, match="in time: Timed out waiting 5ms$"):
        with distributed.collective():
            raise RuntimeError("[gloo.cc:5] Timed out waiting 5ms. This is advice.")
