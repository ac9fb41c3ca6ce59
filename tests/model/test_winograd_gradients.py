"""What training by Winograd's convolution leaves to torch's."""

import pytest
import torch

from pspnet_repro.model import winograd


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(),
                    reason="this torch was built without oneDNN")
def test_a_second_derivative_is_refused_and_a_trace_has_torchs_convolution():
    x, weight = torch.randn(1, 128, 60, 60), torch.randn(128, 128, 3, 3) / 34
    weight.requires_grad_()
    gradient, = torch.autograd.grad(winograd.conv2d(x, weight).square().sum(), weight,
                                    create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()
    traced = torch.jit.trace(winograd.conv2d, (x, weight), check_trace=False)
    assert [node.kind() for node in traced.graph.nodes()][-1] == "aten::_convolution"
