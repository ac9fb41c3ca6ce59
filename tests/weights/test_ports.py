"""PSPNets of other programs: converted, they give their own program's scores."""

import re

import numpy as np
import pytest
import safetensors.torch
import torch
from helpers.commands import run
from helpers.golden import golden_files, read_golden
from helpers.image_files import photograph
from helpers.port_files import golden_state, port_scores, port_state

from pspnet_repro import PSPNet, load_model
from pspnet_repro.errors import UsageError, UserError
from pspnet_repro.model.resnet import ResNet
from pspnet_repro.training.initial_weights import (
    load_initial_weights,
    read_structure,
    with_structure,
)
from pspnet_repro.weights import model_file
from pspnet_repro.weights.convert import convert_file

PORTS = ("semseg", "mmseg", "kazuto")


def forms(net):
    """{form: (network, factor on the tolerance)}: the three ways of computing."""
    literal = PSPNet(**{**net.settings, "head": "literal"})
    literal.load_state_dict(net.state_dict())
    return {"factorized": (net, 1), "literal": (literal.eval(), 1),
            "fused": (net.for_inference(), 10)}


def scores(net, image, port):
    with torch.inference_mode():
        x = net.prepare(image)
        return (net.logits(x) if port == "kazuto" else net(x))[0].numpy()


@pytest.mark.slow
@pytest.mark.parametrize("path", golden_files("ports"))
def test_ports_match_golden(path, tmp_path, capfd):
    golden = read_golden(path)
    port, step, largest = str(golden["port"]), int(golden["step"]), float(golden["largest"])
    torch.save({"state_dict": golden_state(golden)}, tmp_path / "w.pth")
    assert run(capfd, "convert", tmp_path / "w.pth", "-o", tmp_path / "w.safetensors")[0] == 0
    net = load_model(tmp_path / "w.safetensors")
    sure = golden["margin"].astype(np.float32) > 1e-3 * largest
    for name, (form, factor) in forms(net).items():
        got = scores(form, golden["image_rgb"], port)
        error = np.abs(got[:, ::step, ::step] - golden["scores"]).max() / largest
        assert error <= factor * max(1e-5, 3 * float(golden["float32_floor"])), name
        assert (got.argmax(0) == golden["argmax"])[sure].all(), name


# Sizes that are not 8k + 1 too, where the program takes them.
@pytest.mark.parametrize("port, align_corners, size", [
    ("semseg", None, (89, 97)), ("mmseg", False, (90, 103)), ("mmseg", True, (89, 97)),
    ("mmseg", True, (101, 92)), ("mmseg", False, (89, 89)), ("kazuto", None, (89, 97)),
    ("kazuto", None, (92, 90))])
def test_ports_of_depth_101_compute_what_their_program_does(
        tmp_path, port, align_corners, size):
    image, state = photograph(*size), port_state(port)
    torch.save({"epoch": 1, "state_dict": {f"module.{k}": v for k, v in state.items()}},
               tmp_path / "w.pth")
    wanted = port_scores(port, state, image, align_corners=align_corners).numpy()
    largest, best = np.abs(wanted).max(), np.sort(wanted, 0)[-2:]
    net = convert_file(tmp_path / "w.pth", align_corners=bool(align_corners)).model
    assert net.settings.blocks == (3, 4, 23, 3)
    for name, (form, factor) in forms(net).items():
        got = scores(form, image, port)
        assert np.abs(got - wanted).max() / largest <= factor * 1e-5, name
        assert (got.argmax(0) == wanted.argmax(0))[best[1] - best[0] > 1e-3 * largest].all(), name


def test_mmsegmentation_with_a_classic_stem_and_without_auxiliary_head(tmp_path):
    shape = {"blocks": (1, 2, 1, 1), "stem": "classic"}
    state = port_state("mmseg", aux=False, **shape)
    torch.save({"meta": {"env": "x"}, "state_dict": state}, tmp_path / "w.pth")
    image = photograph(70, 83)
    net = convert_file(tmp_path / "w.pth").model
    assert net.settings.stem == "classic" and net.auxiliary is None
    wanted = port_scores("mmseg", state, image, **shape).numpy()
    error = np.abs(scores(net, image, "mmseg") - wanted).max() / np.abs(wanted).max()
    assert error <= 1e-5


@pytest.fixture(scope="module")
def states():
    return {port: port_state(port, blocks=(1, 2, 1, 1)) for port in PORTS}


def wrapped(state, form):
    whole = {f"module.{name}": tensor for name, tensor in state.items()}
    return {"plain": state, "state_dict": {"epoch": 2, "state_dict": state, "optimizer": {}},
            "module": whole, "both": {"state_dict": whole, "best": 0.5},
            "model": {"model": state}, "nested": {"model": {"state_dict": whole}},
            "twice": {f"module.{name}": tensor for name, tensor in whole.items()},
            "lightning": {"state_dict": {f"model.{name}": t for name, t in state.items()}},
            "beside a tensor": {"state_dict": state, "rng": torch.zeros(3)},
            "other key": {"params_ema": state, "step": 3},
            "half": {name: t.half() if t.is_floating_point() else t for name, t in state.items()}
            }[form]


@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize("form", ["plain", "state_dict", "module", "both", "model", "nested",
                                  "twice", "lightning", "beside a tensor", "other key",
                                  "safetensors", "half"])
def test_ports_are_unwrapped(tmp_path, states, port, form):
    path = tmp_path / "w.bin"
    if form == "safetensors":
        safetensors.torch.save_file(states[port], path)
    else:
        torch.save(wrapped(states[port], form), path)
    made = convert_file(path)
    name = {"semseg": "cls.4.bias", "mmseg": "decode_head.conv_seg.bias",
            "kazuto": "final.conv6.bias"}[port]
    bias = states[port][name]
    assert torch.equal(made.model.head.score.bias, bias.half().float() if form == "half" else bias)
    assert made.protocol == ("caffe" if port == "kazuto" else "semseg")


@pytest.mark.parametrize("port, change, words", [
    ("semseg", lambda s: s.pop("cls.1.running_var"), "lacks cls.1.running_var$"),
    ("semseg", lambda s: s.pop("aux.4.bias"), "lacks aux.4.bias$"),
    ("mmseg", lambda s: s.pop("backbone.layer2.1.bn2.bias"), "lacks backbone.layer2.1.bn2.bias$"),
    ("kazuto", lambda s: s.pop("fcn.layer3.block2.increase.conv.weight"), "lacks fcn.layer3.b"),
    ("kazuto", lambda s: s.update({"final.extra": torch.ones(2)}), "has no place for final.extra$"),
    ("semseg", lambda s: s.update({"layer4.0.conv2.weight": torch.ones(9, 32, 3, 3)}),
     r"layer4.0.conv2.weight must be \(32, 32, 3, 3\), got \(9, 32, 3, 3\)$"),
    ("semseg", lambda s: s.update({"ppm.features.4.1.weight": torch.ones(4, 4, 1, 1)}),
     "its pyramid has 5 levels, ppm.features.0. and on, must have 4"),
    ("mmseg", lambda s: s.update({"backbone.layer2.0.downsample.2.weight": torch.ones(4)}),
     r"its projections average first \(ResNet-D\)"),
    ("mmseg", lambda s: s["decode_head.bottleneck.bn.bias"].fill_(float("nan")),
     "head.conv.bn.bias is not finite"),
    ("mmseg", lambda s: s.update({"decode_head.conv_seg.bias": torch.ones(5, dtype=torch.int32)}),
     "decode_head.conv_seg.bias must be a dense floating tensor, got torch.int32"),
    ("kazuto", lambda s: s.update({"fcn.layer2.block9.reduce.conv.weight": torch.ones(1)}),
     "fcn.layer2.block2"),
])
def test_tensors_that_do_not_fit_are_named(tmp_path, states, port, change, words):
    state = {name: tensor.clone() for name, tensor in states[port].items()}
    change(state)
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(UserError, match=words) as caught:
        convert_file(tmp_path / "w.pth")
    assert str(caught.value).startswith(f"{tmp_path / 'w.pth'}: ") and "\n" not in str(caught.value)


def test_convert_says_what_was_left_out_differs_and_was_assumed(tmp_path, capfd, states):
    torch.save({**states["mmseg"], "loss.weight": torch.ones(3)}, tmp_path / "w.pth")
    out = tmp_path / "w.safetensors"
    code, text, _ = run(capfd, "convert", tmp_path / "w.pth", "-o", out)
    assert code == 0
    assert re.search(r"loss\.weight +3 +left out", text)
    assert "upsampling: half-pixel centres" in text and "--align-corners" in text
    for word in ("stride", "dilation", "pyramid", "dropout", "BN", "input", "protocol"):
        assert f"  {word}: " in text
    assert model_file.read_model_file(out)["protocol"] == "semseg"
    again = tmp_path / "again.pt"
    assert run(capfd, "convert", out, "-o", again)[0] == 0
    assert model_file.read_model_file(again)["protocol"] == "semseg"
    assert load_model(again).settings == load_model(out).settings


def test_align_corners_is_for_mmsegmentation(tmp_path, states):
    torch.save(states["semseg"], tmp_path / "w.pth")
    with pytest.raises(UsageError, match="--align-corners is for files of mmsegmentation, .* holds "
                                         "semseg's PSPNet, leave it out"):
        convert_file(tmp_path / "w.pth", align_corners=True)


@pytest.mark.parametrize("port", PORTS)
def test_the_backbone_of_a_port_can_be_taken_alone(tmp_path, states, port):
    torch.save(states[port], tmp_path / "w.pth")
    whole, alone = (convert_file(tmp_path / "w.pth", backbone) for backbone in (False, True))
    assert isinstance(alone.model, ResNet)
    for name, tensor in alone.model.state_dict().items():
        assert torch.equal(tensor, whole.model.backbone.state_dict()[name])
    assert alone.model.settings.input_order == whole.model.settings.input_order


@pytest.mark.parametrize("port", PORTS)
def test_a_training_takes_over_how_the_port_trains(tmp_path, states, port):
    torch.save(states[port], tmp_path / "w.pth")
    path = tmp_path / "w.safetensors"
    model_file.save_model(path, convert_file(tmp_path / "w.pth").model)
    model = with_structure({"classes": 5, "aux": True}, read_structure(path))
    settings = PSPNet(**model).settings
    assert (settings.spatial_dropout, settings.variance) == (True, "torch")
    assert settings.bn_momentum == (0.05 if port == "kazuto" else 0.1)
    assert not any(line.startswith("note: ") for line in load_initial_weights(PSPNet(**model), path)
                   if "strides" not in line and "dilations" not in line)
    asked = {"spatial_dropout": False, "variance": "biased", "bn_momentum": 0.01}
    net = PSPNet(**with_structure({"classes": 5, "aux": True, **asked}, read_structure(path)))
    said = load_initial_weights(net, path)
    for name, value in asked.items():
        assert f"note: the file's network has {name} {getattr(settings, name)}, this one " \
               f"{value}" in said
