"""Offsets of Crop layers without one, in the Caffes of FCN and HED."""

import pytest
import torch

from prototxt_import import load_net
from pspnet_repro.errors import UserError

INPUT = 'input: "data" input_dim: [1, 1, 16, 24]\n'


def _layer(kind, name, bottoms, fields=""):
    lines = "".join(f'bottom: "{bottom}" ' for bottom in bottoms.split())
    return f'layers {{ name: "{name}" type: {kind} {lines}top: "{name}" {fields} }}\n'


def _window(kind, name, bottom, fields):
    param = ("pooling_param {" if kind == "POOLING" else
             "convolution_param { num_output: 1")
    return _layer(kind, name, bottom, f"{param} {fields} }}")


def _fcn(stages):
    """FCN's layers of V1: `stages` fusions before the last enlargement."""
    text, blob = INPUT, "data"
    for stage, count in enumerate((2, 2, 3, 3, 3), 1):
        for k in range(count):
            pad = 100 if blob == "data" else 1
            text += _window("CONVOLUTION", f"conv{stage}_{k}", blob, f"kernel_size: 3 pad: {pad}")
            blob = f"conv{stage}_{k}"
        text += _window("POOLING", f"pool{stage}", blob, "kernel_size: 2 stride: 2")
        blob = f"pool{stage}"
    text += _window("CONVOLUTION", "fc6", blob, "kernel_size: 7")
    blob = "fc6"
    for stage in range(4, 4 - stages, -1):
        text += (_window("DECONVOLUTION", f"up{stage}", blob, "kernel_size: 4 stride: 2")
                 + _layer("CROP", f"crop{stage}", f"pool{stage} up{stage}")
                 + _layer("ELTWISE", f"fuse{stage}", f"up{stage} crop{stage}"))
        blob = f"fuse{stage}"
    stride = 32 // 2 ** stages
    return text + _window("DECONVOLUTION", "up", blob, f"kernel_size: {2 * stride} "
                          f"stride: {stride}") + _layer("CROP", "score", "up data")


@pytest.mark.parametrize("stages, expected", [(0, [19]), (1, [5, 27]), (2, [5, 9, 31])])
def test_offsets_are_those_that_the_authors_of_fcn_wrote_later(tmp_path, stages, expected):
    (tmp_path / "net.prototxt").write_text(_fcn(stages))
    net = load_net(tmp_path / "net.prototxt")
    crops = [list(layer.crop_param.offset) for layer in net.layers if "Crop" in layer.type]
    assert crops == [[offset] * 2 for offset in expected]
    assert net(data=torch.zeros(1, 1, 16, 24))["score"].shape == (1, 1, 16, 24)


def test_offsets_of_windows_with_two_sizes(tmp_path):
    (tmp_path / "net.prototxt").write_text(
        INPUT + _window("CONVOLUTION", "a", "data", "kernel_h: 3 kernel_w: 1 pad_h: 4 pad_w: 2")
        + _window("CONVOLUTION", "b", "a", "kernel_size: 3 hole: 1")
        + _layer("RELU", "r", "b") + _layer("CROP", "c", "r data"))
    x = torch.arange(384.0).reshape(1, 1, 16, 24)
    net = load_net(tmp_path / "net.prototxt")
    with torch.no_grad():
        net.params["a"][0][0, 0, 1, 0] = net.params["b"][0][0, 0, 1, 1] = 1
    assert torch.equal(net(data=x)["c"], x)


@pytest.mark.parametrize(("data", "crop"), [("ImageLabelmapData", "Crop"), ("Data", "AutoCrop")])
def test_hed_and_rcf_align_too(tmp_path, data, crop):
    (tmp_path / "net.prototxt").write_text(
        f'layer {{ name: "d" type: "{data}" top: "data" top: "label" }}\n'
        'layer { name: "c" type: "Convolution" bottom: "data" top: "c" '
        "convolution_param { num_output: 1 kernel_size: 3 pad: 35 } }\n"
        f'layer {{ name: "crop" type: "{crop}" bottom: "c" bottom: "data" top: "y" }}')
    net = load_net(tmp_path / "net.prototxt")
    x = torch.randn(1, 1, 5, 6)
    assert net(data=x, label=x)["y"].shape == x.shape
    assert list(net.layers[-1].crop_param.offset) == [34, 34]


@pytest.mark.parametrize("text, message", [
    (_window("POOLING", "a", "data", "kernel_size: 2 stride: 2") + _layer("CROP", "c", "data a"),
     "its bottoms have 1 and 0.5 pixels a pixel of 'data': write crop_param"),
    (_window("CONVOLUTION", "a", "data", "kernel_size: 3") + _layer("CROP", "c", "a data"),
     "its first bottom lacks 1 pixels of the second"),
    (_layer("INNER_PRODUCT", "a", "data", "inner_product_param { num_output: 2 }")
     + _layer("CROP", "c", "data a"), "come from no blob in common"),
    (_layer("CROP", "c", "data"), "needs 2 bottoms, got 1")])
def test_crops_that_cannot_align_are_refused(tmp_path, text, message):
    (tmp_path / "net.prototxt").write_text(INPUT + text)
    with pytest.raises(UserError, match=rf"net.prototxt: layer 'c' \(AlignedCrop\): .*{message}"):
        load_net(tmp_path / "net.prototxt")


def test_offset_in_the_file_counts(tmp_path):
    (tmp_path / "net.prototxt").write_text(
        INPUT + _window("CONVOLUTION", "a", "data", "kernel_size: 3 pad: 9")
        + _layer("CROP", "c", "a data", "crop_param { offset: 2 }"))
    assert list(load_net(tmp_path / "net.prototxt").layers[-1].crop_param.offset) == [2]
