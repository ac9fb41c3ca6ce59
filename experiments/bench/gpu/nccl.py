"""One rank of NCCL: batch normalization and exchanges as if there were several.

With one process nothing would be exchanged; here the path of several is taken, and its results must
be those of a process alone: equal, but for the float64 in which statistics are gathered.
"""

from collections.abc import Iterator

import torch

from pspnet_repro import distributed
from pspnet_repro.sync_bn import SyncBatchNorm2d, batch_norm_together

from ..cuda import FORMATS
from . import networks
from .part import Row, Setting

ALLOWED = 1e-6  # of the largest value


def _pass(x, grad, variance, shared):
    x = x.detach().requires_grad_()
    # With this momentum the running values are the batch's.
    layer = SyncBatchNorm2d(x.shape[1], momentum=1.0, variance=variance).to(x.device)
    with torch.no_grad():
        for parameter, low in ((layer.weight, 0.5), (layer.bias, -0.5)):
            parameter.copy_(torch.linspace(low, 1.5, x.shape[1]))
    output, = batch_norm_together([layer], [x], relu=True, shared=shared)
    return [output, layer.running_mean, layer.running_var,
            *torch.autograd.grad(output, (x, layer.weight, layer.bias), grad)]


def work(setting: Setting) -> Iterator[Row]:
    torch.manual_seed(0)
    shape = (2, 4, 9, 9) if setting.small else (16, 256, 60, 60)
    with networks.one_rank(setting):
        for name, layout in FORMATS.items():
            x, grad = (torch.randn(shape, device=setting.device).contiguous(memory_format=layout)
                       for _ in range(2))
            for variance in ("unbiased", "biased", "torch"):
                pairs = zip(_pass(x, grad, variance, True), _pass(x, grad, variance, False),
                            strict=True)
                error = max(((a - b).abs().max() / b.abs().max()).item() for a, b in pairs)
                yield {"what": f"BN + ReLU, {variance}, {name}", "error": error,
                       "allowed": ALLOWED}
        numbers = torch.arange(1000.0, device=setting.device)
        for what, result in (("all_gather", distributed.all_gather(numbers)[0]),
                             ("all_sum", distributed.all_sum(numbers.clone()))):
            yield {"what": what, "equal": torch.equal(result, numbers)}
