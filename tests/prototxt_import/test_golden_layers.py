"""Every layer of the original's golden files through CaffeNet, forward and backward."""

import re

import numpy as np
import pytest
import torch
from helpers.golden import assert_same_bits, golden_files, read_golden

from prototxt_import import load_net


def _passes(arrays):
    """Suffixes of the passes in a file: [""], or ["@0", "@1", ...]."""
    return sorted({re.sub(r"^[^@]*", "", name) for name in arrays if name.startswith("bottom_")})


def _compare(actual, expected, exact):
    expected = np.asarray(expected)
    if exact:
        assert_same_bits(actual, expected)
        return
    actual = actual.detach().numpy()
    assert actual.shape == expected.shape
    scale = np.abs(expected).max(initial=0.0)
    # Sums in another order; where everything is zero so must ours be.
    assert np.abs(actual - expected).max(initial=0.0) <= 1e-5 * scale


def _load(path, tmp_path):
    arrays = read_golden(path)
    prototxt = tmp_path / "net.prototxt"
    prototxt.write_text(str(arrays["prototxt"]))
    net = load_net(prototxt, phase=str(arrays["phase"]))
    blobs = {name: value for name, value in arrays.items() if name.startswith("param_in/")}
    assert {f"param_in/{layer}/{k}" for layer, tensors in net.params.items()
            for k in range(len(tensors)) if layer != "id"} == set(blobs)
    with torch.no_grad():
        for name, value in blobs.items():
            _, layer, k = name.split("/")
            assert net.params[layer][int(k)].shape == value.shape
            net.params[layer][int(k)].copy_(torch.from_numpy(value))
    return net, arrays


# Layers whose sums, or functions, the original computes otherwise in the last bits.
OTHER_ORDER = {"prelu", "softmax", "bias_two_bottoms", "bvlc_batchnorm_train", "scale_2d",
               "bvlc_batchnorm_2d_train", "bvlc_batchnorm_3d_train", "scale_two_bottoms", "tanh",
               "reduction_MEAN", "reduction_SUM", "reduction_SUMSQ"}
# BVLC's sigmoid is made of tanh, the released program's of exp.
OTHER_ORDER |= {f"bvlc_sigmoid_cross_entropy_{mode}" for mode in
                ("BATCH_SIZE", "FULL", "NONE", "VALID")}

LOSSES = golden_files("layers", "loss_*")
LAYERS = [case for case in golden_files("layers") if not case.id.startswith("loss_")]
# Of the authors' fork, BVLC's Caffe and caffe-segnet.
LAYERS += golden_files("layers_more")


@pytest.mark.parametrize("path", LAYERS)
def test_layer_matches_golden(path, tmp_path):
    net, arrays = _load(path, tmp_path)
    exact = path.stem not in OTHER_ORDER
    for suffix in _passes(arrays):
        inputs = {name[len("bottom_"):len(name) - len(suffix)]: torch.from_numpy(value)
                  for name, value in arrays.items()
                  if name.startswith("bottom_") and name.endswith(suffix)}
        for name, x in inputs.items():
            x.requires_grad_(f"dbottom_{name}{suffix}" in arrays)
        net.zero_grad()
        y = net(**inputs)["y"]
        _compare(y, arrays[f"top_y{suffix}"], exact)
        if f"dtop_y{suffix}" not in arrays:
            continue
        y.backward(torch.from_numpy(arrays[f"dtop_y{suffix}"]))
        for name, x in inputs.items():
            grad = torch.zeros_like(x) if x.grad is None else x.grad
            _compare(grad, arrays[f"dbottom_{name}{suffix}"], exact)
        for layer, tensors in net.params.items():
            for k, tensor in enumerate(tensors):
                grad = torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
                _compare(grad, arrays[f"dparam/{layer}/{k}{suffix}"], exact)
    for layer, tensors in net.params.items():
        for k, tensor in enumerate(tensors):
            _compare(tensor, arrays[f"param_out/{layer}/{k}"], exact)


@pytest.mark.parametrize("path", LOSSES)
def test_loss_matches_golden(path, tmp_path):
    net, arrays = _load(path, tmp_path)
    # The scores of these files are a blob inside, made by a convolution named "id".
    with torch.no_grad():
        net.params["id"][0].copy_(torch.eye(len(net.params["id"][0]))[:, :, None, None])
        net.params["id"][1].zero_()
    outputs = net(x=arrays["bottom_z"], label=arrays["bottom_label"])
    _compare(net.blobs["z"], arrays["bottom_z"], True)
    _compare(outputs["y"], arrays["top_y"], True)
    grad, = torch.autograd.grad(net.loss, net.blobs["z"])
    _compare(grad, arrays["dbottom_z"], True)
