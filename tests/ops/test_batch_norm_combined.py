"""BN with an addition and a ReLU behind it, and what follows an exchange of statistics."""

import pytest
import torch

from pspnet_repro import ops
from pspnet_repro.model.resnet import Bottleneck
from pspnet_repro.ops import reference
from pspnet_repro.sync_bn import SyncBatchNorm2d, batch_norm_together

SHAPES = [(2, 5, 7, 9), (3, 16, 12, 12), (1, 37, 1, 1), (1, 1, 70, 70)]
FORMATS = [torch.contiguous_format, torch.channels_last]
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def _tensors(shape, dtype, memory_format):
    """Input, residual and gradient; mean, invstd, weight and bias."""
    torch.manual_seed(sum(shape))
    maps = [torch.randn(shape, dtype=torch.double).to(dtype).contiguous(
        memory_format=memory_format) for _ in range(3)]
    wide = torch.promote_types(dtype, torch.float32)
    return maps, [torch.rand(shape[1], dtype=torch.double).sub(shift).to(wide)
                  for shift in (0.5, -0.5, -0.5, 0.5)]


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_addition_and_relu_behind_match_the_steps(shape, dtype, memory_format):
    (x, other, grad), norm = _tensors(shape, dtype, memory_format)
    output = ops.batch_norm_normalize(x, *norm, True, other)
    if dtype.itemsize >= 4:  # the same bits; half types round once less
        assert torch.equal(output, (ops.batch_norm_normalize(x, *norm) + other).relu())
    wanted = reference.batch_norm_normalize(x.double(), *[t.double() for t in norm], True,
                                            other.double())
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(output.double(), wanted, rtol=4 * eps, atol=4 * eps)
    assert output.is_contiguous(memory_format=memory_format)

    grad_residual, *sums = ops.batch_norm_backward_residual(grad, x, other, *norm)
    assert torch.equal(grad_residual, grad.masked_fill(output <= 0, 0))
    assert grad_residual.is_contiguous(memory_format=memory_format)
    for actual, same in zip(sums, ops.batch_norm_backward_reduce(grad_residual, x, *norm),
                            strict=True):
        assert torch.equal(actual, same)


@pytest.mark.parametrize("unbiased, unbiased_running",
                         [(False, False), (True, True), (False, True)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_statistics_of_one_process_have_the_bits_of_torch(dtype, unbiased, unbiased_running):
    torch.manual_seed(0)
    for count, momentum in ((1, 0.05), (2, 0.9), (898704, 0.05), (2 ** 24 + 3, 1.0)):
        means, sqdevs, *running = (torch.rand(1003, dtype=dtype) * scale
                                   for scale in (5, count, 2, 3))
        ours, wanted = ([t.clone() for t in running] for _ in range(2))
        mean, invstd, total = ops.batch_norm_combine(
            means[None], sqdevs[None], None, count, 1e-5, unbiased, unbiased_running, momentum,
            *ours)
        divisors = [max(count - 1, 1) if corrected else count
                    for corrected in (unbiased, unbiased_running)]
        wanted[0].lerp_(means, momentum)
        wanted[1].lerp_(sqdevs / divisors[1], momentum)
        assert torch.equal(mean, means) and total.item() == count
        assert torch.equal(invstd, (sqdevs / divisors[0] + 1e-5).rsqrt_())
        assert all(map(torch.equal, ours, wanted))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("counts", [[3, 5], [1, 0, 4, 9], [0, 1], [7]], ids=str)
def test_statistics_of_processes_match_reference(counts, dtype):
    torch.manual_seed(1)
    gathered = torch.rand(len(counts), 1 + 2 * 11, dtype=torch.double)
    gathered[:, 0] = torch.tensor(counts)
    elements, means, sqdevs = gathered.split([1, 11, 11], 1)
    running = [torch.rand(11, dtype=dtype) for _ in range(2)]
    arguments = means, sqdevs, elements[:, 0], 0, 1e-5, True, True, 0.1
    ours, wanted = ([t.clone() for t in running] for _ in range(2))
    actual = ops.batch_norm_combine(*arguments, *ours)
    expected = reference.batch_norm_combine(*arguments, *wanted)
    for one, other in zip((*actual, *ours), (*expected, *wanted), strict=True):
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other, rtol=4 * torch.finfo(dtype).eps, atol=0)


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
def test_new_steps_opcheck(memory_format):
    (x, other, grad), norm = _tensors((2, 5, 4, 3), torch.float32, memory_format)
    op = torch.ops.pspnet
    torch.library.opcheck(op.batch_norm_normalize, (x, *norm, True, other))
    torch.library.opcheck(op.batch_norm_backward_residual, (grad, x, other, *norm))
    torch.library.opcheck(op.batch_norm_combine, (
        torch.rand(2, 5), torch.rand(2, 5), torch.ones(2), 0, 1e-5, True, True, 0.1, norm[0],
        norm[1]))


def test_new_steps_reject_other_shapes():
    (x, other, grad), norm = _tensors((2, 3, 4, 4), torch.float32, torch.contiguous_format)
    with pytest.raises(RuntimeError, match=r"residual must have shape \[2, 3, 4, 4\], got"):
        ops.batch_norm_normalize(x, *norm, True, other[:1])
    with pytest.raises(RuntimeError, match="residual must be Float, got Half"):
        ops.batch_norm_backward_residual(grad, x, other.half(), *norm)
    rest = 0, 1e-5, True, True, 0.1, norm[0], norm[1]
    with pytest.raises(RuntimeError, match="counts must be there for more than one process, got 2"):
        ops.batch_norm_combine(torch.rand(2, 3), torch.rand(2, 3), None, *rest)
    with pytest.raises(RuntimeError, match=r"sqdevs must have shape \[2, 3\], got \[1, 3\]"):
        ops.batch_norm_combine(torch.rand(2, 3), torch.rand(1, 3), torch.ones(2), *rest)
    with pytest.raises(RuntimeError, match=r"running_mean must have shape \[4\], got \[3\]"):
        ops.batch_norm_combine(torch.rand(1, 4), torch.rand(1, 4), None, *rest)


@pytest.mark.parametrize("training", [True, False], ids=["training", "frozen"])
@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
def test_a_residual_block_has_the_bits_of_its_steps(training, memory_format):
    torch.manual_seed(0)
    block = Bottleneck(8, 4, 1, 1, "3x3", project=True).train(training)
    images = torch.randn(2, 8, 9, 7).contiguous(memory_format=memory_format)

    def steps(x):
        increase = block.increase
        return (increase.bn(increase.conv(block.spatial(block.reduce(x)))) + block.project(x)
                ).relu()

    results = []
    for function in (block, steps):
        for module in block.modules():
            if isinstance(module, SyncBatchNorm2d):
                module.running_mean.zero_()
                module.running_var.fill_(1)
        x = images.clone().requires_grad_()
        block.zero_grad()
        output = function(x)
        output.square().sum().backward()
        results.append([output, x.grad, *(p.grad for p in block.parameters()
                                          if p.grad is not None), *block.buffers()])
        results[-1] = [t.detach().clone() for t in results[-1]]
    assert all(map(torch.equal, *results))


def test_a_backward_pass_makes_no_zeros():
    block = Bottleneck(8, 4, 1, 1, "3x3", project=True).train()
    output = block(torch.randn(2, 8, 9, 7, requires_grad=True)).sum()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        output.backward()
    names = {event.key for event in profile.key_averages()}
    assert "pspnet::batch_norm_backward_residual" in names
    assert not {name for name in names if "zeros" in name}


def test_layers_together_have_the_bits_of_each():
    torch.manual_seed(0)
    inputs = [torch.randn(2, 3, size, size, requires_grad=True) for size in (1, 2, 3)]
    results = []
    for together in (True, False):
        layers = [SyncBatchNorm2d(3) for _ in inputs]
        for x in inputs:
            x.grad = None
        outputs = (batch_norm_together(layers, inputs, relu=True) if together else
                   [layer(x, True) for layer, x in zip(layers, inputs)])
        sum((k + 1) * output.square().sum() for k, output in enumerate(outputs)).backward()
        results.append([t.detach().clone() for layer, x, output in zip(layers, inputs, outputs)
                        for t in (output, x.grad, layer.weight.grad, *layer.buffers())])
    assert all(map(torch.equal, *results))
