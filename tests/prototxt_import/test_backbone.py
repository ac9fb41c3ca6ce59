"""ImageNet networks of Caffe into backbones with BatchNorm and Scale."""

import pytest
import torch
from helpers.backbone_files import BLOCKS, WIDTHS, Classifier
from helpers.import_files import assert_same_network, small_network

from prototxt_import import convert, convert_backbone, load_net
from prototxt_import.__main__ import main
from pspnet_repro import PSPNet
from pspnet_repro.errors import UserError
from pspnet_repro.training.initial_weights import load_initial_weights, read_structure
from pspnet_repro.weights import model_file


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
