"""A network that several processes train together: torch's DistributedDataParallel."""

import contextlib
import inspect
from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from pspnet_repro.distributed import Processes, ProcessLost, collective, start_all_gather

# Running values are the same bits in every process. torch 2.13 renamed the option.
_SYNC_BUFFERS = ("forward_sync_buffers" if "forward_sync_buffers" in
                 inspect.signature(DistributedDataParallel).parameters else "broadcast_buffers")


class Replica(DistributedDataParallel):
    """A network in one of several processes, with gradients that are means over all of them.

    The mean of a bucket of gradients is under way while the backward pass makes the next ones.

    Args:
        network: has the same weights in every process, is on its device and in its memory format;
            then `module`. What must not learn does not ask for a gradient; all else has a part in
            the loss.
    """

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__(network, init_sync=False, gradient_as_bucket_view=True,
                         **{_SYNC_BUFFERS: False})
        self._lost = []
        if next(network.parameters()).device.type == "cpu":
            self.register_comm_hook(self._lost, _mean_in_order)

    @contextlib.contextmanager
    def one_pass(self, last: bool) -> Iterator[None]:
        """A with block of a forward and a backward pass; gradients add up in this process, and the
        `last` pass of a step makes the means. Raises ProcessLost."""
        try:
            with contextlib.nullcontext() if last else self.no_sync():
                yield
        except RuntimeError as error:
            if self._lost:
                raise self._lost[0] from error
            if isinstance(error, dist.DistError):
                with collective():
                    raise
            raise


def replicate(network: torch.nn.Module, processes: Processes) -> torch.nn.Module:
    """The network's Replica; where there is one process, the network."""
    return network if processes.size == 1 else Replica(network)


def one_pass(network: torch.nn.Module, last: bool) -> contextlib.AbstractContextManager[None]:
    """The block `Replica.one_pass` of what `replicate` gave."""
    return network.one_pass(last) if isinstance(network, Replica) else contextlib.nullcontext()


def _mean_in_order(lost: list[ProcessLost],
                   bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
    """DistributedDataParallel's hook for Gloo: sums in the order of ranks.

    Gloo's own order depends on the place within a bucket, and the buckets of the first step are
    others: a training that resumes would have other bits.
    """
    tensor = bucket.buffer()
    gathered, work = start_all_gather(tensor, async_op=True)

    def mean(future):
        try:
            with collective():
                future.wait()
        except ProcessLost as error:
            lost.append(error)
            raise
        total = tensor.copy_(gathered[0])
        for part in gathered[1:]:
            total += part
        return total.div_(len(gathered))

    return work.get_future().then(mean)
