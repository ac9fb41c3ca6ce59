"""Mixed precision: what stays in float32 under autocast, and a whole network's step."""

import pytest
import torch

from pspnet_repro import PSPNet, ops
from pspnet_repro.sync_bn import SyncBatchNorm2d
from pspnet_repro.training.loss import guided_loss, softmax_loss

HALF = [torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_interp_runs_in_float32_under_autocast(dtype):
    x = torch.randn(1, 2, 4, 5).to(dtype).requires_grad_()
    with torch.autocast("cpu", dtype):
        y = ops.interp2d(x, (7, 9))
    assert y.dtype == torch.float32
    assert torch.equal(y, ops.interp2d(x.float(), (7, 9)))
    y.sum().backward()
    assert x.grad.dtype == dtype
    assert ops.interp2d(x, (7, 9)).dtype == dtype
    with torch.autocast("cpu", dtype):
        assert ops.interp2d(x.double(), (7, 9)).dtype == torch.float64


def test_interp_under_autocast_compiles():
    def run(x):
        with torch.autocast("cpu", torch.bfloat16):
            return ops.interp2d(x, (7, 9))

    x = torch.randn(1, 2, 4, 5).bfloat16()
    assert torch.equal(torch.compile(run, fullgraph=True, backend="eager")(x), run(x))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_batch_norm_takes_half_input_under_autocast(dtype, training):
    x, dy = torch.randn(4, 3, 6, 5).to(dtype), torch.randn(4, 3, 6, 5).to(dtype)
    half, whole = (SyncBatchNorm2d(3).train(training) for _ in range(2))
    a, b = x.clone().requires_grad_(), x.float().requires_grad_()
    with torch.autocast("cpu", dtype):
        y = half(a)
    wanted = whole(b)
    y.backward(dy)
    wanted.backward(dy.float())
    assert y.dtype == a.grad.dtype == dtype
    assert half.running_mean.dtype == half.running_var.dtype == torch.float32
    # Sums are in float32 either way; results are rounded to the half type once.
    rounding = torch.finfo(dtype).eps
    torch.testing.assert_close(y.float(), wanted, rtol=rounding, atol=0)
    torch.testing.assert_close(a.grad.float(), b.grad, rtol=rounding, atol=1e-6)
    assert torch.equal(half.running_var, whole.running_var)
    if training:
        torch.testing.assert_close(half.weight.grad, whole.weight.grad)
        assert half.weight.grad.dtype == torch.float32


def test_loss_runs_in_float32_under_autocast():
    logits = torch.randn(2, 5, 3, 3).bfloat16()
    labels = torch.randint(0, 5, (2, 3, 3))
    with torch.autocast("cpu", torch.bfloat16):
        loss = softmax_loss(logits, labels)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, softmax_loss(logits.float(), labels))


def _autocast_error(net, x, labels, guidance):
    """Of a step in bfloat16: relative error of the loss, and 1 - cosine of the gradients."""
    def step(enabled):
        net.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            logits, aux_logits = net(x)
            loss = sum(guided_loss(z, labels, guidance, 8) for z in (logits, aux_logits))
        loss.backward()
        assert logits.dtype == (torch.bfloat16 if enabled else torch.float32)
        assert loss.dtype == torch.float32
        return loss.item(), torch.cat([p.grad.flatten() for p in net.parameters()])

    (loss, grads), (wanted, wanted_grads) = step(True), step(False)
    return abs(loss / wanted - 1), 1 - torch.cosine_similarity(grads, wanted_grads, dim=0).item()


@pytest.mark.parametrize("guidance", ["eighth", "full"])
def test_network_trains_under_autocast(guidance):
    """As well as with torch's own batch normalization: 8 bits through a dozen layers lose much."""
    net = PSPNet(4, width=0.125, stem_width=8, blocks=(1, 1, 1, 1), dropout=0.0, variance="torch")
    x, labels = torch.randn(2, 3, 57, 57), torch.randint(0, 4, (2, 57, 57))
    error, turn = _autocast_error(net, x, labels, guidance)
    _, torch_turn = _autocast_error(SyncBatchNorm2d.convert_to_torch(net), x, labels, guidance)
    assert error < 0.01 and turn <= 1.2 * torch_turn
