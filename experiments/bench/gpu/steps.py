"""Whole training steps and tests for each precision and layout, with peak memory.

Ours against the plain port with DistributedDataParallel's defaults and SyncBatchNorm; in tests ours
is folded as in evaluation.
"""

import gc
from collections.abc import Iterator

import torch

from pspnet_repro.evaluation.graph import GraphedNetwork

from ...peak_memory import peak_bytes, reset_peak
from ..cuda import FORMATS
from ..networks import plain_port
from ..timing import device_seconds
from . import networks
from .part import Row, Setting


def _measure(setting, make, precision):
    """{"ms", "peak MiB"} of the closure that make() gives, or {"failed": why}."""
    gc.collect()  # the one before may live on in cycles
    reset_peak(setting.device)
    try:
        with networks.precise(setting, precision):
            run, device = make(), torch.device(setting.device)
            for _ in range(2):
                device_seconds(run, device, 1)  # cuDNN chooses
            times = sorted(device_seconds(run, device, 1) for _ in range(1 if setting.small else 5))
    except torch.OutOfMemoryError as error:
        return {"failed": str(error).partition(". ")[0]}
    return {"ms": 1e3 * times[len(times) // 2], "peak MiB": peak_bytes(setting.device) // 2 ** 20}


def _training(setting, layout, x):
    def ours():
        return networks.our_step(networks.network(setting).to(memory_format=layout), x)

    def port():
        net = networks.network(setting).to(memory_format=layout)
        return networks.port_step(networks.training_port(net, setting), x)

    return {"ours": ours, "plain port": port}


def _testing(setting, layout, x, precision):
    dtype = torch.bfloat16 if precision == "bfloat16" else None

    def run(net, by_layer):
        def test():
            with torch.inference_mode(), torch.autocast(setting.device, torch.bfloat16,
                                                        enabled=by_layer):
                net.logits(x)
        return test

    def fused():
        net = networks.network(setting).to(memory_format=layout).eval()
        return net.for_inference(dtype)

    def ours():
        return run(fused(), False)  # all of it is bfloat16

    def graphed():
        return run(GraphedNetwork(fused()), False)

    def port():
        net = plain_port(networks.network(setting)).to(setting.device)
        return run(net.to(memory_format=layout), dtype is not None)

    return {"ours": ours, **({"ours, graph": graphed} if setting.device == "cuda" else {}),
            "plain port": port}


def work(setting: Setting) -> Iterator[Row]:
    images = 2 if setting.small else 8
    with networks.one_rank(setting):
        for precision in networks.PRECISIONS:
            for name, layout in FORMATS.items():
                x = networks.batch(setting, images).to(memory_format=layout)
                for what, sides in (("training step", _training(setting, layout, x)),
                                    ("test", _testing(setting, layout, x, precision))):
                    for side, make in sides.items():
                        yield {"what": f"{what}, {images} images", "precision": precision,
                               "layout": name, "side": side,
                               **_measure(setting, make, precision)}
