"""MarginInnerProduct, CenterLoss and the InnerProduct of face networks."""

import numpy as np
import pytest
import torch
from helpers.caffe_layers import build, layer

from prototxt_import import load_solver
from pspnet_repro.errors import UserError

MARGINS = {"SINGLE": 1, "DOUBLE": 2, "TRIPLE": 3, "QUADRUPLE": 4}
LABELS = torch.tensor([0.0, 2, 4, 1, 1, 3, 0, 2])


def _margin_net(tmp_path, fields, tops="yz", shape=(8, 3)):
    return build(tmp_path, layer("MarginInnerProduct", "margin_inner_product_param { num_output: 5 "
                                 f"weight_filler {{ type: 'msra' }} {fields} }}", "xz",
                                 ["y", "lambda"][:len(tops)]), [shape, (8,)])


def _psi(cosine, m):
    """The paper's psi: (-1)^k * cos(m * angle) - 2 * k, k the part of 0 to pi with the angle."""
    angle = np.arccos(cosine)
    k = np.floor(m * angle / np.pi)
    return (-1) ** k * np.cos(m * angle) - 2 * k


def _drawn_margin(tmp_path, kind, fields=""):
    torch.manual_seed(1)
    net = _margin_net(tmp_path, f"type: {kind} {fields}")
    x = torch.randn(8, 3, dtype=torch.float64, requires_grad=True)
    weight = net.params["l"][0].detach().numpy().copy()
    return net, x, weight / np.sqrt((weight ** 2).sum(1, keepdims=True))


@pytest.mark.parametrize(("kind", "m"), MARGINS.items())
def test_margin_product_is_psi_of_the_angle_at_the_label(tmp_path, kind, m):
    net, x, unit = _drawn_margin(tmp_path, kind, "base: 3 gamma: 0.5 power: 2 iteration: 1")
    tops = net(x=x, z=LABELS)
    mixed = 3 * (1 + 0.5 * 2) ** -2
    want = x.detach().numpy() @ unit.T
    for row, label in enumerate(LABELS.int().tolist()):
        norm = np.sqrt((x.detach().numpy()[row] ** 2).sum())
        margin = norm * _psi(want[row, label] / norm, m)
        want[row, label] = (mixed * want[row, label] + margin) / (1 + mixed)
    torch.testing.assert_close(tops["y"].detach().numpy(), want)
    assert tops["lambda"].item() == mixed
    torch.testing.assert_close(net.params["l"][0].detach().numpy(), unit)


def test_lambda_falls_with_each_pass_to_its_least(tmp_path):
    net = _margin_net(tmp_path, "base: 8 gamma: 1 power: 1 lambda_min: 2.5")
    x = torch.ones(8, 3)
    assert [net(x=x, z=LABELS)["lambda"].item() for _ in range(3)] == [4, 8 / 3, 2.5]


def test_margin_product_of_one_top_and_of_images(tmp_path):
    net = _margin_net(tmp_path, "type: TRIPLE", "y", (8, 3, 2, 2))
    assert net(x=torch.ones(8, 3, 2, 2), z=LABELS)["y"].shape == (8, 5)


@pytest.mark.parametrize(("kind", "m"), list(MARGINS.items())[1:])
def test_gradient_of_margin_product_has_the_derivatives_direction(tmp_path, kind, m):
    """Of weight and input at the label; the two factors' squares sum to 1, as in the original."""
    net, x, unit = _drawn_margin(tmp_path, kind, "base: 0.25")
    grad = torch.randn(8, 5, dtype=torch.float64)
    net(x=x, z=LABELS)["y"].backward(grad)
    values, g, mixed, step = x.detach().numpy(), grad.numpy(), 0.25, 1e-6
    torch.testing.assert_close(net.params["l"][0].grad.numpy(), g.T @ values)
    for row, label in enumerate(LABELS.int().tolist()):
        def margin(v, w=unit[label]):
            norm = np.sqrt((v ** 2).sum())
            return norm * _psi(v @ w / norm, m)

        slope = np.array([(margin(values[row] + d) - margin(values[row] - d)) / (2 * step)
                          for d in np.eye(3) * step])
        factors = np.linalg.lstsq(np.stack([unit[label], values[row]], 1), slope, rcond=None)[0]
        others = [k for k in range(5) if k != label]
        want = (g[row, label] * slope / np.hypot(*factors) + g[row, others] @ unit[others]
                + mixed * g[row] @ unit) / (1 + mixed)
        np.testing.assert_allclose(x.grad[row].numpy(), want, rtol=1e-6, atol=1e-7)


def test_gradcheck_of_margin_product_without_margin(tmp_path):
    net, x, _ = _drawn_margin(tmp_path, "SINGLE")
    assert torch.autograd.gradcheck(lambda x: net(x=x, z=LABELS)["y"], x)


def _center_net(tmp_path, fields="", text=""):
    return build(tmp_path, layer("CenterLoss", f"loss_weight: 0.5 {text} center_loss_param {{ "
                                 f"num_output: 5 center_filler {{ type: 'xavier' }} {fields} }}",
                                 "xz"), [(8, 3), (8, 1, 1, 1)])


def test_center_loss_and_its_gradients(tmp_path):
    net = _center_net(tmp_path)
    x = torch.randn(8, 3, dtype=torch.float64, requires_grad=True)
    y = net(x=x, z=LABELS.view(8, 1, 1, 1))["y"]
    centers, loss = net.params["l"][0].detach().numpy(), 0
    sums, counts = np.zeros((5, 3)), np.zeros(5)
    for row, label in zip(x.detach().numpy(), LABELS.int().tolist()):
        loss += ((row - centers[label]) ** 2).sum() / 16
        sums[label] += centers[label] - row
        counts[label] += 1
    torch.testing.assert_close(y.item(), loss)
    net.loss.backward()
    torch.testing.assert_close(net.params["l"][0].grad.numpy(), sums / (1 + counts)[:, None])
    assert torch.autograd.gradcheck(lambda x: net(x=x, z=LABELS.view(8, 1, 1, 1))["y"], x)


def test_steps_of_centers_are_those_of_the_last_pass_with_the_label(tmp_path):
    """With iter_size 2 the original overwrites the steps of labels that both batches have."""
    _center_net(tmp_path, text="param { decay_mult: 0 }")
    (tmp_path / "solver.prototxt").write_text(
        'net: "net.prototxt" base_lr: 2 lr_policy: "fixed" iter_size: 2')
    solver = load_solver(tmp_path / "solver.prototxt")
    centers = solver.net.params["l"][0]
    with torch.no_grad():
        centers.zero_()
    first, second = torch.zeros(8, 1, 1, 1), torch.ones(8, 1, 1, 1)
    second[4:] = 0
    solver.step(x=[torch.full((8, 3), 9.0), torch.full((8, 3), 45.0)], z=[first + 2, second])
    # 2 (rate) / 2 (iter_size) * n * distance / (1 + n)
    assert centers[:, 0].tolist() == [36, 36, 8, 0, 0]
    with torch.no_grad():
        centers.zero_()
    solver.step(x=[torch.full((8, 3), 9.0), torch.full((8, 3), 45.0)], z=[first, second])
    assert centers[:, 0].tolist() == [36, 36, 0, 0, 0]


def test_inner_product_normalizes_its_rows(tmp_path):
    net = build(tmp_path, layer("InnerProduct", "inner_product_param { num_output: 4 normalize: "
                                "true bias_term: false weight_filler { type: 'msra' } }"), [(2, 3)])
    weight = net.params["l"][0].detach().numpy().copy()
    x = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    unit = weight / np.sqrt((weight ** 2).sum(1, keepdims=True) + 1e-6)
    y = net(x=x)["y"]
    torch.testing.assert_close(y.detach().numpy(), x.detach().numpy() @ unit.T)
    torch.testing.assert_close(net.params["l"][0].detach().numpy(), unit)
    grad = torch.randn(2, 4, dtype=torch.float64)
    y.backward(grad)
    torch.testing.assert_close(x.grad.numpy(), grad.numpy() @ unit)
    torch.testing.assert_close(net.params["l"][0].grad.numpy(), (grad.T @ x.detach()).numpy())


def test_one_normalized_weight_can_serve_two_images(tmp_path):
    """The second pass through the weight normalizes it again, before any gradient is computed."""
    fields = ('param { name: "w" } inner_product_param { num_output: 2 normalize: true bias_term: '
              "false weight_filler { type: 'msra' } }")
    net = build(tmp_path, layer("InnerProduct", fields) + layer(
        "InnerProduct", fields, "z", ["u"]).replace('"l"', '"m"') + layer(
        "EuclideanLoss", "", "yu", ["loss"]).replace('"l"', '"n"'), [(2, 3), (2, 3)])
    net(x=torch.randn(2, 3), z=torch.randn(2, 3))
    net.loss.backward()
    assert net.params["l"][0].grad.abs().min() > 0


def test_a_training_of_faces(tmp_path):
    """SphereFace's end beside caffe-face's and a normalized product: losses fall."""
    (tmp_path / "net.prototxt").write_text("""
        layer { name: "data" type: "DummyData" top: "data" top: "label" dummy_data_param {
          shape { dim: 8 dim: 6 } shape { dim: 8 } } }
        layer { name: "fc5" type: "InnerProduct" bottom: "data" top: "fc5" inner_product_param {
          num_output: 3 weight_filler { type: "xavier" } } }
        layer { name: "fc6" type: "MarginInnerProduct" bottom: "fc5" bottom: "label" top: "fc6"
          top: "lambda" param { lr_mult: 1 decay_mult: 1 } margin_inner_product_param {
          num_output: 5 type: QUADRUPLE weight_filler { type: "xavier" } base: 1000 gamma: 0.12
          power: 1 lambda_min: 5 iteration: 0 } }
        layer { name: "softmax_loss" type: "SoftmaxWithLoss" bottom: "fc6" bottom: "label"
          top: "softmax_loss" }
        layer { name: "center_loss" type: "CenterLoss" bottom: "fc5" bottom: "label"
          top: "center_loss" param { lr_mult: 1 decay_mult: 2 } center_loss_param { num_output: 5
          center_filler { type: "xavier" } } loss_weight: 0.008 }""")
    (tmp_path / "solver.prototxt").write_text(
        'net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" momentum: 0.9')
    torch.manual_seed(0)
    solver, data = load_solver(tmp_path / "solver.prototxt"), torch.randn(8, 6)
    losses = [solver.step(data=data, label=LABELS) for _ in range(60)]
    assert losses[-1]["softmax_loss"] < 0.6 * losses[0]["softmax_loss"]
    solver.net(data=data, label=LABELS)
    torch.testing.assert_close(solver.net.params["fc6"][0].norm(dim=1), torch.ones(5))


REJECTED = [
    (layer("MarginInnerProduct", "margin_inner_product_param { type: DOUBLE }", "xz"),
     "num_output must be at least 1, got 0"),
    (layer("MarginInnerProduct", "margin_inner_product_param { num_output: 2 }"), "needs 2 bot"),
    (layer("MarginInnerProduct", "margin_inner_product_param { num_output: 2 axis: 0 }", "xz"),
     r"1 inputs need as many labels, got \(2,\)"),
    (layer("MarginInnerProduct", "margin_inner_product_param { num_output: 2 lambda_min: -1 }",
           "xz"), "lambda_min must be above -1"),
    (layer("CenterLoss", "center_loss_param { num_output: 2 axis: 0 }", "xz"), "axis must be 1"),
    (layer("CenterLoss", "", "xz"), "num_output must be at least 1, got 0"),
    (layer("CenterLoss", "center_loss_param { num_output: 2 }", "xx"),
     r"2 inputs need as many labels, got \(2, 3\)"),
    (layer("InnerProduct", "inner_product_param { num_output: 2 normalize: true transpose: true }"),
     "normalize must stand without transpose"),
]


@pytest.mark.parametrize(("text", "match"), REJECTED)
def test_rejects(tmp_path, text, match):
    with pytest.raises(UserError, match=match):
        build(tmp_path, text, [(2, 3), (2,)])


@pytest.mark.parametrize("text", [
    layer("MarginInnerProduct", "margin_inner_product_param { num_output: 2 type: TRIPLE }", "xz"),
    layer("CenterLoss", "center_loss_param { num_output: 2 }", "xz")])
def test_rejects_labels_without_a_row(tmp_path, text):
    net = build(tmp_path, text, [(2, 3), (2,)])
    with pytest.raises(UserError, match="labels must be 0 to 1, got 2"):
        net(x=torch.ones(2, 3), z=torch.tensor([1.0, 2]))


def test_rejects_margins_of_other_numbers(tmp_path):
    text = layer("MarginInnerProduct", "margin_inner_product_param { num_output: 2 type: FIVE }",
                 "xz")
    with pytest.raises(UserError, match="type must be one of SINGLE, DOUBLE, TRIPLE, QUADRUPLE"):
        build(tmp_path, text, [(2, 3), (2,)])
