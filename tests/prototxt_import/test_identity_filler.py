"""The filler `identity`, with which DilatedNet's context module starts."""

import pytest
import torch

from prototxt_import.format.caffe_pb2 import FillerParameter
from prototxt_import.layers.fillers import fill

IDENTITY = FillerParameter(type="identity")


def test_identity_filler_gives_each_channel_as_it_is():
    weight, x = torch.empty(4, 4, 3, 5), torch.randn(1, 4, 6, 7)
    fill(weight, IDENTITY)
    assert torch.equal(torch.nn.functional.conv2d(x, weight, padding=(1, 2)), x)


def test_identity_filler_of_groups_widens_and_narrows():
    """Two classes widened to four channels and narrowed again are the two classes."""
    wide, narrow, x = torch.empty(4, 2, 1, 1), torch.empty(2, 4, 1, 1), torch.randn(1, 2, 3, 3)
    for weight in (wide, narrow):
        fill(weight, FillerParameter(type="identity", num_groups=2))
    assert torch.equal(wide.flatten(1), torch.tensor([[0.5, 0], [0.5, 0], [0, 0.5], [0, 0.5]]))
    y = torch.nn.functional.conv2d(torch.nn.functional.conv2d(x, wide), narrow)
    assert torch.equal(y, x)


def test_identity_filler_has_noise_around_the_identity():
    weight = torch.empty(6, 6, 3, 3)
    fill(weight, FillerParameter(type="identity", std=0.01))
    assert torch.equal(weight[:, :, 1, 1].diagonal(), torch.ones(6))
    # 318 draws: the spread is within four of its own standard deviations.
    rest = weight[weight != 1]
    assert len(rest) == 318 and rest.std().item() == pytest.approx(0.01, rel=0.16)


@pytest.mark.parametrize(("shape", "groups", "message"), [
    ((4, 3, 3, 3), 0, "as many outputs as inputs, or num_groups"), ((4, 4, 2, 3), 0, "odd kernels"),
    ((4, 4), 0, "a 4-D blob"), ((4, 6, 3, 3), 4, "num_groups must divide 4 outputs and 6 inputs")])
def test_identity_filler_refuses_other_blobs(shape, groups, message):
    with pytest.raises(ValueError, match=message):
        fill(torch.empty(shape), FillerParameter(type="identity", num_groups=groups))
