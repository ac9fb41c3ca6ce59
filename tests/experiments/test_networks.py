"""The plain port that whole networks are timed against."""

import torch
from helpers.networks import random_net
from torch import nn

from experiments.bench.networks import plain_port


@torch.no_grad()
def test_the_plain_port_computes_what_the_network_does():
    """In eval mode scores, in training mode those of both branches."""
    torch.manual_seed(0)
    net, x = random_net(dropout=0.0), torch.randn(2, 3, 97, 97) * 60
    port = plain_port(net)
    scores, wanted = port.logits(x), net.logits(x)
    assert (scores - wanted).abs().max() <= 1e-5 * wanted.abs().max()
    trained = plain_port(net.train()).logits(x)
    assert [part.shape for part in trained] == [part.shape for part in net.logits(x)]


def test_the_plain_port_has_convolutions_and_normalization_of_torch_alone():
    """Ours train by Winograd's: with them a port is no plain one."""
    port = plain_port(random_net(dropout=0.0).train())
    kinds = {type(module) for module in port.modules()
             if next(module.parameters(recurse=False), None) is not None}
    assert kinds == {nn.Conv2d, nn.BatchNorm2d}
