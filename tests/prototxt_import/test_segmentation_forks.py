"""Layers and fields of the Caffe forks of DecoupledNet, FuseNet, VPGNet and DeepLab."""

import math

import pytest
import torch
from helpers.caffe_layers import build, layer

from prototxt_import import load_net
from pspnet_repro.errors import UserError

MASK = torch.tensor([[[[0.0, 3], [1, 2]]]])
LOSS = layer("SoftmaxWithLoss", 'loss_param { weight_source: "FILE" ignore_label: 2 }', "xz")


def _input(name, *shape):
    return f'input: "{name}" input_shape {{ {" ".join(f"dim: {n}" for n in shape)} }}\n'


def test_second_top_of_relu_is_a_mask(tmp_path):
    net = build(tmp_path, layer("ReLU", "", tops=["x", "mask"]), [(1, 3)])
    x = torch.tensor([[-1.0, 0, 2]], dtype=torch.float64, requires_grad=True)
    tops = net(x=x)
    assert tops["x"].tolist() == [[0, 0, 2]] and tops["mask"].tolist() == [[0, 0, 1]]
    assert not tops["mask"].requires_grad


@pytest.mark.parametrize(("fields", "size"), [("scale: 2", (2, 4)), ("output_h: 3 output_w: 2", (
    3, 2)), ("scale: 2 output_h: 2 output_w: 2", (2, 2))])
def test_unpooling_of_fusenet(tmp_path, fields, size):
    net = build(tmp_path, layer("Unpooling", f"unpooling_param {{ {fields} }}", "xz"),
                [(1, 1, 1, 2)] * 2)
    top = net(x=torch.tensor([[[[5.0, 6]]]]), z=torch.tensor([[[[3.0, 0]]]]))["y"]
    assert top.shape == (1, 1, *size) and top.flatten().nonzero().flatten().tolist() == [0, 3]


@pytest.mark.parametrize("fields", ["output_h: 3", "scale: 2 kernel_size: 2"])
def test_unpooling_of_two_programs_is_refused(tmp_path, fields):
    with pytest.raises(UserError, match="needs output_h and output_w, or scale, without fields of"):
        build(tmp_path, layer("Unpooling", f"unpooling_param {{ {fields} }}", "xz"),
              [(1, 1, 2, 2)] * 2)


def test_tiling_makes_squares_of_channels(tmp_path):
    net = build(tmp_path, layer("Tiling", "tiling_param { tile_dim: 2 }"), [(1, 8, 1, 2)])
    top = net(x=torch.arange(16.0).view(1, 8, 1, 2))["y"]
    assert top.tolist() == [[[[0, 2, 1, 3], [4, 6, 5, 7]], [[8, 10, 9, 11], [12, 14, 13, 15]]]]


def test_tiling_refuses_channels_that_fill_no_square(tmp_path):
    with pytest.raises(UserError, match="its square divide 6 channels, got 2"):
        build(tmp_path, layer("Tiling", "tiling_param { tile_dim: 2 }"), [(1, 6, 1, 2)])


def test_spatial_product_weighs_every_channel_alike(tmp_path):
    net = build(tmp_path, layer("SpatialProduct", "", "xz"), [(2, 3, 2, 2), (2, 1, 2, 2)])
    x, z = (torch.randn(2, c, 2, 2, dtype=torch.float64, requires_grad=True) for c in (3, 1))
    assert torch.equal(net(x=x, z=z)["y"], x * z)
    assert torch.autograd.gradcheck(lambda x, z: net(x=x, z=z)["y"], (x, z))
    with pytest.raises(UserError, match=r"its second bottom must be \(2, 1, 2, 2\), got"):
        build(tmp_path, layer("SpatialProduct", "", "xx"), [(2, 3, 2, 2)])


def test_loss_weighs_classes_by_a_file(tmp_path):
    (tmp_path / "weights.txt").write_text("1 3\n0.5\n")
    net = build(tmp_path, LOSS.replace("FILE", str(tmp_path / "weights.txt")),
                [(1, 3, 1, 3), (1, 1, 1, 3)])
    labels = torch.tensor([0.0, 1, 2]).view(1, 1, 1, 3)
    x = torch.randn(1, 3, 1, 3, dtype=torch.float64, requires_grad=True)
    log = x.detach().log_softmax(1)[0, :, 0]
    wanted = -(log[0, 0] + 3 * log[1, 1]) / 4
    torch.testing.assert_close(net(x=x, z=labels)["y"].detach(), wanted)
    assert torch.autograd.gradcheck(lambda x: net(x=x, z=labels)["y"], (x,))


@pytest.mark.parametrize(("text", "message"), [
    (None, "cannot be read: No such file"), ("1 x 2", "cannot be read: could not convert"),
    ("1 2", "must hold 3 numbers"), ("1 2 -1", "each at least 0"), ("1 2 inf", "each at least 0")])
def test_weights_of_classes_that_are_no_numbers_are_refused(tmp_path, text, message):
    if text is not None:
        (tmp_path / "weights.txt").write_text(text)
    with pytest.raises(UserError, match=message):
        build(tmp_path, LOSS.replace("FILE", str(tmp_path / "weights.txt")), [(1, 3), (1,)])


def test_use_weights_is_followed_where_it_is_false(tmp_path):
    text = layer("SoftmaxWithLoss", "loss_param { normalize: true use_weights: WORD }", "xz")
    net = build(tmp_path, text.replace("WORD", "false"), [(1, 4), (1,)])
    assert net(x=torch.zeros(1, 4), z=torch.zeros(1))["y"].item() == pytest.approx(math.log(4))
    with pytest.raises(UserError, match="use_weights .* is not supported: write the weights as"):
        build(tmp_path, text.replace("WORD", "true"), [(1, 4), (1,)])


def test_layers_of_unknown_types_without_bottoms_are_inputs(tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_text('''
        layers { name: "d" type: SELECT_SEG_BINARY top: "data" top: "label" top: "classes"
                 image_data_param { batch_size: 2 label_type: PIXEL } transform_param { crop_size: 8
                 } window_cls_data_param { label_dim: 20 } }
        layers { name: "a" type: ELTWISE bottom: "data" bottom: "data" top: "a" }''')
    net = load_net(path)
    assert net.partial_shapes == {"data": (2, 3, 8, 8), "label": (2, 1, 8, 8), "classes": None}


def test_parameter_is_a_blob_that_learns(tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_text(_input("x", 1, 2) + layer(
        "Parameter", "parameter_param { shape { dim: 1 dim: 2 } }", [], ["w"])
        + layer("Eltwise", "", ["x", "w"]).replace('"l"', '"m"'))
    net = load_net(path, phase="TRAIN")
    weight, = net.params["l"]
    assert weight.tolist() == [[0, 0]]
    net(x=torch.ones(1, 2))["y"].sum().backward()
    assert weight.grad.tolist() == [[1, 1]]
    path.write_text(path.read_text().replace("dim: 2 } }", "dim: 0 } }"))
    with pytest.raises(UserError, match="layer 'l' .Parameter.: sizes of a blob must be at least"):
        load_net(path)


def test_top_of_an_unsupported_layer_can_be_an_input(tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_text(_input("x", 1, 2) + layer("Mystery", "", tops=["q"]) + layer(
        "Power", "power_param { scale: 3 }", ["q"]).replace('"l"', '"m"'))
    with pytest.raises(UserError, match="give what it makes as an input .--shape q=N,C,H,W. or "
                                        "remove such a layer"):
        load_net(path)
    with pytest.warns(UserWarning, match="layer 'l' .Mystery. is not computed: give q as an input;"
                                         " no gradient passes to the layers before it"):
        net = load_net(path, shapes={"q": (1, 2)})
    assert net(q=torch.ones(1, 2))["y"].tolist() == [[3, 3]]


XILINX = layer("BatchNorm", "param { } param { } param { lr_mult: 0 } param { lr_mult: 0 } "
               "batch_norm_param { FIELD eps: 0.25 scale_filler { value: 3 } "
               "bias_filler { value: 1 } }")


@pytest.mark.parametrize(("field", "phase"), [("use_global_stats: true", "TRAIN"), ("", "TEST")])
def test_batch_norm_of_xilinx_has_four_blobs(tmp_path, field, phase):
    with pytest.warns(UserWarning, match="is taken for Xilinx's, whose blobs are scale, bias"):
        net = build(tmp_path, XILINX.replace("FIELD", field), [(2, 2, 1, 1)], phase)
    mean, var = net.params["l"][2:]
    assert [p.requires_grad for p in net.params["l"]] == [True, True, False, False]
    with torch.no_grad():
        mean[1], var[1] = 4, 2
    x = torch.randn(2, 2, 1, 1, dtype=torch.float64)
    wanted = (x - mean.view(2, 1, 1)) / (var.view(2, 1, 1) + 0.25).sqrt() * 3 + 1
    torch.testing.assert_close(net(x=x)["y"], wanted)


def test_batch_norm_of_xilinx_learns_from_batches(tmp_path):
    net = build(tmp_path, XILINX.replace("FIELD", "moving_average_fraction: 0.75"), [(4, 1, 1, 1)])
    x = torch.tensor([0.0, 2, 2, 4]).double().view(4, 1, 1, 1)
    torch.testing.assert_close(net(x=x)["y"], (x - 2) / 1.5 * 3 + 1)
    assert [p.item() for p in net.params["l"]] == [3, 1, 0.5, 1.25]


def test_space_to_batch_is_tensorflows(tmp_path):
    """A dilated convolution of dilation 2 is one of dilation 1 between the two."""
    ends = "block_shape: 1 block_shape: 2 block_shape: 2 {0}: 0 {0}: 0 {0}: 0 {0}: 1 {0}: 0 {0}: 1"
    net = build(tmp_path, layer("SpaceToBatchND", "space_to_batch_nd_param { "
                                f"{ends.format('paddings')} }}", tops="s")
                + layer("BatchToSpaceND", "batch_to_space_nd_param { "
                        f"{ends.format('crops')} }}", "s").replace('"l"', '"m"'), [(2, 2, 3, 5)])
    x = torch.randn(2, 2, 3, 5, dtype=torch.float64, requires_grad=True)
    assert torch.equal(net(x=x)["y"], x)
    # Items: the block's place first, then those of the batch.
    assert net.shapes["s"] == (8, 2, 2, 3)
    assert torch.equal(net.blobs["s"][2, :, :, :2], x[0, :, ::2, 1::2])
    assert torch.equal(net.blobs["s"][5, :, :1], x[1, :, 1:2, ::2])
    assert torch.autograd.gradcheck(lambda x: net(x=x)["y"], (x,))


@pytest.mark.parametrize(("kind", "fields", "message"), [
    ("SpaceToBatchND", "space_to_batch_nd_param { }", "block_shape must be given for 1 to 3 axes"),
    ("SpaceToBatchND", "space_to_batch_nd_param { block_shape: 2 }", "paddings must be two for"),
    ("SpaceToBatchND", "space_to_batch_nd_param { block_shape: 2 paddings: 0 paddings: 0 }",
     "must divide the padded sizes"),
    ("BatchToSpaceND", "batch_to_space_nd_param { block_shape: 2 crops: 0 crops: 0 }",
     "must divide 1 items"),
    ("BatchToSpaceND", "batch_to_space_nd_param { block_shape: 1 crops: 2 crops: 1 }",
     "crops must leave pixels of")])
def test_blocks_that_do_not_fit_are_refused(tmp_path, kind, fields, message):
    with pytest.raises(UserError, match=message):
        build(tmp_path, layer(kind, fields), [(1, 3, 2, 2)])


def test_interp_takes_the_size_of_a_second_bottom(tmp_path):
    net = build(tmp_path, layer("Interp", "", "xz"), [(1, 1, 1, 2), (2, 7, 1, 3)])
    x, z = torch.tensor([[[[1.0, 3]]]]), torch.zeros(2, 7, 1, 3)
    assert net(x=x, z=z)["y"].tolist() == [[[[1, 2, 3]]]]
    with pytest.raises(UserError, match="needs a second bottom or interp_param, got both"):
        build(tmp_path, layer("Interp", "interp_param { zoom_factor: 2 }", "xz"),
              [(1, 1, 2, 2)] * 2)


def test_reshape_of_the_first_version_has_four_sizes(tmp_path):
    old = "reshape_param { channels: 2 height: 1 width: -1 FIELD }"
    x = torch.arange(12.0).view(2, 6)
    net = build(tmp_path, layer("Reshape", old.replace("FIELD", "")), [(2, 6)])
    assert torch.equal(net(x=x)["y"], x.view(2, 2, 1, 3))
    with pytest.raises(UserError, match="needs shape or num, channels, height and width, got both"):
        build(tmp_path, layer("Reshape", old.replace("FIELD", "axis: 1")), [(2, 6)])


def test_crop_center_cuts_both_ends(tmp_path):
    cuts = "crop_center_param { crop_size: 0 crop_size: 0 crop_size: 1 crop_size: %d }"
    net = build(tmp_path, layer("CropCenter", cuts % 2), [(1, 2, 3, 6)])
    x = torch.arange(36.0).view(1, 2, 3, 6)
    assert torch.equal(net(x=x)["y"], x[:, :, 1:2, 2:4])
    with pytest.raises(UserError, match="crop_size must be given for each axis"):
        build(tmp_path, layer("CropCenter", cuts % 3), [(1, 2, 3, 6)])
