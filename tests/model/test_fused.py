"""The fused copy for testing against the network that it was made of."""

import numpy as np
import pytest
import torch
from helpers.golden import read_golden
from helpers.import_files import seeded_weights
from helpers.networks import MODEL, ROWS, filled, random_net

from prototxt_import import convert, load_net, write_caffemodel
from pspnet_repro import PSPNet, ops
from pspnet_repro.__main__ import main
from pspnet_repro.data.conventions import MEAN_BGR
from pspnet_repro.evaluation import predict_probabilities
from pspnet_repro.model import fused
from pspnet_repro.weights import model_file

SETTINGS = {**ROWS, "mini": ({"backbone": "mini", "stem_width": 8}, None),
            "stride-3x3": ({"stride_in": "3x3", "bins": (5, 1)}, None),
            "classic": ({"stem": "classic", "strides": (1, 2, 2, 1), "bins": (3,)}, None),
            "literal": ({"head": "literal"}, None)}


def assert_agree(logits, wanted, size, error=1e-4):
    """Largest error over largest logit, and the argmax of the scores on 99.99% of the pixels."""
    assert logits.shape == wanted.shape and logits.dtype == wanted.dtype
    assert (logits - wanted).abs().max() <= error * wanted.abs().max()
    same = ops.interp2d(logits, size).argmax(1) == ops.interp2d(wanted, size).argmax(1)
    assert same.double().mean() >= 0.9999


@pytest.mark.parametrize("onednn", [True, False], ids=["onednn", "plain"])
@pytest.mark.parametrize("name", SETTINGS)
@torch.no_grad()
def test_for_inference_matches_the_network(name, onednn, monkeypatch):
    if not onednn:
        monkeypatch.setattr("pspnet_repro.model.fused.onednn_fuses", lambda weight: False)
    elif not torch.backends.mkldnn.is_available():
        pytest.skip("this torch was built without oneDNN")
    net = random_net(**SETTINGS[name][0])
    fused = net.for_inference()
    assert fused.score.onednn == onednn
    assert (fused.classes, fused.stride, fused.training) == (5, net.stride, False)
    for size in ((113, 113), (97, 145)):
        x = torch.randn(2, 3, *size) * 60
        given = x.clone()
        # Rounding alone: some 20 layers of 1e-7 each.
        assert_agree(fused.logits(x), net.logits(x), size, 1e-5)
        assert torch.equal(x, given), "the input was written to"
        assert torch.equal(fused(x), ops.interp2d(fused.logits(x), size))
        assert torch.equal(fused.logits(x.to(memory_format=torch.channels_last)), fused.logits(x))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
@torch.no_grad()
def test_for_inference_dtypes(dtype):
    """float64: the same function. bfloat16: as far from float64 as the unfused network."""
    exact, net = random_net(), random_net()
    net.load_state_dict(exact.state_dict())
    x = torch.randn(2, 3, 89, 89).to(dtype)
    exact.double()
    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d) or dtype == torch.float64:
            module.to(dtype)
    wanted = exact.logits(x.double())

    def distance(logits):
        assert logits.dtype == dtype
        return ((logits.double() - wanted).norm() / wanted.norm()).item()

    fused = distance(net.for_inference().logits(x))
    # Rounding of weights with the scale folded in is other luck than rounding them without it.
    assert fused <= (1e-12 if dtype == torch.float64 else 1.5 * distance(net.logits(x)))


def test_folding_is_in_float64():
    """A mean of 10^4 deviations, which float32 would leave with an error of 1e-3."""
    net = random_net(bins=())
    unit = net.head.conv
    unit.bn.running_mean.fill_(1e4)
    unit.bn.running_var.fill_(1.0)
    weight, bias = fused.folded(unit)
    scale = unit.bn.weight.detach().double() / (1 + 1e-5) ** 0.5
    assert torch.equal(bias, (unit.bn.bias.detach().double() - 1e4 * scale).float())
    assert torch.equal(weight, (unit.conv.weight.detach().double()
                                * scale.view(-1, 1, 1, 1)).float())


def test_for_inference_refuses_training_and_gradients():
    net = random_net()
    with pytest.raises(ValueError, match=r"in eval mode, whose batch normalization is fixed: "
                                         r"call .eval\(\)"):
        net.train().for_inference()
    fused = net.eval().for_inference()
    assert fused.eval() is fused
    with pytest.raises(ValueError, match="cannot be trained: its batch normalization is folded"):
        fused.train()
    x = torch.zeros(1, 3, 89, 89, requires_grad=True)
    with pytest.raises(ValueError, match=r"has no gradients: call it under torch.no_grad\(\)"):
        fused.logits(x)
    with torch.no_grad():
        fused.logits(x)
    assert not fused.logits(x.detach()).requires_grad
    with pytest.raises(ValueError, match="stays on its device and in its dtype"):
        fused.double()
    with pytest.raises(ValueError, match=r"crop sizes must be 8 \* k \+ 1 pixels, got 90"):
        fused(torch.zeros(1, 3, 89, 90))
    with pytest.raises(ValueError, match="bins must be at most the 5 pixels of a crop of 33"):
        fused.check_crop(33)


@pytest.mark.parametrize("onednn", [True, False], ids=["onednn", "plain"])
def test_for_inference_is_a_copy(onednn, monkeypatch):
    if not onednn:
        monkeypatch.setattr("pspnet_repro.model.fused.onednn_fuses", lambda weight: False)
    net = random_net()
    fused = net.for_inference()
    x = torch.randn(1, 3, 89, 89)
    before = fused.logits(x)
    with torch.no_grad():
        for tensor in (*net.parameters(), *net.buffers()):
            tensor.fill_(1)
    assert torch.equal(fused.logits(x), before)


def test_for_inference_gives_probabilities():
    image = np.random.RandomState(0).randint(0, 256, (70, 100, 3), np.uint8)
    net = random_net()
    protocol = {"classes": 5, "base_size": 120, "crop_size": 89}
    fused, wanted = (predict_probabilities(n, image, **protocol)
                     for n in (net.for_inference(), net))
    np.testing.assert_allclose(fused, wanted, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_pspnet50_on_its_photograph(shared, tmp_path):
    """Seeded weights of the released network's shapes; also against the original's logits."""
    arrays = read_golden(shared / "golden" / "net" / "pspnet50_ADE20K_473.npz")
    prototxt = shared / "prototxt" / "pspnet50_ADE20K_473.prototxt"
    with torch.device("meta"):
        weights = seeded_weights(load_net(prototxt), arrays)
    write_caffemodel(tmp_path / "w.caffemodel", "pspnet50", weights)
    net = convert(prototxt, tmp_path / "w.caffemodel")
    image = (arrays["image_bgr"].astype(np.float32) - MEAN_BGR).transpose(2, 0, 1)[None]
    x = torch.from_numpy(image)
    with torch.inference_mode():
        wanted = net.logits(x)
        logits = net.for_inference().logits(x)
        assert_agree(logits, wanted, (473, 473))
    error = np.abs(logits[0].numpy() - arrays["logits"]).max()
    assert error <= 2e-4 * np.abs(arrays["logits"]).max()  # as the unfused network


@pytest.mark.slow
def test_commands_fuse_unless_told(squares, tmp_path, capsys, monkeypatch):
    model_file.save_model(tmp_path / "w.pt", filled(PSPNet(**MODEL)))
    fused = []
    original = PSPNet.for_inference
    monkeypatch.setattr(PSPNet, "for_inference",
                        lambda net, *dtype: fused.append(net) or original(net, *dtype))
    common = ["--weights", str(tmp_path / "w.pt"), "--crop-size", "57", "--base-size", "71",
              "--threads", "1"]
    image = next(p for p in squares.rglob("*.png"))
    found = []
    for k, switches in enumerate(([], ["--no-fusion"])):
        assert main(["evaluate", *common, "--data", str(squares / "val.txt"), "--output",
                     str(tmp_path / f"e{k}"), *switches]) == 0
        assert main(["predict", *common, str(image), "-o", str(tmp_path / f"p{k}"),
                     *switches]) == 0
        found.append(next(line for line in capsys.readouterr().out.splitlines()
                          if line.startswith("mean IoU")))
        assert len(fused) == 2
    assert found[0] == found[1]
