"""ResNets with the names of torchvision, timm and mmsegmentation into backbones."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.backbone_files import BLOCKS, WIDTHS, torch_state
from helpers.commands import run
from helpers.image_files import photograph

from pspnet_repro import PSPNet
from pspnet_repro.errors import UsageError, UserError
from pspnet_repro.model.image_input import ImageInput
from pspnet_repro.model.resnet import ResNet
from pspnet_repro.training.initial_weights import (
    load_initial_weights,
    read_structure,
    with_structure,
)
from pspnet_repro.weights import model_file
from pspnet_repro.weights.convert import convert_file

MEAN, DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])  # RGB
INPUT = {"input_order": "rgb", "input_mean": (123.675, 116.28, 103.53),
         "input_std": (58.395, 57.12, 57.375)}


def torch_features(state, rgb):
    """What torchvision's ResNet computes of an (H, W, 3) uint8 image, in float64."""
    state = {name: tensor.double() for name, tensor in state.items()}

    def unit(x, conv, bn, stride=1):
        weight = state[f"{conv}.weight"]
        x = F.conv2d(x, weight, None, stride, weight.shape[-1] // 2)
        return F.batch_norm(x, *(state[f"{bn}.{name}"] for name in (
            "running_mean", "running_var", "weight", "bias")))

    x = torch.from_numpy(((rgb / 255 - MEAN) / DEVIATION).transpose(2, 0, 1))[None]
    for k in range(3 if "conv3.weight" in state else 1):
        x = unit(x, f"conv{k + 1}", f"bn{k + 1}", 2 if k == 0 else 1).relu()
    x = F.max_pool2d(x, 3, 2, 1)
    for stage, blocks in enumerate(BLOCKS):
        for k in range(blocks):
            name, stride = f"layer{stage + 1}.{k}", 2 if stage and not k else 1
            y = unit(x, f"{name}.conv1", f"{name}.bn1").relu()
            y = unit(y, f"{name}.conv2", f"{name}.bn2", stride).relu()
            y = unit(y, f"{name}.conv3", f"{name}.bn3")
            x = (y + (x if k else unit(x, f"{name}.downsample.0", f"{name}.downsample.1",
                                       stride))).relu()
    return x


def renamed(state, form):
    """A ResNet's state dict as other programs name and wrap it."""
    deep = {f"{kind}{k}": place for k in (1, 2, 3) for kind, place in (
        ("conv", f"stem.{3 * k - 3}"), ("bn", f"stem.{3 * k - 2}"))}
    timm = {"conv1": "conv1.0", "bn1": "conv1.1", "conv2": "conv1.3", "bn2": "conv1.4",
            "conv3": "conv1.6", "bn3": "bn1"}
    table = {"mmseg v1c": deep, "timm v1c": timm}.get(form, {})
    return {".".join([table.get(first, first), rest]): tensor
            for name, tensor in state.items() for first, _, rest in [name.partition(".")]}


@pytest.mark.parametrize("form", ["classic", "deep", "mmseg v1c", "timm v1c", "backbone."])
@pytest.mark.parametrize("size", [(97, 97), (96, 110)])
def test_features_are_the_sources(tmp_path, form, size):
    state = torch_state(form in ("deep", "mmseg v1c", "timm v1c"))
    image = photograph(*size)
    content = renamed(state, form)
    if form == "backbone.":
        content = {"meta": {}, "state_dict": {
            **{f"backbone.{name}": tensor for name, tensor in state.items() if name[:2] != "fc"},
            "head.fc.weight": state["fc.weight"]}}
    torch.save(content, tmp_path / "r.pth")
    made = convert_file(tmp_path / "r.pth")
    settings = made.model.settings
    x = ImageInput(settings.input_order, settings.input_mean, settings.input_std).tensor(image)
    wanted = torch_features(state, image)
    with torch.inference_mode():
        got = made.model(x)[1].double()
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-5 * wanted.abs().max().item())
    assert [row.place for row in made.rows if "fc" in row.layer] == ["left out"] * (
        1 if form == "backbone." else 2)


def test_settings_and_report(tmp_path, capfd):
    state = torch_state()
    torch.save(state, tmp_path / "r.pth", _use_new_zipfile_serialization=False)
    out = tmp_path / "b.pth"
    code, text, _ = run(capfd, "convert", "--backbone", tmp_path / "r.pth", "-o", out)
    assert code == 0
    backbone = model_file.load_backbone(out)
    assert backbone.settings == ResNet(
        blocks=BLOCKS, stem="classic", stem_width=12, widths=WIDTHS, strides=(1, 2, 2, 2),
        dilations=(1, 1, 1, 1), stride_in="3x3", ceil_mode=False, **INPUT).settings
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines()}
    assert rows["layer2.1.conv2"] == ["6x6x3x3", "stage3.1.spatial.conv"]
    assert rows["layer4.0.downsample.1"] == ["40", "stage5.0.project.bn"]
    assert rows["fc.weight"] == ["5x40", "left", "out"]
    assert torch.equal(backbone.stem[0].conv.weight, state["conv1.weight"])


@pytest.mark.parametrize("converted", [False, True])
def test_a_training_takes_over_the_input(tmp_path, capfd, converted):
    torch.save(torch_state(), tmp_path / "r.pth")
    path = tmp_path / "r.pth"
    if converted:
        path = tmp_path / "r.safetensors"
        assert run(capfd, "convert", tmp_path / "r.pth", "-o", path)[0] == 0
    structure = read_structure(path)
    model = with_structure({"classes": 3}, structure)
    net = PSPNet(**model)
    assert {name: getattr(net.settings, name) for name in INPUT} == INPUT
    assert net.settings.strides == (1, 2, 1, 1) and net.settings.align_corners
    load_initial_weights(net, path)
    with pytest.raises(UsageError, match="input_order must be rgb, .*, got bgr: leave it to the f"):
        with_structure({"classes": 3, "input_order": "bgr"}, structure)
    other = PSPNet(**{**model, "input_std": (1, 1, 1)})
    with pytest.raises(UserError, match=r"input_std is \(58.395, .*\) there, \(1.0, .*\) here"):
        load_initial_weights(other, path)


@pytest.mark.parametrize("change, words", [
    (lambda s: s.pop("layer1.0.conv3.weight"), "not a ResNet of bottlenecks: lacks layer1.0.conv3"),
    (lambda s: s.pop("layer2.1.bn2.bias"), "lacks layer2.1.bn2.bias$"),
    (lambda s: s.update({"layer4.7.conv1.weight": torch.zeros(1)}), "no place for layer4.7.conv1"),
    (lambda s: s.update({"layer3.0.conv2.weight": torch.zeros(8, 4, 3, 3)}),
     r"layer3.0.conv2.weight must be \(8, 8, 3, 3\), got \(8, 4, 3, 3\)$"),
    (lambda s: s["layer3.0.bn2.bias"].fill_(float("nan")),
     "stage4.0.spatial.bn.bias is not finite"),
    (lambda s: s.update({"conv1.weight": torch.zeros(600, 3, 7, 7)}),
     "r.pth: stem_width must be 1 to 512, got 600")])
def test_other_resnets_are_refused(tmp_path, change, words):
    state = torch_state()
    change(state)
    torch.save(state, tmp_path / "r.pth")
    with pytest.raises(UserError, match=words):
        convert_file(tmp_path / "r.pth")
