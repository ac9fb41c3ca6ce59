"""The pyramid's levels over several processes."""

import pytest
import torch
from helpers.processes import GATHER, count_collectives

from pspnet_repro import PSPNet, ops

pytestmark = pytest.mark.dist


def _levels(rank):
    """(collectives of a pyramid's pass, its outputs and gradients and those of single layers)."""
    pyramid = PSPNet(4, width=0.125, blocks=(1, 1, 1, 1)).double().train().pyramid
    x = torch.randn((2 + rank, 256, 6, 6), generator=torch.Generator().manual_seed(rank),
                    dtype=torch.float64)
    counted, results = [], []

    def shared():
        return pyramid.levels(x)

    def single():
        return [unit(level) for unit, level in zip(pyramid.reduce, ops.pyramid_pool2d(
            x, pyramid.bins))]

    torch.manual_seed(0)
    for parameter in pyramid.parameters():
        torch.nn.init.normal_(parameter)
    for forward, into in ((shared, counted), (single, [])):
        pyramid.zero_grad()

        def step(forward=forward):
            outputs = forward()
            sum((k + 1) * y.square().sum() for k, y in enumerate(outputs)).backward()
            return outputs

        outputs = count_collectives(into, step)
        results.append([t.detach().clone().numpy() for t in (
            *outputs, *(p.grad for p in pyramid.parameters()))])
    return counted, results


@pytest.mark.parametrize("size", [2, 4])
def test_levels_of_a_pyramid_share_their_collectives(group_of, size):
    for counted, (together, single) in group_of(size).run(_levels):
        assert counted == [GATHER, "all_reduce"]
        for one, other in zip(together, single, strict=True):
            assert abs(one - other).max() <= 1e-12 * abs(other).max()
