"""The loss against the original program."""

import math
import re

import numpy as np
import pytest
import torch
from helpers.golden import golden_files, read_golden

from pspnet_repro import ops
from pspnet_repro.training.loss import guided_loss, shrink_labels, softmax_loss


def _settings(prototxt):
    ignore = re.search(r"ignore_label: (\d+)", prototxt)
    kind = re.search(r"normalization: (\w+)", prototxt)
    normalization = kind.group(1).lower() if kind else "valid"
    if not kind and "normalize: false" in prototxt:
        normalization = "batch_size"
    return {"ignore_index": int(ignore.group(1)) if ignore else None,
            "normalization": normalization}


@pytest.mark.parametrize("path", golden_files("layers", "loss_*"))
def test_softmax_loss_matches_golden(path):
    arrays = read_golden(path)
    z = torch.from_numpy(arrays["bottom_z"]).requires_grad_()
    labels = torch.from_numpy(arrays["bottom_label"])[:, 0].long()
    loss = softmax_loss(z, labels, **_settings(str(arrays["prototxt"])))
    (0.4 * loss).backward()
    np.testing.assert_allclose(loss.item(), arrays["top_y"], rtol=1e-5)
    largest = np.abs(arrays["dbottom_z"]).max()
    assert np.abs(z.grad.numpy() - arrays["dbottom_z"]).max() <= 1e-5 * largest


def test_softmax_loss_clamps_value_not_gradient():
    z = torch.tensor([0.0, 200.0]).view(1, 2, 1, 1).requires_grad_()
    loss = softmax_loss(z, torch.zeros(1, 1, 1, dtype=torch.long))
    loss.backward()
    assert loss.item() == pytest.approx(-math.log(torch.finfo(torch.float32).tiny), rel=1e-6)
    assert z.grad.flatten().tolist() == [-1.0, 1.0]


@pytest.mark.parametrize("difference", [88, 1e4, 1e8, 1e9, 1e10, 1e20, 3e38])
def test_softmax_loss_of_diverged_scores_is_that_of_the_smallest_probability(difference):
    z = torch.tensor([difference, 0.0]).view(1, 2, 1, 1).requires_grad_()
    loss = softmax_loss(z, torch.ones(1, 1, 1, dtype=torch.long))
    loss.backward()
    assert loss.item() == pytest.approx(87.3365, abs=1e-4)
    assert z.grad.flatten().tolist() == [1.0, -1.0]


def test_softmax_loss_of_infinite_scores_is_nan():
    z = torch.tensor([math.inf, 0.0]).view(1, 2, 1, 1)
    assert softmax_loss(z, torch.ones(1, 1, 1, dtype=torch.long)).isnan()


def test_softmax_loss_without_labels_is_zero():
    z = torch.randn(2, 3, 4, 4, requires_grad=True)
    loss = softmax_loss(z, torch.full((2, 4, 4), 255))
    loss.backward()
    assert loss.item() == 0 and not z.grad.any()


def test_softmax_loss_of_half_types_is_float32():
    z = torch.randn(1, 3, 4, 4)
    labels = torch.randint(0, 3, (1, 4, 4))
    loss = softmax_loss(z.bfloat16(), labels)
    assert loss.dtype == torch.float32
    assert loss.item() == softmax_loss(z.bfloat16().float(), labels).item()


def test_softmax_loss_rejects_bad_arguments():
    z = torch.zeros(1, 3, 4, 4)
    with pytest.raises(ValueError, match="normalization must be one of valid, full"):
        softmax_loss(z, torch.zeros(1, 4, 4), normalization="mean")
    with pytest.raises(ValueError, match=r"labels must be \(1, 4, 4\) as the logits, got \(1, 5"):
        softmax_loss(z, torch.zeros(1, 5, 4))


@pytest.mark.parametrize("path", golden_files("layers", "interp_label_shrink8"))
def test_shrink_labels_matches_golden(path):
    arrays = read_golden(path)
    labels = torch.from_numpy(arrays["bottom_x"][:, 0])
    assert np.array_equal(shrink_labels(labels, 8).numpy(), arrays["top_y"][:, 0])


def test_shrink_labels_rejects_sizes_that_would_blend():
    with pytest.raises(ValueError, match=r"label width must be 8 \* k \+ 1 pixels, got 96"):
        shrink_labels(torch.zeros(1, 97, 96), 8)


def test_guided_loss_full_interpolates_the_logits():
    logits = torch.randn(1, 4, 3, 3)
    labels = torch.randint(0, 4, (1, 17, 17))
    wanted = softmax_loss(ops.interp2d(logits, (17, 17)), labels)
    assert guided_loss(logits, labels, "full", 8).item() == wanted.item()
    with pytest.raises(ValueError, match='guidance must be "eighth" or "full"'):
        guided_loss(logits, labels, "half", 8)
