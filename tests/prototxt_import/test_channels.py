"""Bias and BN layers of forks, on bottoms that need not be 4-D: values by numpy."""

import numpy as np
import pytest
import torch
from helpers.caffe_layers import build, layer

from pspnet_repro.errors import UserError

SHAPES = [(5, 3), (5, 3, 4), (5, 3, 4, 2)]


@pytest.mark.parametrize("x_shape", SHAPES)
@pytest.mark.parametrize(("fields", "shape", "first"), [
    ("channel_shared: false", (3,), 0.1), ("channel_shared: true", (), 0.1),
    ("channel_shared: true filler { value: 3 }", (), 3), ("", (3,), 0)])
def test_bias_per_channel_or_shared(tmp_path, x_shape, fields, shape, first):
    net = build(tmp_path, layer("Bias", f"bias_param {{ {fields} }}"), [x_shape])
    (blob,) = net.parameters()
    assert blob.shape == shape and blob.detach().numpy() == pytest.approx(first)
    values = (np.arange(blob.numel()) - 1.5).reshape(shape)
    blob.data = torch.from_numpy(values)
    x = np.random.default_rng(0).normal(size=x_shape)
    y = net(x=torch.from_numpy(x))["y"]
    wide = values.reshape(1, -1, *[1] * (len(x_shape) - 2))
    assert y.detach().numpy() == pytest.approx(x + wide, abs=1e-15)
    y.sum().backward()
    assert blob.grad.numpy() == pytest.approx(x.size / values.size)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_bn_takes_missing_axes_as_1(tmp_path, shape, dtype):
    text = layer("BN", "bn_param { momentum: 0.75 eps: 0.01 slope_filler { value: 2 } "
                       "bias_filler { value: -1 } }")
    net = build(tmp_path, text, [shape]).to(dtype)
    x = np.random.default_rng(0).normal(1, 3, shape)
    axes, wide = (0, *range(2, len(shape))), (1, 3, *[1] * (len(shape) - 2))
    mean, var = x.mean(axes), x.var(axes)
    given = torch.from_numpy(x).to(dtype).requires_grad_()
    y = net(x=given)["y"]

    def by_hand(mean, var):
        return 2 * (x - mean.reshape(wide)) / np.sqrt(var.reshape(wide) + 0.01) - 1

    assert y.shape == shape and y.detach().numpy() == pytest.approx(by_hand(mean, var), abs=1e-5)
    running_mean, running_var = list(net.parameters())[2:]
    assert running_mean.shape == running_var.shape == (1, 3, 1, 1)
    assert running_mean.detach().numpy().ravel() == pytest.approx(mean / 4, abs=1e-5)
    assert running_var.detach().numpy().ravel() == pytest.approx(var / 4, abs=1e-5)
    assert dtype == torch.float32 or torch.autograd.gradcheck(lambda t: net(x=t)["y"], given)

    test = build(tmp_path, text, [shape], "TEST").to(dtype)
    test.load_state_dict(net.state_dict())
    *_, running_mean, running_var = (p.detach().numpy().ravel() for p in test.parameters())
    assert test(x=given)["y"].detach().numpy() == pytest.approx(
        by_hand(running_mean, running_var), abs=1e-5)


@pytest.mark.parametrize("kind", ["BN", "SyncBN"])
@pytest.mark.parametrize("shape", [(5,), (5, 3, 4, 2, 1)])
def test_bn_refuses_other_bottoms(tmp_path, kind, shape):
    with pytest.raises(UserError, match=r"must be 2-D to 4-D \(N, C, H, W\), got "):
        build(tmp_path, layer(kind), [shape])
