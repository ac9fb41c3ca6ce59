"""The plain copy for exporters against the network that it was made of."""

import pytest
import torch
from helpers.networks import ROWS, random_net, same_argmax

SETTINGS = {**{name: settings for name, (settings, _) in ROWS.items()},
            "mini": {"backbone": "mini", "stem_width": 8},
            "stride-3x3": {"stride_in": "3x3", "bins": (5, 1)},
            "classic": {"stem": "classic", "strides": (1, 2, 2, 1), "bins": (3,)},
            "literal": {"head": "literal"},
            "mmseg": {"align_corners": False, "ceil_mode": False, "contract_dilation": True}}
# No map of these is divided by all bins 1, 2, 3, 6 on both sides.
SIZES = ((113, 113), (97, 145))


def _relative(got, wanted):
    return ((got - wanted).abs().max() / wanted.abs().max()).item()


@pytest.mark.parametrize("name", SETTINGS)
@torch.no_grad()
def test_plain_copy_matches_the_network(name):
    torch.manual_seed(0)
    net = random_net(**SETTINGS[name])
    plain = net.for_inference(plain=True)
    assert (plain.classes, plain.stride, plain.training) == (5, net.stride, False)
    assert not [parameter for parameter in plain.parameters() if parameter.requires_grad]
    for size in SIZES + ((100, 87),) * net.any_size:
        x = torch.randn(2, 3, *size) * 60
        wanted = net(x)
        # Rounding alone: some 20 layers of 1e-7 each.
        assert _relative(plain.logits(x), net.logits(x)) <= 1e-5
        assert _relative(plain(x), wanted) <= 1e-5
        assert same_argmax(plain(x), wanted)


@torch.no_grad()
def test_plain_copy_in_float64_is_the_same_function():
    """Of one bin: positions of upsampling torch computes in float64 then, this program never."""
    net = random_net(bins=(1,)).double()
    x = torch.randn(1, 3, 97, 113, dtype=torch.float64) * 60
    assert _relative(net.for_inference(plain=True).logits(x), net.logits(x)) <= 1e-12


@torch.no_grad()
def test_plain_copy_of_another_dtype_scores_in_the_networks():
    net = random_net()
    x = torch.randn(1, 3, 97, 97) * 60
    scores = net.for_inference(torch.bfloat16, plain=True)(x)
    assert scores.dtype == torch.float32 and _relative(scores, net(x)) <= 0.1


def test_plain_copy_has_only_operators_of_torch():
    net = random_net(head="literal")
    program = torch.export.export(net.for_inference(plain=True), (torch.zeros(2, 3, 97, 97),))
    operators = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert operators and not [name for name in operators if not name.startswith("aten.")]
    assert not [name for name in operators if "norm" in name]


@pytest.mark.parametrize("name", ["b1236-ave-dr", "b1236-max", "mmseg"])
@torch.no_grad()
def test_plain_copy_is_traced(name):
    net = random_net(**SETTINGS[name])
    plain = net.for_inference(plain=True)
    traced = torch.jit.trace(plain, torch.randn(1, 3, 97, 97))
    x = torch.randn(2, 3, 97, 97) * 60
    assert _relative(traced(x), plain(x)) <= 1e-6


def test_plain_copy_refuses_what_the_network_refuses():
    net = random_net()
    plain = net.for_inference(plain=True)
    with pytest.raises(ValueError, match=r"crop sizes must be 8 \* k \+ 1 pixels, got 90"):
        plain(torch.zeros(1, 3, 89, 90))
    with pytest.raises(ValueError, match="in eval mode"):
        net.train().for_inference(plain=True)
