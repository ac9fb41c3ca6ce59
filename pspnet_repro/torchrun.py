"""What torchrun tells the processes that it starts, and what becomes of them when it is gone."""

import contextlib
import datetime
import os
import signal
import threading
from collections.abc import Iterator

import torch.distributed as dist

from pspnet_repro.errors import UsageError, UserError


def variable(name: str, low: int, high: int, default: str) -> int:
    """A number that torchrun sets in the environment. Raises UsageError for anything else."""
    text = os.environ.get(name, default)
    if not (text.isascii() and text.isdigit() and low <= int(text) <= high):
        raise UsageError(f"{name} must be a whole number from {low} to {high}, got {text!r}: "
                         "torchrun sets it; unset it to run one process")
    return int(text)


def world_size() -> int:
    """How many processes torchrun started; 1 without it. Raises UsageError where its variables
    are no numbers."""
    size = variable("WORLD_SIZE", 1, 2 ** 20, "1")
    if size > 1:
        missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT")
                   if not os.environ.get(name)]
        if missing:
            raise UsageError(f"{missing[0]} must be set where WORLD_SIZE is {size}: start the "
                             "processes with torchrun, or unset WORLD_SIZE")
        variable("RANK", 0, size - 1, "0")
        variable("LOCAL_RANK", 0, size - 1, "0")
        variable("MASTER_PORT", 1, 2 ** 16 - 1, "1")
    return size


def meet(timeout: datetime.timedelta) -> tuple[dist.Store, int, int]:
    """(store, rank, size) of torch's rendezvous. Raises UserError where nobody answered in time,
    else as torch does.

    In a thread: torch waits for ever where another program holds the port and never answers.
    """
    outcome = []

    def rendezvous():
        try:
            outcome.append(next(dist.rendezvous("env://", timeout=timeout)))
        except Exception as error:  # raised below, in the thread that waits
            outcome.append(error)

    thread = threading.Thread(target=rendezvous, daemon=True)
    thread.start()
    # torch's own words come first where it has any.
    thread.join(timeout.total_seconds() + 2)
    if not outcome:
        place = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise UserError(f"the processes do not find each other: {place} does not answer within "
                        f"{timeout.total_seconds():g} s; is the port another program's? Choose "
                        "another with torchrun --master-port")
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    return outcome[0]


@contextlib.contextmanager
def parent_watched(seconds: float) -> Iterator[None]:
    """A block in which this process ends when torchrun, which started it, is gone: first as after
    Ctrl-C, and by force where that takes longer than `seconds`."""
    left = threading.Event()
    parent = os.getppid()

    def watch():
        while os.getppid() == parent:
            if left.wait(min(1.0, seconds / 4)):
                return
        os.kill(os.getpid(), signal.SIGINT)
        if not left.wait(seconds):
            os._exit(1)

    if "TORCHELASTIC_RUN_ID" in os.environ:
        threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        left.set()
