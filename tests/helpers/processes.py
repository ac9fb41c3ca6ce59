"""Gloo processes on this machine for tests."""

import datetime
import functools
import multiprocessing
import runpy
import sys
import traceback

import torch
import torch.distributed as dist

# torch's name of all_gather_into_tensor: the old one is deprecated.
GATHER = "all_gather_single" if hasattr(dist, "all_gather_single") else "all_gather_into_tensor"
LIMIT_SECONDS = 120  # of any one answer: a test that hangs fails then
# What a test module defines; a spawned process has no name to import it by.
_definitions = functools.cache(runpy.run_path)


def _serve(rank, size, meeting, timeout_seconds, pipe):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=size,
                            timeout=datetime.timedelta(seconds=timeout_seconds))
    while True:
        try:
            file, name, arguments = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send((True, _definitions(file)[name](rank, *arguments)))
        except Exception:
            pipe.send((False, traceback.format_exc()))


class Processes:
    """`size` processes in one group, kept for several tests.

    Args:
        size: how many.
        meeting: path of a file that does not exist yet.
        timeout_seconds: of their collectives.
    """

    def __init__(self, size, meeting, timeout_seconds=60):
        context = multiprocessing.get_context("spawn")
        self.pipes, self.members = [], []
        for rank in range(size):
            ours, theirs = context.Pipe()
            member = context.Process(target=_serve, daemon=True,
                                     args=(rank, size, str(meeting), timeout_seconds, theirs))
            member.start()
            theirs.close()
            self.pipes.append(ours)
            self.members.append(member)

    def start(self, function, *arguments):
        """Let every process call function(rank, *arguments), a function of a module."""
        for pipe in self.pipes:
            pipe.send((sys.modules[function.__module__].__file__, function.__name__, arguments))

    def answer(self, rank):
        """What a process's call returned (no tensors); AssertionError with what it raised."""
        assert self.pipes[rank].poll(LIMIT_SECONDS), f"rank {rank} does not answer"
        done, result = self.pipes[rank].recv()
        assert done, f"rank {rank}: {result}"
        return result

    def run(self, function, *arguments):
        """The answers of all processes, in the order of ranks."""
        self.start(function, *arguments)
        return [self.answer(rank) for rank in range(len(self.pipes))]

    def close(self):
        for pipe in self.pipes:
            pipe.close()
        for member in self.members:
            member.kill()
            member.join()


def count_collectives(counted, function):
    """function() with the collectives that it calls noted in the list `counted`."""
    names = (GATHER, "all_gather", "all_reduce", "broadcast", "barrier")
    real = {name: getattr(dist, name) for name in names}

    def noting(name):
        def call(*args, **kwargs):
            counted.append(name)
            return real[name](*args, **kwargs)
        return call

    try:
        for name in names:
            setattr(dist, name, noting(name))
        return function()
    finally:
        for name in names:
            setattr(dist, name, real[name])
