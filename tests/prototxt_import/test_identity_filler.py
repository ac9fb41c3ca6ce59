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


@pytest.mark.parametrize("shape", [(4, 3, 3, 3), (4, 4, 2, 3), (4, 4)])
def test_identity_filler_refuses_other_blobs(shape):
    with pytest.raises(ValueError, match="identity needs a 4-D blob of as many outputs as inputs "
                                         "and odd kernels, got"):
        fill(torch.empty(shape), IDENTITY)
