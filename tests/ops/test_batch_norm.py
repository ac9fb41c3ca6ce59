"""The local BN steps and SyncBatchNorm2d in one process."""

import re

import numpy as np
import pytest
import torch
from helpers.golden import golden_files, read_golden

from pspnet_repro import ops
from pspnet_repro.ops import reference
from pspnet_repro.sync_bn import SyncBatchNorm2d, torch_momentum

SHAPES = [(2, 5, 7, 9), (3, 16, 12, 12), (1, 37, 1, 1), (4, 3, 60, 41), (1, 1, 70, 70)]
FORMATS = [torch.contiguous_format, torch.channels_last]
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def _inputs(shape, dtype, memory_format, offset=3.0):
    x = (torch.randn(shape, dtype=torch.float64) * 2 + offset).to(dtype)
    grad = torch.randn(shape, dtype=torch.float64).to(dtype)
    return (x.contiguous(memory_format=memory_format),
            grad.contiguous(memory_format=memory_format))


def _channels(shape, dtype, count):
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    return [torch.rand(shape[1], dtype=torch.float64).add(0.5).to(wide) for _ in range(count)]


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("relu", [False, True], ids=["", "relu"])
def test_batch_norm_steps_match_reference(shape, dtype, memory_format, relu):
    x, grad = _inputs(shape, dtype, memory_format)
    # float32 sums of up to 9840 terms in blocks against float64: a few units of the last place.
    tight = {"rtol": 1e-12, "atol": 1e-11} if dtype == torch.float64 else {"rtol": 3e-6,
                                                                        "atol": 1e-4}
    wide = x.double()
    mean, sqdev = ops.batch_norm_statistics(x)
    assert mean.dtype == sqdev.dtype == _channels(shape, dtype, 1)[0].dtype
    for actual, wanted in zip((mean, sqdev), reference.batch_norm_statistics(wide)):
        torch.testing.assert_close(actual.double(), wanted, **tight)

    invstd, weight, bias, mean_dy, mean_dy_xhat = _channels(shape, dtype, 5)
    # Half types round the result once.
    eps = torch.finfo(dtype).eps
    rounding = tight if eps < 1e-6 else {"rtol": eps, "atol": eps}
    norm = (mean, invstd, weight, bias)
    output = ops.batch_norm_normalize(x, *norm, relu)
    assert output.dtype == dtype and output.is_contiguous(memory_format=memory_format)
    wide_norm = [t.double() for t in norm]
    wanted = reference.batch_norm_normalize(wide, *wide_norm, relu)
    torch.testing.assert_close(output.double(), wanted, **rounding)

    for actual, wanted in zip(
            ops.batch_norm_backward_reduce(grad, x, *norm, relu),
            reference.batch_norm_backward_reduce(grad.double(), wide, *wide_norm, relu)):
        torch.testing.assert_close(actual.double(), wanted, **tight)

    output = ops.batch_norm_backward_elementwise(grad, x, *norm, mean_dy, mean_dy_xhat, relu)
    assert output.dtype == dtype and output.is_contiguous(memory_format=memory_format)
    wanted = reference.batch_norm_backward_elementwise(
        grad.double(), wide, *wide_norm, mean_dy.double(), mean_dy_xhat.double(), relu)
    torch.testing.assert_close(output.double(), wanted, **rounding)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
def test_batch_norm_relu_stops_gradients_where_it_stored_zero(dtype, memory_format):
    # Some of these are positive before they are rounded to a half type, and 0 after.
    x = torch.tensor([-1.0, -0.0, 0.0, 2.0 ** -40, 2.0 ** -24, 1.0, float("nan")])
    x = x.to(torch.float32 if dtype == torch.float32 else dtype).view(1, 1, 1, 7)
    x = x.contiguous(memory_format=memory_format)
    one, zero = torch.ones(1), torch.zeros(1)
    scale = one * 2.0 ** -100 if dtype == torch.bfloat16 else one / 4
    norm = (zero, one, scale, zero)
    output = ops.batch_norm_normalize(x, *norm, True)
    grad = ops.batch_norm_backward_elementwise(torch.ones_like(x), x, *norm, zero, zero, True)
    stopped = (output <= 0).flatten()
    assert stopped[:3].all() and not stopped[5] and output.isnan().flatten().tolist()[6]
    assert torch.equal(grad.flatten() == 0, stopped | (scale.to(dtype) == 0))


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
def test_batch_norm_statistics_survive_a_large_mean(memory_format):
    # E[x^2] - E[x]^2 in float32 would lose every digit here.
    x, _ = _inputs((4, 6, 40, 40), torch.float32, memory_format, offset=1e4)
    mean, sqdev = ops.batch_norm_statistics(x)
    wanted_mean, wanted_sqdev = reference.batch_norm_statistics(x.double())
    torch.testing.assert_close(mean.double(), wanted_mean, rtol=1e-6, atol=0)
    torch.testing.assert_close(sqdev.double(), wanted_sqdev, rtol=1e-4, atol=0)


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
def test_batch_norm_steps_do_not_depend_on_threads(memory_format):
    x, grad = _inputs((3, 20, 31, 33), torch.float32, memory_format)

    def run():
        mean, sqdev = ops.batch_norm_statistics(x)
        return (mean, sqdev, *ops.batch_norm_backward_reduce(grad, x, *[mean, sqdev] * 2))

    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(run())
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other))


def test_batch_norm_steps_any_strides():
    x, _ = _inputs((2, 6, 8, 9), torch.float32, torch.contiguous_format)
    view = torch.stack([x, x], 4)[..., 0]
    for a, b in zip(ops.batch_norm_statistics(view), ops.batch_norm_statistics(x)):
        assert torch.equal(a, b)
    mean, sqdev = ops.batch_norm_statistics(x)
    expanded = torch.ones(()).expand(x.shape)
    for a, b in zip(ops.batch_norm_backward_reduce(expanded, view, *[mean, sqdev] * 2),
                    ops.batch_norm_backward_reduce(torch.ones_like(x), x,
                                                   *[mean, sqdev] * 2)):
        assert torch.equal(a, b)


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
def test_batch_norm_steps_opcheck(memory_format):
    x, grad = _inputs((2, 5, 4, 6), torch.float32, memory_format)
    a, b, c, d, e = _channels(x.shape, x.dtype, 5)
    op = torch.ops.pspnet
    torch.library.opcheck(op.batch_norm_statistics, (x,))
    torch.library.opcheck(op.batch_norm_normalize, (x, a, b, c, d, True))
    torch.library.opcheck(op.batch_norm_backward_reduce, (grad, x, a, b, c, d, True))
    torch.library.opcheck(op.batch_norm_backward_elementwise,
                          (grad, x, a, b, c, d, e, a, True))


def test_batch_norm_steps_compile():
    def steps(x, grad):
        mean, sqdev = ops.batch_norm_statistics(x)
        y = ops.batch_norm_normalize(x, mean, sqdev, mean, sqdev)
        norm = (mean, sqdev, mean, sqdev)
        return y + ops.batch_norm_backward_elementwise(
            grad, x, *norm, *ops.batch_norm_backward_reduce(grad, x, *norm))

    compiled = torch.compile(steps, fullgraph=True, dynamic=True, backend="eager")
    for shape in ((2, 5, 7, 9), (3, 4, 6, 5)):
        x, grad = _inputs(shape, torch.float32, torch.contiguous_format)
        assert torch.equal(compiled(x, grad), steps(x, grad))


def test_batch_norm_steps_reject_bad_channels():
    x = torch.zeros(2, 3, 4, 4)
    with pytest.raises(RuntimeError, match=r"mean must have shape \[3\], got \[4\]"):
        ops.batch_norm_normalize(x, *[torch.zeros(4)] * 4)
    with pytest.raises(RuntimeError, match="mean must be Float for Half input, got Half"):
        ops.batch_norm_normalize(x.half(), *[torch.zeros(3).half()] * 4)
    with pytest.raises(RuntimeError, match="grad_output must have shape"):
        ops.batch_norm_backward_reduce(x[:1], x, *[torch.zeros(3)] * 4)
    with pytest.raises(RuntimeError, match="input must be 4-D"):
        ops.batch_norm_statistics(x[0])


def _close(actual, wanted, rtol=1e-5):
    """Largest error over largest value."""
    actual, wanted = np.asarray(actual, np.float64), np.asarray(wanted, np.float64)
    assert actual.shape == wanted.shape
    assert np.abs(actual - wanted).max() <= rtol * np.abs(wanted).max() + 1e-30


def _number(prototxt, name, default):
    found = re.search(rf"{name}: ([0-9.e-]+)", prototxt)
    return float(found.group(1)) if found else default


def _load(module, arrays):
    with torch.no_grad():
        for k, tensor in enumerate((module.weight, module.bias, module.running_mean,
                                    module.running_var)):
            tensor.copy_(torch.from_numpy(arrays[f"param_in/l/{k}"]).flatten())


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@pytest.mark.parametrize("path", golden_files("layers", "bn_*"))
def test_biased_batch_norm_matches_golden(path, memory_format):
    arrays = read_golden(path)
    prototxt = str(arrays["prototxt"])
    frozen = "frozen: true" in prototxt
    steps = sorted({int(name.partition("@")[2]) for name in arrays if "@" in name}) or [None]
    module = SyncBatchNorm2d(arrays["param_in/l/0"].size, _number(prototxt, "eps", 1e-5),
                             torch_momentum(_number(prototxt, "momentum", 0.9)), "biased")
    _load(module, arrays)
    module.train(str(arrays["phase"]) == "TRAIN" and not frozen)
    for step in steps:
        at = "" if step is None else f"@{step}"
        x = torch.from_numpy(arrays[f"bottom_x{at}"]).contiguous(memory_format=memory_format)
        x.requires_grad_()
        y = module(x)
        _close(y.detach(), arrays[f"top_y{at}"])
        if f"dtop_y{at}" in arrays:
            module.zero_grad()
            y.backward(torch.from_numpy(arrays[f"dtop_y{at}"]))
            # The gradient of the input nearly cancels: its error is seen against dy's size.
            scale = np.abs(arrays[f"dtop_y{at}"]).max() / np.abs(arrays[f"dbottom_x{at}"]).max()
            _close(x.grad, arrays[f"dbottom_x{at}"], 1e-5 * max(1.0, scale))
            for k, parameter in enumerate((module.weight, module.bias)):
                wanted = arrays[f"dparam/l/{k}{at}"].flatten()
                if module.training:
                    _close(parameter.grad, wanted)
                else:
                    assert parameter.grad is None and not wanted.any()
    _close(module.running_mean, arrays["param_out/l/2"].flatten())
    _close(module.running_var, arrays["param_out/l/3"].flatten())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("path", golden_files("sync_bn", "ranks1_*"))
def test_unbiased_batch_norm_matches_golden(path, dtype):
    arrays = read_golden(path)
    module = SyncBatchNorm2d(arrays["slope"].size, float(arrays["eps"]),
                             torch_momentum(float(arrays["momentum"])), "unbiased").to(dtype)
    with torch.no_grad():
        for tensor, name in ((module.weight, "slope"), (module.bias, "bias"),
                             (module.running_mean, "running_mean"),
                             (module.running_var, "running_var")):
            tensor.copy_(torch.from_numpy(arrays[name]))
    x = torch.from_numpy(arrays["x"][0]).to(dtype).requires_grad_()
    y = module(x)
    y.backward(torch.from_numpy(arrays["dy"][0]).to(dtype))
    # y, dx and the sums' inputs are stored as float32, so float64 cannot come nearer.
    _close(y.detach(), arrays["y"][0], 1e-6)
    assert np.abs(x.grad.numpy() - arrays["dx"][0]).max() <= 1e-6 * np.abs(arrays["dy"]).max()
    rtol = 1e-6
    _close(module.weight.grad, arrays["dslope"], rtol)
    _close(module.bias.grad, arrays["dbias"], rtol)
    _close(module.running_mean, arrays["running_mean_out"], rtol)
    _close(module.running_var, arrays["running_var_out"], rtol)


def test_torch_variance_matches_nn_batch_norm():
    ours = SyncBatchNorm2d(6, variance="torch", momentum=0.1).double()
    theirs = torch.nn.BatchNorm2d(6, momentum=0.1).double()
    for _ in range(2):
        x = torch.randn(3, 6, 5, 4, dtype=torch.float64)
        a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
        grad = torch.randn_like(x)
        ours(a).backward(grad)
        theirs(b).backward(grad)
        torch.testing.assert_close(a.grad, b.grad)
    for name, tensor in ours.state_dict().items():
        torch.testing.assert_close(tensor, theirs.state_dict()[name])
    ours.eval(), theirs.eval()
    torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize("variance", ["biased", "torch"])
def test_batch_norm_gradcheck(variance):
    module = SyncBatchNorm2d(3, variance=variance).double()
    x = torch.randn(2, 3, 3, 2, dtype=torch.float64, requires_grad=True)

    def run(x, weight, bias):
        return torch.func.functional_call(module, {"weight": weight, "bias": bias}, (x,))

    weight = torch.rand(3, dtype=torch.float64, requires_grad=True)
    bias = torch.rand(3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(run, (x, weight, bias))


def test_frozen_batch_norm_gradcheck():
    module = SyncBatchNorm2d(3).double().eval()
    module.running_var.uniform_(0.5, 2)
    x = torch.randn(2, 3, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(module, x)


def test_batch_norm_starts_as_asked():
    assert SyncBatchNorm2d(2).running_var.tolist() == [1, 1]
    assert SyncBatchNorm2d(2, initial_running_var=0).running_var.tolist() == [0, 0]
    assert SyncBatchNorm2d(2).running_mean.tolist() == [0, 0]


def test_torch_momentum():
    assert torch_momentum(0.95) == pytest.approx(0.05, abs=1e-15)
    assert SyncBatchNorm2d(1).momentum == pytest.approx(torch_momentum(0.95), abs=1e-15)


def test_batch_norm_rejects_bad_arguments():
    with pytest.raises(ValueError, match="variance must be one of biased, unbiased, torch, got"):
        SyncBatchNorm2d(3, variance="bessel")
    with pytest.raises(ValueError, match="process_group must be None while torch.distributed"):
        SyncBatchNorm2d(3, process_group=object())(torch.zeros(1, 3, 4, 4))
    with pytest.raises(ValueError, match=r"input must have elements in training, got \(0, 3"):
        SyncBatchNorm2d(3)(torch.zeros(0, 3, 4, 4))
