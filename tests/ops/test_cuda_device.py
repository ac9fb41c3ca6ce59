"""What only a card can show: CUDA graphs, autocast and whole networks on the GPU."""

import os

import numpy as np
import pytest
import torch

from pspnet_repro import PSPNet, ops
from pspnet_repro.evaluation import Protocol, predict_stream
from pspnet_repro.sync_bn import SyncBatchNorm2d

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available()
                       and os.environ.get("PSPNET_REQUIRE_CUDA") != "1",
                       reason="torch finds no GPU"),
]


def _network(x):
    y = ops.window_pool2d(x, 3, 2, 1, "max")
    levels = (*ops.pyramid_pool2d(y, (1, 2, 3, 6)), *ops.pyramid_pool2d(y, (2,), "max"))
    return sum(ops.interp2d(level, x.shape[2:]) for level in levels)


def test_operators_run_under_a_cuda_graph():
    bn = SyncBatchNorm2d(8).cuda()
    x = torch.randn(2, 8, 24, 24, device="cuda", requires_grad=True)

    def step():
        x.grad = None
        output = bn(_network(x), relu=True)
        output.square().sum().backward()
        return output

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    x.grad = None
    with torch.cuda.graph(graph):
        output = step()
    values = torch.randn_like(x)
    with torch.no_grad():
        x.copy_(values)
    graph.replay()
    seen = output.clone(), x.grad.clone()
    wanted = step()
    assert torch.equal(seen[0], wanted) and torch.equal(seen[1], x.grad)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_autocast_on_cuda(dtype):
    bn = SyncBatchNorm2d(8).cuda()
    x = torch.randn(2, 8, 12, 12, device="cuda")
    with torch.autocast("cuda", dtype=dtype):
        half = _convolved(x)
        assert half.dtype == dtype and bn(half).dtype == dtype
        assert ops.interp2d(half, (24, 24)).dtype == torch.float32


def _convolved(x):
    """A convolution, which autocast runs in the half type."""
    weight = torch.randn(8, 8, 1, 1, device=x.device)
    return torch.nn.functional.conv2d(x, weight)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
def test_network_matches_cpu(memory_format):
    torch.manual_seed(0)
    net = PSPNet(5, blocks=(1, 1, 1, 1), width=0.25, stem_width=8, dropout=0.0).double()
    x = torch.randn(2, 3, 89, 89, dtype=torch.double).contiguous(memory_format=memory_format)
    results = []
    for device in ("cpu", "cuda"):
        net.to(device).zero_grad()
        logits, aux = net(x.to(device))
        (logits.square().mean() + aux.square().mean()).backward()
        # Copies: the network takes its gradients along to the next device.
        results.append([tensor.detach().cpu().clone() for tensor in (
            logits, *(p.grad for p in net.parameters()))])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


def test_evaluation_stays_on_the_gpu_and_matches_cpu():
    torch.manual_seed(0)
    net = PSPNet(5, blocks=(1, 1, 1, 1), width=0.25, stem_width=8).eval()
    image = np.random.default_rng(0).integers(0, 256, (120, 97, 3)).astype(np.uint8)
    protocol = Protocol(128, 89, (0.5, 1.0, 1.5))
    with torch.backends.cudnn.flags(allow_tf32=False):
        on_cpu, on_gpu = (next(predict_stream(net.to(device), [image], classes=5,
                                              protocol=protocol)) for device in ("cpu", "cuda"))
    assert on_gpu.device.type == "cuda"
    agreement = (on_gpu.argmax(0).cpu() == on_cpu.argmax(0)).double().mean()
    assert agreement >= 0.999, "the untrained network's scores may tie in a pixel or two"
