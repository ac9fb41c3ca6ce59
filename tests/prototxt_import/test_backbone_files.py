"""What public backbones of many Caffes hold: fields, names and layers beyond BVLC's."""

import math

import numpy as np
import pytest
import torch
from helpers.caffe_layers import build, layer

from prototxt_import import load_net, write_caffemodel
from pspnet_repro.errors import UserError

CONV = "convolution_param { num_output: 1 kernel_size: 1 %s }"


@pytest.mark.parametrize("field", ["engine: SPATIAL", "engine: 'FFT'", "mem_group_size: 8"])
def test_engine_of_a_fork_is_dropped(tmp_path, field):
    with pytest.warns(UserWarning, match=f"{field.split(':')[0]}: not followed"):
        net = build(tmp_path, layer("Convolution", CONV % field), [(1, 1, 2, 2)])
    assert net.shapes["y"] == (1, 1, 2, 2)


def test_filler_of_a_fork_matters_only_without_weights(tmp_path):
    text = layer("Convolution", CONV % "weight_filler { type: 'gabor' period: 4 }")
    with pytest.raises(UserError, match="got 'gabor': write one of these, or name a caffemodel"):
        build(tmp_path, text, [(1, 1, 2, 2)])
    arrays = [np.ones((1, 1, 1, 1), np.float32), np.zeros(1, np.float32)]
    write_caffemodel(tmp_path / "w.caffemodel", "n", {"l": ("Convolution", arrays)})
    net = load_net(tmp_path / "net.prototxt", tmp_path / "w.caffemodel")
    assert net.params["l"][0].item() == 1


def test_field_that_a_known_filler_lacks_is_refused_with_its_line(tmp_path):
    text = layer("Convolution", CONV % "weight_filler {\nvale: 3\n}")
    with pytest.raises(UserError, match=r"net.prototxt:\d+: .*unknown field 'vale' of FillerPar"):
        build(tmp_path, text, [(1, 1, 2, 2)])


def test_filler_msra_has_a_slope(tmp_path):
    net = build(tmp_path, layer("InnerProduct", "inner_product_param { num_output: 400 "
                                "weight_filler { type: 'msra' alpha: 2 } }"), [(1, 250)])
    assert abs(net.params["l"][0].std().item() / math.sqrt(2 / 250 / 5) - 1) < 0.02


def test_nvidias_batch_norm_learns_its_scale_whatever_the_file_says(tmp_path):
    frozen = "param { lr_mult: 0 decay_mult: 0 } " * 4
    net = build(tmp_path, layer("BatchNorm", frozen + "batch_norm_param { scale_bias: true }"),
                [(8, 3)])
    assert [(spec.lr_mult, spec.decay_mult) for spec in net.specs["l"][3:]] == [(1, 1), (1, 1)]
    assert [p.requires_grad for p in net.params["l"]] == [False] * 3 + [True] * 2


RESHAPE = (layer("Python", "python_param { module: 'shape' layer: 'TensorShape' }", "x", "s")
           + layer("Python", "python_param { module: 'reshape' layer: 'Reshape' }", "zs").replace(
               '"l"', '"m"'))


def test_python_reshape_takes_the_shape_of_a_blob(tmp_path):
    with pytest.warns(UserWarning, match="'l' .Python. is left out: .* no layer reads s"):
        net = build(tmp_path, RESHAPE, [(2, 3, 1), (6,)])
    assert net(x=np.zeros((2, 3, 1)), z=np.arange(6))["y"].tolist() == [
        [[0], [1], [2]], [[3], [4], [5]]]
    with pytest.raises(UserError, match="layer 'm' .*: its bottoms must have as many elements"):
        build(tmp_path, RESHAPE, [(2, 3), (5,)])
    with pytest.raises(UserError, match="type 'Python' .reshape.Reshape. is not supported"):
        build(tmp_path, RESHAPE.replace("TensorShape", "Measure"), [(2, 3), (6,)])


def test_smooth_l1_loss(tmp_path):
    x, z = (torch.tensor(values).double() for values in ([[0.0, 0.125, 2], [1, 1, 1]],
                                                         [[0.0, 0, 0], [1, 1, -2]]))
    text = layer("SmoothL1Loss", "smooth_l1_loss_param { sigma: 2 }", "xz")
    # 2 * 0.125^2, 2 - 0.125 and 3 - 0.125, over two items.
    assert build(tmp_path, text, [(2, 3)] * 2)(x=x, z=z)["y"].item() == pytest.approx(
        (0.03125 + 1.875 + 2.875) / 2)
    net = build(tmp_path, layer("SmoothL1Loss", "", "xzww"), [(2, 3)] * 3)
    w = torch.full((2, 3), 0.5).double()
    # Half of each difference, and half of what comes of it.
    assert net(x=x, z=z, w=w)["y"].item() == pytest.approx(
        (0.0625 ** 2 / 2 + 0.5 + 1) / 2 / 2)
    pair = [torch.randn(2, 3, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(lambda x, z: net(x=x, z=z, w=w)["y"], pair)


@pytest.mark.parametrize(("bottoms", "fields", "message"), [
    ("xzx", "", "needs 2 or 4 bottoms, got 3"),
    ("xw", "", "its bottoms must have as many items and numbers"),
    ("xz", "smooth_l1_loss_param { sigma: 0 }", "sigma must be finite and above 0, got 0.0")])
def test_smooth_l1_loss_is_refused(tmp_path, bottoms, fields, message):
    with pytest.raises(UserError, match=message):
        build(tmp_path, layer("SmoothL1Loss", fields, bottoms), [(2, 3), (2, 3), (3, 2)])
