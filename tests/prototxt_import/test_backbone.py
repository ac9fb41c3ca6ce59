"""ImageNet networks into backbones: Caffe's with BatchNorm and Scale, torchvision's."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.backbone_files import BLOCKS, WIDTHS, Classifier, torch_state
from helpers.import_files import assert_same_network, small_network

from prototxt_import import convert, convert_backbone, load_net
from prototxt_import.__main__ import main
from prototxt_import.conversion import torch_resnet
from prototxt_import.conversion.torch_resnet import convert_torch_resnet
from pspnet_repro import PSPNet
from pspnet_repro.data.conventions import MEAN_BGR
from pspnet_repro.errors import UserError
from pspnet_repro.model.resnet import ResNet
from pspnet_repro.training.initial_weights import load_initial_weights, read_structure
from pspnet_repro.weights import model_file

MEAN, DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])  # RGB


@pytest.mark.parametrize("form", [
    {}, {"norm": ""}, {"bias": "false"}, {"scale": None}, {"scale": "axis: 1"}, {"deep": True},
    {"stride_in": "1x1", "norm": "eps: 2e-5"}], ids=lambda form: ",".join(form) or "all")
def test_backbone_of_a_classifier_computes_its_features(tmp_path, form):
    net = Classifier(**form)
    paths = net.write(tmp_path)
    backbone = convert_backbone(*paths)
    deep = form.get("deep", False)
    assert backbone.settings == {
        "blocks": BLOCKS, "stem": "deep" if deep else "classic", "stem_width": 6 if deep else 12,
        "widths": WIDTHS, "strides": (1, 2, 2, 2), "dilations": (1, 1, 1, 1),
        "stride_in": form.get("stride_in", "3x3"), "pool_padding": int(deep)}
    x = torch.randn(2, 3, 97, 97)
    original = load_net(*paths)
    with torch.inference_mode():
        original(data=x)
        features = backbone(x)[1]
    wanted = original.blobs[net.features]
    torch.testing.assert_close(features, wanted, rtol=0, atol=1e-5 * wanted.abs().max().item())


def _change(net, what):
    if what == "factor":
        net.weights["u2n"][1][2][:] = 0
    elif what == "variance":
        net.weights["u3n"][1][1][1] = -1
    elif what == "fc":
        net.weights["fc8"] = net.weights.pop("fc")
    elif what == "branch":
        net.add('name: "early" type: "Convolution" bottom: "p" top: "early" convolution_param { '
                'num_output: 1 kernel_size: 1 }')
    return net


@pytest.mark.parametrize("what, words", [
    ("factor", "layer 'u2n': its scale factor is 0"),
    ("variance", "layer 'u3n': its variances plus eps must be at least 1e-5"),
    ("fc", "has layers that .*net.prototxt has no place for: fc8$"),
    ("branch", r"layer 'early' \(Convolution\): has no place in a ResNet"),
])
def test_convert_backbone_rejects(tmp_path, what, words):
    with pytest.raises(UserError, match=words):
        convert_backbone(*_change(Classifier(), what).write(tmp_path))


def test_convert_backbone_rejects_other_blocks(tmp_path):
    class Basic(Classifier):
        def block(self, bottom, channels, width, stride, project):
            top = self.unit(bottom, channels, width, 3, stride)
            top = self.unit(top, width, 4 * width, 3, relu=False)
            bottom = self.unit(bottom, channels, 4 * width, 1, stride, relu=False)
            self.add(f'name: "{top}e" type: "Eltwise" bottom: "{top}" bottom: "{bottom}" '
                     f'top: "{top}e"')
            self.add(f'name: "{top}o" type: "ReLU" bottom: "{top}e" top: "{top}o"')
            return f"{top}o"

    with pytest.raises(UserError, match=r"layer 'u3e' \(Eltwise\): must join three convolutions "
                                        "with their input, .*; it joins 2 and 1$"):
        convert_backbone(*Basic().write(tmp_path))


def test_convert_backbone_rejects_an_eps_that_variances_cannot_take_up(tmp_path):
    net = Classifier(norm="eps: 1e-8")
    net.weights["u1n"][1][1][:] = 0
    with pytest.raises(UserError, match="layer 'u1n': its variances plus eps must be at least"):
        convert_backbone(*net.write(tmp_path))


@pytest.mark.parametrize("deep", [False, True])
def test_convert_rejects_a_classifier_as_pspnet(tmp_path, deep):
    with pytest.raises(UserError, match=r"layer 'fc' \(InnerProduct\): has no place in a PSPNet; "
                                        "`pspnet convert --backbone` makes a backbone of a "
                                        "classification network"):
        convert(*Classifier(deep=deep).write(tmp_path))


def test_backbone_command_and_training_weights(tmp_path, capsys):
    net = Classifier(deep=True)
    out = tmp_path / "b.safetensors"
    assert main(["convert", "--backbone", *map(str, net.write(tmp_path)), "-o", str(out)]) == 0
    said = capsys.readouterr().out
    assert any(line.split() == ["fc", "InnerProduct", "left", "out"] for line in said.splitlines())
    assert "u1s " in said and "pool_padding: 1" in said
    assert f"to start from it: pspnet train --initial-weights {out} ..." in said
    pspnet = PSPNet(3, stem_width=6, widths=WIDTHS, blocks=BLOCKS, stride_in="3x3")
    report = load_initial_weights(pspnet, out)
    backbone = model_file.load_backbone(out)
    for name, tensor in backbone.state_dict().items():
        assert torch.equal(pspnet.backbone.state_dict()[name], tensor)
    assert report[2:] == [
        "note: the file's network has strides (1, 2, 2, 2), this one (1, 2, 1, 1)",
        "note: the file's network has dilations (1, 1, 1, 1), this one (1, 1, 2, 4)"]


@pytest.mark.parametrize("kind", ["backbone", "pspnet"])
def test_weights_in_caffes_files_start_a_training_as_converted_ones_do(tmp_path, kind):
    if kind == "backbone":
        pair = Classifier().write(tmp_path)
    else:
        small_network(tmp_path)
        pair = tmp_path / "net.prototxt", tmp_path / "w.caffemodel"
    converted = tmp_path / "converted.safetensors"
    words = ["--backbone"] if kind == "backbone" else []
    assert main(["convert", *words, *map(str, pair), "-o", str(converted)]) == 0
    structure = read_structure(converted)
    assert read_structure(pair).settings == structure.settings
    settings = {"classes": 3, **structure.settings}
    nets = [PSPNet(**settings), PSPNet(**settings)]
    for net, weights in zip(nets, (pair, converted)):
        torch.manual_seed(0)
        net.load_state_dict(PSPNet(**settings).state_dict())
        load_initial_weights(net, weights)
    assert_same_network(*nets)


def test_export_takes_caffes_files(tmp_path, capsys):
    net, text, _ = small_network(tmp_path)
    out = tmp_path / "out.prototxt", tmp_path / "out.caffemodel"
    pair = f"{tmp_path / 'net.prototxt'},{tmp_path / 'w.caffemodel'}"
    assert main(["export", pair, "-o", *map(str, out)]) == 0
    assert out[0].read_text() == text
    assert_same_network(convert(*out), net)


def torch_features(state, rgb, stem_only=False):
    """What torchvision's ResNet computes of (N, 3, H, W) uint8 RGB, in float64."""
    state = {name: tensor.double() for name, tensor in state.items()}

    def unit(x, conv, bn, stride=1):
        weight = state[f"{conv}.weight"]
        x = F.conv2d(x, weight, None, stride, weight.shape[-1] // 2)
        return F.batch_norm(x, *(state[f"{bn}.{name}"] for name in (
            "running_mean", "running_var", "weight", "bias")))

    mean, deviation = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, DEVIATION))
    x = (rgb.double() / 255 - mean) / deviation
    for k in range(3 if "conv3.weight" in state else 1):
        x = unit(x, f"conv{k + 1}", f"bn{k + 1}", 2 if k == 0 else 1).relu()
        if stem_only:
            return x
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


def _ours(rgb, mean=MEAN_BGR):
    return (rgb.flip(1).float() - torch.tensor(np.array(mean, np.float32)).view(3, 1, 1))


@pytest.fixture(scope="module")
def photograph():
    """Smooth colours, as photographs have, not around their mean."""
    small = torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(3)) * 255
    return F.interpolate(small, (97, 97), mode="bilinear").round().to(torch.uint8)


@pytest.mark.parametrize("deep", [False, True])
def test_torch_resnet_first_convolution_takes_over_the_input(tmp_path, photograph, deep):
    state = torch_state(deep)
    torch.save(state, tmp_path / "r.pth")
    backbone = convert_torch_resnet(tmp_path / "r.pth").model
    wanted = torch_features(state, photograph, stem_only=True)
    with torch.inference_mode():
        got = backbone.stem[0](_ours(photograph)).double()
    scale = wanted.abs().max().item()
    margin = 1 if deep else 2
    inner = (..., slice(margin, -margin), slice(margin, -margin))
    torch.testing.assert_close(got[inner], wanted[inner], rtol=0, atol=1e-5 * scale)
    # At the border a part of the window sees the other mean: at most half a level of 255, measured
    # 0.35 percent.
    assert (got - wanted).abs().max() <= 1e-2 * scale


@pytest.mark.parametrize("deep", [False, True])
def test_torch_resnet_features(tmp_path, photograph, deep, monkeypatch):
    state = torch_state(deep)
    torch.save(state, tmp_path / "r.pth")
    wanted = torch_features(state, photograph)
    with torch.inference_mode():
        near = convert_torch_resnet(tmp_path / "r.pth").model(_ours(photograph))[1].double()
    # Borders reach everything in so small a picture: measured 0.1 to 0.45 percent.
    assert (near - wanted).abs().max() <= 1e-2 * wanted.abs().max()
    # With torchvision's mean as ours nothing is left over, and borders agree as well.
    mean = 255 * MEAN[::-1]
    monkeypatch.setattr(torch_resnet, "MEAN_BGR", mean)
    with torch.inference_mode():
        same = convert_torch_resnet(tmp_path / "r.pth").model(_ours(photograph, mean))[1].double()
    torch.testing.assert_close(same, wanted, rtol=0, atol=1e-5 * wanted.abs().max().item())


def test_torch_resnet_settings_and_report(tmp_path, capsys):
    state = torch_state()
    torch.save(state, tmp_path / "r.pth", _use_new_zipfile_serialization=False)
    out = tmp_path / "b.pth"
    assert main(["convert", "--backbone", str(tmp_path / "r.pth"), "-o", str(out)]) == 0
    backbone = model_file.load_backbone(out)
    assert backbone.settings == ResNet(
        blocks=BLOCKS, stem="classic", stem_width=12, widths=WIDTHS, strides=(1, 2, 2, 2),
        dilations=(1, 1, 1, 1), stride_in="3x3").settings
    rows = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines()}
    assert rows["layer2.1.conv2"] == ["6x6x3x3", "stage3.1.spatial.conv"]
    assert rows["layer4.0.downsample.1"] == ["40", "stage5.0.project.bn"]
    assert rows["fc.weight"] == ["5x40", "left", "out"]
    assert torch.equal(backbone.stage3[1].spatial.conv.weight, state["layer2.1.conv2.weight"])


@pytest.mark.parametrize("change, words", [
    (lambda s: s.pop("layer1.0.conv3.weight"), "not a ResNet of bottlenecks: lacks layer1.0.conv3"),
    (lambda s: s.pop("layer2.1.bn2.bias"), "lacks layer2.1.bn2.bias$"),
    (lambda s: s.update({"extra.weight": torch.zeros(1)}), "has no place for extra.weight$"),
    (lambda s: s.update({"layer3.0.conv2.weight": torch.zeros(8, 4, 3, 3)}),
     r"layer3.0.conv2.weight must be \(8, 8, 3, 3\), got \(8, 4, 3, 3\)$"),
    (lambda s: s["layer3.0.bn2.bias"].fill_(float("nan")),
     "stage4.0.spatial.bn.bias is not finite"),
    (lambda s: s.update({"conv1.weight": torch.zeros(600, 3, 7, 7)}),
     "r.pth: stem_width must be 1 to 512, got 600"),
    (lambda s: s.update({"epoch": 3}), "must be a state dict of tensors alone"),
])
def test_convert_torch_resnet_rejects(tmp_path, change, words):
    state = torch_state()
    change(state)
    torch.save(state, tmp_path / "r.pth")
    with pytest.raises(UserError, match=words):
        convert_torch_resnet(tmp_path / "r.pth")
