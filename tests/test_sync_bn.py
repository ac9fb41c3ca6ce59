"""SyncBatchNorm2d over several processes, and its conversions."""

import itertools

import numpy as np
import pytest
import torch
import torch.distributed as dist
from helpers.golden import golden_files, read_golden
from helpers.processes import GATHER, count_collectives
from torch import nn

from pspnet_repro import distributed
from pspnet_repro.sync_bn import SyncBatchNorm2d, torch_momentum

pytestmark = pytest.mark.dist
VARIANCES = ("biased", "unbiased", "torch")


@pytest.fixture(params=[2, 4])
def processes(request, group_of):
    return group_of(request.param)


def _module(values, variance, dtype, **arguments):
    module = SyncBatchNorm2d(values["slope"].size, float(values["eps"]),
                             torch_momentum(float(values["momentum"])), variance,
                             **arguments).to(dtype)
    with torch.no_grad():
        for tensor, name in ((module.weight, "slope"), (module.bias, "bias"),
                             (module.running_mean, "running_mean"),
                             (module.running_var, "running_var")):
            tensor.copy_(torch.from_numpy(values[name]))
    return module


def _step(module, x, dy, relu=False):
    """Everything a training pass yields, as arrays by name."""
    x = x.detach().requires_grad_()
    y = module(x, relu)
    y.backward(dy)
    tensors = {"y": y, "dx": x.grad, "dslope": module.weight.grad, "dbias": module.bias.grad,
               "running_mean": module.running_mean, "running_var": module.running_var}
    return {name: tensor.detach().clone().numpy() for name, tensor in tensors.items()}


def _golden_step(rank, path, dtype):
    values = read_golden(path)
    module = _module(values, "unbiased", dtype)
    counted = []
    got = count_collectives(counted, lambda: _step(
        module, torch.from_numpy(values["x"][rank]).to(dtype),
        torch.from_numpy(values["dy"][rank]).to(dtype)))
    assert counted == [GATHER, "all_reduce"]
    return got


def _worst(actual, wanted, scale=None):
    """Largest error over the largest wanted value, or over `scale`."""
    actual, wanted = np.asarray(actual, np.float64), np.asarray(wanted, np.float64)
    assert actual.shape == wanted.shape
    scale = np.abs(wanted).max() if scale is None else scale
    return np.abs(actual - wanted).max() / scale


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("path", golden_files("sync_bn", "ranks[2-9]*"))
def test_sync_batch_norm_matches_golden(group_of, path, dtype):
    values = read_golden(path)
    ranks = group_of(len(values["x"])).run(_golden_step, path, dtype)
    # Golden y, dx and sums are stored as float32: float64 cannot come nearer.
    for rank, got in enumerate(ranks):
        assert _worst(got["y"], values["y"][rank]) <= 1e-6
        # dx nearly cancels: its error is seen against dy's size.
        assert _worst(got["dx"], values["dx"][rank], np.abs(values["dy"]).max()) <= 1e-6
        for name in ("running_mean", "running_var"):
            assert _worst(got[name], values[f"{name}_out"]) <= 1e-6
            assert got[name].tobytes() == ranks[0][name].tobytes()
    for name in ("dslope", "dbias"):
        local = np.stack([got[name] for got in ranks])
        assert _worst(local.mean(0), values[name]) <= 1e-6
        assert _worst(local[0], local[1]) > 1e-3, "gradients must be each rank's own"


def _whole(sizes, channels, seed):
    """A whole batch, its output gradient, and where each rank's part begins and ends."""
    generator = torch.Generator().manual_seed(seed)
    shape = (sum(sizes), channels, 5, 3)
    x = torch.randn(shape, generator=generator, dtype=torch.float64) * 2 + 3
    dy = torch.randn(shape, generator=generator, dtype=torch.float64)
    return x, dy, list(itertools.pairwise([0, *itertools.accumulate(sizes)]))


def _values(channels):
    rng = np.random.default_rng(1)
    return {"eps": 1e-5, "momentum": 0.9, "slope": rng.uniform(0.5, 1.5, channels),
            "bias": rng.normal(size=channels), "running_mean": np.zeros(channels),
            "running_var": np.zeros(channels)}


def _part_step(rank, sizes, variance, dtype, memory_format, relu):
    x, dy, parts = _whole(sizes, 6, 0)
    begin, end = parts[rank]
    x, dy = (t[begin:end].to(dtype).contiguous(memory_format=memory_format) for t in (x, dy))
    return _step(_module(_values(6), variance, dtype), x, dy, relu)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("variance", VARIANCES)
@pytest.mark.parametrize("sizes", [(2, 3, 1, 4), (0, 3, 0, 2), (1, 0, 0, 0)], ids=str)
def test_sync_batch_norm_matches_one_process(processes, sizes, variance, dtype, memory_format,
                                             relu):
    sizes = sizes[:len(processes.pipes)]
    ranks = processes.run(_part_step, sizes, variance, dtype, memory_format, relu)
    x, dy, parts = _whole(sizes, 6, 0)
    wanted = _step(_module(_values(6), variance, dtype), x.to(dtype), dy.to(dtype), relu)
    # Sums in another order: a few units in the last place.
    tolerance = 1e-12 if dtype == torch.float64 else 2e-6
    for (begin, end), got in zip(parts, ranks, strict=True):
        assert got["y"].dtype == wanted["y"].dtype
        assert got["y"].shape == (end - begin, *x.shape[1:]) == got["dx"].shape
        if end > begin:
            assert _worst(got["y"], wanted["y"][begin:end]) <= tolerance
            assert _worst(got["dx"], wanted["dx"][begin:end], dy.abs().max().item()) <= tolerance
        for name in ("running_mean", "running_var"):
            assert _worst(got[name], wanted[name]) <= tolerance
            assert got[name].tobytes() == ranks[0][name].tobytes()
    for name in ("dslope", "dbias"):
        assert _worst(sum(got[name] for got in ranks), wanted[name]) <= 2 * tolerance


def _far_from_zero(rank):
    # float32 holds 1e6 +- 0.1; E[x^2] - E[x]^2 would lose every digit, even in merging.
    x = torch.tensor([-0.125, 0.125]).view(1, 1, 1, 2).expand(2, 1, 8, 2) + 1e6 + rank
    module = SyncBatchNorm2d(1, eps=0.0, momentum=1.0, variance="biased")
    module(x)
    return module.running_mean.item(), module.running_var.item()


def test_sync_batch_norm_survives_a_large_mean(two):
    # Deviations +-0.125 around two means 1 apart: variance 1/64 + 1/4.
    assert two.run(_far_from_zero) == [(1e6 + 0.5, 0.265625)] * 2


def _one_element(rank, variance, empty):
    module = SyncBatchNorm2d(1, momentum=1.0, variance=variance)
    with torch.no_grad():
        module.bias.fill_(0.5)
    x = torch.full((0 if rank and empty else 1, 1, 1, 1), 3.0)
    got = _step(module, x, torch.ones_like(x))
    return {name: array.flatten().tolist() for name, array in got.items()}


@pytest.mark.parametrize("variance", VARIANCES)
def test_sync_batch_norm_of_one_element_a_channel(two, variance):
    """One element in all, and one in each process: defined, and no division by zero."""
    for empty in (True, False):
        for rank, got in enumerate(two.run(_one_element, variance, empty)):
            here = [] if rank and empty else [0]
            assert got["y"] == [0.5 for _ in here] and got["dx"] == here
            assert got["running_mean"] == [3] and got["running_var"] == [0]
            assert got["dslope"] == [0] and got["dbias"] == [len(here)]


def _groups(rank):
    alone = [dist.new_group([k]) for k in range(dist.get_world_size())]
    generator = torch.Generator().manual_seed(rank)
    x = torch.randn(2, 3, 4, 4, generator=generator)
    module = SyncBatchNorm2d(3, momentum=1.0, variance="biased", process_group=alone[rank])
    counted = []
    count_collectives(counted, lambda: module(x))
    torch.testing.assert_close(module.running_mean, x.mean((0, 2, 3)))
    other = SyncBatchNorm2d(3, process_group=alone[1 - rank])
    with pytest.raises(ValueError, match="process_group must hold this process"):
        other(x)
    module.eval()
    count_collectives(counted, lambda: module(x))
    local = SyncBatchNorm2d(3, momentum=1.0, process_group=distributed.LOCAL)
    count_collectives(counted, lambda: local(x))
    torch.testing.assert_close(local.running_mean, x.mean((0, 2, 3)))
    everybody = SyncBatchNorm2d(3).eval()
    count_collectives(counted, lambda: everybody(x))
    return counted


def test_sync_batch_norm_process_group_and_eval_need_nobody_else(two):
    assert two.run(_groups) == [[], []]


def _parallel(rank):
    """A step of DistributedDataParallel over our layer: averaged gradients, equal buffers."""
    x, dy, parts = _whole((2, 2), 6, 3)
    begin, end = parts[rank]
    net = nn.parallel.DistributedDataParallel(nn.Sequential(_module(
        _values(6), "biased", torch.float64)))
    net(x[begin:end]).backward(dy[begin:end])
    return {name: p.grad.numpy() for name, p in net.module.named_parameters()}


def test_sync_batch_norm_under_distributed_data_parallel(two):
    x, dy, _ = _whole((2, 2), 6, 3)
    wanted = _step(_module(_values(6), "biased", torch.float64), x, dy)
    for got in two.run(_parallel):
        assert _worst(got["0.weight"], wanted["dslope"] / 2) <= 1e-12
        assert _worst(got["0.bias"], wanted["dbias"] / 2) <= 1e-12


def _half(rank, dtype):
    x, dy, parts = _whole((2, 1), 6, 5)
    begin, end = parts[rank]
    return {name: array.astype(np.float64) if array.dtype == np.float16 else array for name, array
            in _step(_module(_values(6), "unbiased", torch.float32), x[begin:end].to(dtype),
                     dy[begin:end].to(dtype)).items()}


def test_sync_batch_norm_of_half_input(two):
    x, dy, parts = _whole((2, 1), 6, 5)
    wanted = _step(_module(_values(6), "unbiased", torch.float64), x.half().double(),
                   dy.half().double())
    for (begin, end), got in zip(parts, two.run(_half, torch.float16), strict=True):
        assert got["running_var"].dtype == np.float32
        assert _worst(got["running_var"], wanted["running_var"]) <= 2e-6
        # One rounding to float16.
        assert _worst(got["y"], wanted["y"][begin:end]) <= 2 ** -11


def _torch_net():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, eps=1e-3, momentum=0.2),
                        nn.Sequential(nn.ReLU(), nn.SyncBatchNorm(4))).double()
    net.extra = net[1]  # a layer with two names stays one layer
    with torch.no_grad():
        for tensor in net.state_dict().values():
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 1.5)
    return net


def test_conversions_keep_what_is_computed():
    x = torch.randn(4, 3, 6, 6, dtype=torch.float64)
    torch_net, ours = _torch_net(), _torch_net()
    ours.load_state_dict(torch_net.state_dict())
    parameters = list(ours.parameters())
    assert SyncBatchNorm2d.convert_from(ours) is ours
    assert isinstance(ours[1], SyncBatchNorm2d) and ours.extra is ours[1]
    assert (ours[1].eps, ours[1].momentum, ours[1].variance) == (1e-3, 0.2, "torch")
    assert all(a is b for a, b in zip(parameters, ours.parameters(), strict=True))
    for training in (True, False):
        torch.testing.assert_close(ours.train(training)(x), torch_net.train(training)(x))
    torch.testing.assert_close(ours[1].running_var, torch_net[1].running_var)

    back = SyncBatchNorm2d.convert_to_torch(ours)
    assert isinstance(back[1], nn.SyncBatchNorm) and back.extra is back[1]
    assert (back[1].eps, back[1].momentum, back[1].training) == (1e-3, 0.2, False)
    torch.testing.assert_close(back(x), torch_net(x))


def test_conversion_of_a_layer_itself():
    ours = SyncBatchNorm2d.convert_from(nn.BatchNorm2d(3), variance="biased")
    assert isinstance(ours, SyncBatchNorm2d) and ours.variance == "biased"
    assert isinstance(SyncBatchNorm2d.convert_to_torch(ours), nn.SyncBatchNorm)
    local = SyncBatchNorm2d(3, process_group=distributed.LOCAL)
    assert type(SyncBatchNorm2d.convert_to_torch(local)) is nn.BatchNorm2d


def test_state_dicts_go_both_ways():
    torch_layer = nn.BatchNorm2d(3)
    torch_layer(torch.randn(2, 3, 4, 4))
    ours = SyncBatchNorm2d(3)
    ours.load_state_dict(torch_layer.state_dict())
    assert torch.equal(ours.running_mean, torch_layer.running_mean)
    assert "num_batches_tracked" in torch_layer.state_dict()
    fresh = nn.SyncBatchNorm(3)
    fresh.load_state_dict(ours.state_dict())
    assert torch.equal(fresh.running_var, torch_layer.running_var)


@pytest.mark.parametrize("arguments", [{"affine": False}, {"track_running_stats": False},
                                       {"momentum": None}], ids=str)
def test_conversion_rejects_layers_without_a_counterpart(arguments):
    net = nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3, **arguments))
    with pytest.raises(ValueError, match="1 must have affine, track_running_stats and a fixed"):
        SyncBatchNorm2d.convert_from(net)
    assert isinstance(net[1], nn.BatchNorm2d)
