"""Small networks."""

import torch

from helpers.image_files import photograph
from prototxt_import.conversion.miniature import network_class
from pspnet_repro import PSPNet
from pspnet_repro.sync_bn import SyncBatchNorm2d

MODEL = {"classes": 4, "width": 0.125, "stem": "classic", "stem_width": 8, "blocks": (1, 1, 1, 1)}
MINI = {"width": 0.125, "stem_width": 8, "blocks": (1, 1, 1, 1)}
# Each row of Table 1: its settings, and its features and pyramid channels at full width.
ROWS = {
    "baseline": ({"bins": ()}, 2048),
    "b1-max": ({"bins": (1,), "pool": "max", "reduce": False}, 4096),
    "b1-ave": ({"bins": (1,), "pool": "ave", "reduce": False}, 4096),
    "b1236-max": ({"pool": "max", "reduce": False}, 10240),
    "b1236-ave": ({"pool": "ave", "reduce": False}, 10240),
    "b1236-max-dr": ({"pool": "max"}, 4096),
    "b1236-ave-dr": ({}, 4096),
}


def filled(module):
    """A module whose every tensor differs from what a new one holds."""
    with torch.no_grad():
        for tensor in module.state_dict().values():
            tensor.copy_(torch.rand(tensor.shape) + 0.5)
    return module


def random_net(**settings):
    """Random weights and statistics, in eval mode."""
    if settings.get("backbone") != "mini":
        settings = {**MINI, **settings}
    net = network_class(settings)(5, **settings).eval()
    for module in net.modules():
        if isinstance(module, SyncBatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias)
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return net


def tiny_net(classes=4):
    """An untrained PSPNet whose scores are of order 1 and whose classes all win somewhere."""
    torch.manual_seed(3)
    net = PSPNet(classes, 50, **MINI, aux=False).eval()
    pixels = torch.from_numpy(photograph(89, 89)).permute(2, 0, 1)[None].float() - 120
    with torch.no_grad():
        logits = net.logits(pixels)
        spread = logits.std((0, 2, 3))
        net.head.score.weight /= spread[:, None, None, None]
        net.head.score.bias -= logits.mean((0, 2, 3)) / spread
    return net


def stand_in_net(x):
    """The network of the golden files of the protocol."""
    h, w = x.shape[2:]
    weights = torch.tensor([[1.3, -0.7, 0.2], [-0.4, 0.9, -0.6], [0.5, 0.1, -1.1],
                            [-0.9, -0.3, 0.8]])
    k = torch.arange(1, 5, dtype=torch.float32)[:, None, None]
    waves = (torch.cos(0.05 * k * torch.arange(w, dtype=torch.float32))
             - 0.8 * torch.sin(0.03 * k * torch.arange(h, dtype=torch.float32)[:, None]))
    return torch.einsum("kc,nchw->nkhw", weights, x) / 60 + waves


def same_argmax(scores, wanted, error=1e-5):
    """Whether scores have the wanted argmax on every pixel whose two best differ by more than
    errors of that part of the largest score can."""
    best = wanted.topk(2, 1).values
    clear = best[:, 0] - best[:, 1] > 2 * error * wanted.abs().max()
    return bool((scores.argmax(1) == wanted.argmax(1))[clear].all() and clear.double().mean() > 0.9)
