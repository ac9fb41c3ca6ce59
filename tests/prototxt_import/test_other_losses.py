"""Losses of siamese nets, of given probabilities and of NVIDIA's Caffe."""

import math

import numpy as np
import pytest
import torch
from helpers.caffe_layers import build, layer

from prototxt_import import load_net
from prototxt_import.format.blobs import blob_of
from pspnet_repro.errors import UserError

MATRIX = [[1.0, 0.5, 0], [0, 2, 0], [0.25, 0, 1]]


def _infogain(x, labels, ignored):
    log_p = torch.log_softmax(x, 1)
    terms = [-(torch.tensor(MATRIX[label]).double() @ log_p[n, :, i, j])
             for (n, i, j), label in np.ndenumerate(labels) if label != ignored]
    return sum(terms) / max(1, len(terms))


@pytest.mark.filterwarnings("ignore:.*InfogainLoss takes scores")
def test_infogain_loss(tmp_path):
    x = torch.randn(2, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    labels = np.array([[[0, 1], [2, 255]], [[2, 2], [1, 0]]])
    text = layer("InfogainLoss", "loss_param { ignore_label: 255 }", "xzw")
    net = build(tmp_path, text, [x.shape, (2, 1, 2, 2), (1, 1, 3, 3)])

    def loss(x):
        return net(x=x, z=labels[:, None], w=np.reshape(MATRIX, (1, 1, 3, 3)))["y"]
    torch.testing.assert_close(loss(x), _infogain(x, labels, 255))
    assert torch.autograd.gradcheck(loss, (x,))


@pytest.mark.filterwarnings("ignore:.*InfogainLoss takes scores")
def test_infogain_loss_reads_its_matrix(tmp_path):
    with pytest.raises(UserError, match=r"must be a matrix 3 x 3, got \(4,\)"):
        build(tmp_path, layer("InfogainLoss", "", "xzw"), [(2, 3), (2,), (4,)])
    file = tmp_path / "H.binaryproto"
    text = layer("InfogainLoss", f"infogain_loss_param {{ source: '{file}' }}", "xz")
    with pytest.raises(UserError, match="its matrix, source .*H.binaryproto': cannot be read"):
        build(tmp_path, text, [(2, 3), (2,)])
    file.write_bytes(blob_of(np.ones((1, 1, 2, 2))).SerializeToString())
    with pytest.raises(UserError, match="must be 3 x 3, has 4 numbers"):
        build(tmp_path, text, [(2, 3), (2,)])
    file.write_bytes(blob_of(np.reshape(MATRIX, (1, 1, 3, 3))).SerializeToString())
    x = torch.randn(2, 3, dtype=torch.float64)
    torch.testing.assert_close(
        build(tmp_path, text, [(2, 3), (2,)])(x=x, z=[0, 2])["y"],
        _infogain(x[:, :, None, None], np.array([0, 2]).reshape(2, 1, 1), 255))


def test_multinomial_logistic_loss(tmp_path):
    net = build(tmp_path, layer("MultinomialLogisticLoss", "", "xz"), [(2, 3, 1, 1), (2,)])
    p = torch.tensor([[0.5, 0.25, 0.25], [1, 0, 0]]).double().view(2, 3, 1, 1)
    assert net(x=p, z=[1, 0])["y"].item() == pytest.approx(math.log(4) / 2)
    assert net(x=p, z=[1, 1])["y"].item() == pytest.approx((math.log(4) - math.log(1e-20)) / 2)
    inside = (torch.rand(2, 3, 1, 1).double() + 0.1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: net(x=x, z=[2, 0])["y"], (inside,))


@pytest.mark.parametrize("legacy", [False, True])
def test_contrastive_loss(tmp_path, legacy):
    text = layer("ContrastiveLoss", "contrastive_loss_param { margin: 2 legacy_version: "
                 f"{str(legacy).lower()} }}", "xzw")
    net = build(tmp_path, text, [(4, 3), (4, 3), (4,)])
    pair = [torch.randn(4, 3, dtype=torch.float64) * size for size in (0.3, 0.4)]
    pair[1][3] += 9
    similar = torch.tensor([1, 0, 0, 0])
    square = (pair[0] - pair[1]).square().sum(1)
    rest = (2 - (square if legacy else square.sqrt())).clamp(min=0)
    assert net(x=pair[0], z=pair[1], w=similar)["y"].item() == pytest.approx(
        (similar * square + (1 - similar) * (rest if legacy else rest ** 2)).sum().item() / 8)
    pair = [x.requires_grad_() for x in pair]
    # The original's gradient has 1e-4 in it.
    assert torch.autograd.gradcheck(lambda x, z: net(x=x, z=z, w=similar)["y"], pair, atol=1e-3)


AUTO_CROP = 'layer { name: "crop" type: "AutoCrop" bottom: "x" bottom: "x" top: "cut" }'


@pytest.mark.parametrize(("more", "factor"), [("", 1), (AUTO_CROP, 1.1)], ids=["hed", "rcf"])
def test_loss_beside_heds_data_is_heds_or_rcfs(tmp_path, more, factor):
    """Per item: edges weigh rest / all, the rest edges / all, in RCF 1.1 times; label 2 has a
    gradient alone in HED, none in RCF."""
    (tmp_path / "net.prototxt").write_text(
        'layer { name: "d" type: "ImageLabelmapData" top: "x" top: "z" }\n' + more
        + layer("SigmoidCrossEntropyLoss", "loss_weight: 3", "xz"))
    net = load_net(tmp_path / "net.prototxt", phase="TRAIN")
    x = torch.randn(2, 1, 2, 3, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([[1, 0, 0, 0, 0, 0], [1, 1, 1, 0, 2, 2]]).reshape(2, 1, 2, 3)
    rest = factor * np.float64([1 / 6, 3 / 4])
    weights = torch.tensor([[5 / 6, *[rest[0]] * 5], [1 / 4, 1 / 4, 1 / 4, rest[1], 0, 0]]).double()
    terms = torch.nn.functional.binary_cross_entropy_with_logits(
        x, labels.clamp(max=1).double(), weights.reshape(2, 1, 2, 3), reduction="none")
    y = net(x=x, z=labels)["y"]
    torch.testing.assert_close(y, terms.sum() / 2)
    gradient, = torch.autograd.grad(net.loss, x)
    expected, = torch.autograd.grad(3 * terms.sum() / 2, x)
    if not more:
        expected[1, 0, 1, 1:] = 3 * (x.detach().sigmoid() - 2)[1, 0, 1, 1:] / 2
    torch.testing.assert_close(gradient, expected)
    (tmp_path / "net.prototxt").write_text(
        'layer { name: "d" type: "ImageLabelmapData" top: "x" top: "z" }\n'
        + layer("SigmoidCrossEntropyLoss", "loss_param { ignore_label: 2 }", "xz"))
    with pytest.raises(UserError, match="takes no loss_param, as HED's and RCF's Caffe read"):
        load_net(tmp_path / "net.prototxt", phase="TRAIN")(x=x, z=labels)


def test_l1_loss(tmp_path):
    net = build(tmp_path, layer("L1Loss", "", "xz"), [(2, 3), (2, 3)])
    pair = [torch.randn(2, 3, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    assert net(x=pair[0], z=pair[1])["y"].item() == pytest.approx(
        (pair[0] - pair[1]).abs().sum().item() / 2)
    assert torch.autograd.gradcheck(lambda x, z: net(x=x, z=z)["y"], pair)


def test_softmax_beside_heds_data_says_what_is_assumed(tmp_path):
    (tmp_path / "net.prototxt").write_text(
        'layer { name: "d" type: "ImageLabelmapData" top: "x" top: "z" }\n'
        + layer("SoftmaxWithLoss", "", "xz"))
    with pytest.warns(UserWarning, match="layer 'l' .SoftmaxWithLoss.: every pixel counts alike"):
        load_net(tmp_path / "net.prototxt", phase="TRAIN")
