"""Several processes at one task: who takes which part, and what they tell each other."""

import contextlib
import datetime
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from pspnet_repro.defaults import TIMEOUT_SECONDS
from pspnet_repro.errors import FailedElsewhere, UsageError, UserError, first_line
from pspnet_repro.files import refuse_pipe
from pspnet_repro.torchrun import meet, parent_watched, variable, world_size

LOCAL = "local"  # as a group: this process alone, whatever others there are
_PATIENCE = datetime.timedelta(days=7)
_joined = None  # the Processes of the block of `join` that made the group
_groups = 0  # how many groups `join` made


class ProcessLost(UserError, RuntimeError):
    """Another process ended, or did not answer in time."""


@contextlib.contextmanager
def collective() -> Iterator[None]:
    """Around a call of torch.distributed: what breaks there is raised as ProcessLost."""
    try:
        yield
    except RuntimeError as error:
        # Gloo's words stand between its source line and advice.
        cause = re.sub(r"^\[[^]]*\] ", "", first_line(error)).partition(". ")[0]
        raise ProcessLost(f"another process ended or did not answer in time: {cause}") from error


def group_size(group: "dist.ProcessGroup | str | None" = None) -> int:
    """Number of processes in a group: None is all of them, or this one where it is alone; LOCAL
    is this one. Raises ValueError where this process is not in the group."""
    if group is LOCAL:
        return 1
    if not (dist.is_available() and dist.is_initialized()):
        if group is not None:
            raise ValueError("process_group must be None while torch.distributed is not "
                             "initialized")
        return 1
    if (size := dist.get_world_size(group)) < 1:
        raise ValueError("process_group must hold this process")
    return size


def all_gather(tensor: torch.Tensor, group: "dist.ProcessGroup | None" = None) -> torch.Tensor:
    """(processes, *shape): the tensors of all processes in the order of their ranks."""
    return start_all_gather(tensor, group)[0]


def start_all_gather(tensor: torch.Tensor, group: "dist.ProcessGroup | None" = None,
                     async_op: bool = False) -> "tuple[torch.Tensor, dist.Work | None]":
    """`all_gather` and, with async_op, the Work after which its tensor is filled."""
    gathered = tensor.new_empty((group_size(group), *tensor.shape))
    # torch 2.13 renamed all_gather_into_tensor, and warns of the old name.
    gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
    with collective():
        return gathered, gather(gathered.view(-1), tensor.flatten(), group, async_op)


def all_sum(tensor: torch.Tensor, group: "dist.ProcessGroup | None" = None) -> torch.Tensor:
    """Sum a tensor over all processes in place, and return it."""
    with collective():
        dist.all_reduce(tensor, group=group)
    return tensor


@dataclass(frozen=True)
class Processes:
    """The processes that work together, as one of them sees them.

    Every method but `shard` and `split` is to be called by all of them, in the same order; with
    one process all of them are trivial.
    """

    rank: int = 0  # number of this process, 0..size-1
    size: int = 1
    patient: "dist.ProcessGroup | None" = None  # of Gloo, for what may take long; None: the default

    @property
    def first(self) -> bool:
        """Whether this process writes files and speaks for all."""
        return self.rank == 0

    def shard(self, items: Sequence) -> Sequence:
        """This process's share of a list: every item is in exactly one process's share."""
        return items[self.rank::self.size]

    def split(self, batch_size: int) -> range:
        """The slots of a batch that are this process's. Raises UsageError where they cannot be
        equal."""
        if batch_size % self.size:
            raise UsageError(f"batch_size must be a multiple of the {self.size} processes, got "
                             f"{batch_size}")
        count = batch_size // self.size
        return range(self.rank * count, (self.rank + 1) * count)

    def gather(self, tensor: torch.Tensor) -> torch.Tensor:
        """(size, *shape): everybody's CPU tensor, in the order of ranks."""
        return tensor[None] if self.size == 1 else all_gather(tensor)

    def gather_numbers(self, numbers: Sequence[float]) -> list[list[float]]:
        """Everybody's numbers, in the order of ranks."""
        return self.gather(torch.tensor(numbers, dtype=torch.float64)).tolist()

    def sum_array(self, array: np.ndarray) -> None:
        """Sum an array over all processes in place, however long the slowest takes."""
        if self.size > 1:
            all_sum(torch.from_numpy(array), self.patient)

    def share_bytes(self, data: bytes | None) -> bytes:
        """The bytes that the first process gives; the others give anything."""
        if self.size == 1:
            return data
        size = torch.tensor([len(data) if self.first else 0])
        with collective():
            dist.broadcast(size, 0)
            content = torch.empty(size.item(), dtype=torch.uint8)
            if self.first and data:
                content = torch.frombuffer(bytearray(data), dtype=torch.uint8)
            if content.numel():
                dist.broadcast(content, 0)
        return content.numpy().tobytes()

    def share_file(self, path: Path) -> bytes | None:
        """The bytes of a file that the first process reads, or None where it has none."""
        data = None

        def read():
            nonlocal data
            refuse_pipe(path)
            data = path.read_bytes() if path.exists() else None
            return data is not None

        return self.share_bytes(data) if self.on_first(read) else None

    def check_alike(self, text: str, what: str) -> None:
        """Raise UserError in a process whose text is not the first's; `what` says what it is."""
        if self.share_bytes(text.encode()) != text.encode():
            raise UserError(f"process {self.rank} must have the first one's {what}")

    def wait(self) -> None:
        """Return when every process has called this."""
        self.gather(torch.zeros(1))

    def on_first(self, work: Callable[[], Any]) -> Any:
        """What work() returns in the first process, plain data; the others only wait for it. Where
        work() raises a UserError or OSError, the others raise FailedElsewhere."""
        if self.size == 1:
            return work()
        failure, outcome = None, {}
        if self.first:
            try:
                outcome = {"result": work()}
            except (UserError, OSError) as error:
                failure, outcome = error, {"error": str(error)}
        outcome = json.loads(self.share_bytes(json.dumps(outcome).encode()))
        if failure is not None:
            raise failure
        if "error" in outcome:
            raise FailedElsewhere(outcome["error"])
        return outcome["result"]


ALONE = Processes()


def find_device(kind: str) -> torch.device:
    """Where this process can compute: "cpu", or for "cuda" the GPU of its number on this machine.
    Raises UsageError for another word, or where there is no such GPU."""
    if kind not in ("cpu", "cuda"):
        raise UsageError(f"device must be cpu or cuda, got {kind!r}")
    if kind == "cpu":
        return torch.device("cpu")
    if not torch.backends.cuda.is_built():
        raise UsageError(f"device cuda: this torch ({torch.__version__}) is built without CUDA: "
                         "install a torch with CUDA and build this program again with it; "
                         "docs/gpu.md of its source says how")
    number, count = variable("LOCAL_RANK", 0, 2 ** 20, "0"), torch.cuda.device_count()
    if not count:
        raise UsageError("device cuda: torch finds no GPU; nvidia-smi says which the driver finds")
    if number >= count:
        raise UsageError(f"device cuda needs a GPU for each process of a machine, got {count} for "
                         f"process {number}: start at most {count}, --nproc-per-node {count}")
    return torch.device("cuda", number)


def choose_device(kind: str) -> torch.device:
    """`find_device`, which is this process's from now on and takes up memory."""
    device = find_device(kind)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def _check_command(processes, command):
    """Raise UsageError where the processes run different commands."""
    text = torch.tensor(list(command.encode()[:32].ljust(32)), dtype=torch.uint8)
    commands = [bytes(row.tolist()).decode().strip() or "another program"
                for row in processes.gather(text)]
    if len(set(commands)) > 1:
        other = next(k for k, name in enumerate(commands) if name != commands[0])
        raise UsageError(f"all processes must run one command: process 0 runs {commands[0]}, "
                         f"process {other} runs {commands[other]}")


@contextlib.contextmanager
def join(timeout_seconds: float = TIMEOUT_SECONDS, command: str = "") -> Iterator[Processes]:
    """The Processes that torchrun started, for the length of a with block.

    Tensors on the CPU go through Gloo, those on GPUs through NCCL. A block within another gets the
    outer one's, and a group that the caller has made is used as it is. Without torchrun there is
    one process.

    Args:
        timeout_seconds: how long a process waits for the others before it fails.
        command: what this process does, which all must do.
    Raises:
        UserError: the processes do not find each other.
        UsageError: torchrun's variables are not numbers, or another process runs another command.
    """
    global _joined, _groups
    if dist.is_available() and dist.is_initialized():
        yield _joined or Processes(dist.get_rank(), dist.get_world_size())
        return
    if world_size() == 1:
        yield ALONE
        return
    has_nccl = torch.cuda.is_available() and dist.is_nccl_available()
    backend = "cpu:gloo,cuda:nccl" if has_nccl else "gloo"
    timeout = datetime.timedelta(seconds=timeout_seconds)
    # Whatever the shell says: NCCL's watchdog ends a process whose partner is lost.
    os.environ |= {"TORCH_NCCL_ASYNC_ERROR_HANDLING": "3", "TORCH_NCCL_BLOCKING_WAIT": "0"}
    try:
        store, rank, size = meet(timeout)
        # A second group would else read the addresses that the first one left in the store.
        _groups += 1
        dist.init_process_group(backend, store=dist.PrefixStore(f"group{_groups}", store),
                                rank=rank, world_size=size, timeout=timeout)
        patient = dist.new_group(backend="gloo", timeout=_PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"the processes do not find each other: {first_line(error)}") from error
    try:
        _joined = Processes(rank, size, patient)
        _check_command(_joined, command)
        with parent_watched(timeout_seconds):
            yield _joined
    except ProcessLost:
        # Leaving would wait for a collective that NCCL never ends.
        dist.group.WORLD.abort()
        raise
    finally:
        _joined = None
        dist.destroy_process_group()
