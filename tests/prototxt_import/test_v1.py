"""Nets and weights of Caffe's first formats, upgraded as Caffe's program does."""

import numpy as np
import pytest
import torch

from prototxt_import import load_net, load_solver, read_caffemodel, read_net
from prototxt_import.format import caffe_pb2
from prototxt_import.format.blobs import blob_of
from pspnet_repro.errors import UserError

TRAIN = caffe_pb2.NetState(phase=caffe_pb2.TRAIN)
# (fields of a `layers`, fields of the `layer` that Caffe makes of it)
PAIRS = {
    "enum": ('name: "a" type: CONVOLUTION convolution_param { num_output: 2 kernel_size: 3 }',
             'name: "a" type: "Convolution" convolution_param { num_output: 2 kernel_size: 3 }'),
    "number": ('type: 14 name: "a"', 'type: "InnerProduct" name: "a"'),
    "loss": ('type: SOFTMAX_LOSS name: "a" loss_weight: 2',
             'type: "SoftmaxWithLoss" name: "a" loss_weight: 2'),
    "deeplab": ('type: SOFTMAX_LOSS strict_dim: false softmaxloss_param { ignore_label: 255 }',
                'type: "SoftmaxWithLoss" loss_param { ignore_label: 255 }'),
    "fork's data": ('type: WINDOW_SEG_DATA top: "d"', 'type: "WindowSegData" top: "d"'),
    "none": ('name: "a" type: NONE', 'name: "a" type: ""'),
    "untyped": ('name: "a"', 'name: "a"'),
    "fork": ("type: CROP name: 'crop' bottom: 'a' bottom: 'b' top: 'c'",
             'type: "Crop" name: "crop" bottom: "a" bottom: "b" top: "c"'),
    "multipliers": ('type: DECONVOLUTION blobs_lr: 1 blobs_lr: 2 weight_decay: 1 weight_decay: 0',
                    'type: "Deconvolution" param { lr_mult: 1 decay_mult: 1 } '
                    'param { lr_mult: 2 decay_mult: 0 }'),
    "one multiplier": ('type: CONVOLUTION weight_decay: [1, 0, 3] blobs_lr: 5',
                       'type: "Convolution" param { lr_mult: 5 decay_mult: 1 } '
                       'param { decay_mult: 0 } param { decay_mult: 3 }'),
    "names": ('type: RELU param: "w" param: "b" blob_share_mode: PERMISSIVE blobs_lr: 0',
              'type: "ReLU" param { name: "w" share_mode: PERMISSIVE lr_mult: 0 } '
              'param { name: "b" }'),
    "rules": ('type: DATA top: "d" include: { phase: TRAIN }',
              'type: "Data" top: "d" include { phase: TRAIN }'),
    "excluded": ('type: ACCURACY exclude { phase: TRAIN }',
                 'type: "Accuracy" exclude { phase: TRAIN }'),
    "data": ('type: DATA top: "d" data_param { source: "x" scale: 0.5 mean_file: "m" mirror: 1 '
             'crop_size: 227 batch_size: 4 }',
             'type: "Data" top: "d" data_param { source: "x" batch_size: 4 } '
             'transform_param { scale: 0.5 mean_file: "m" mirror: true crop_size: 227 }'),
    "image data": ('type: IMAGE_DATA top: "d" image_data_param { crop_size: 9 batch_size: 4 } '
                   'transform_param { crop_size: 5 mirror: true }',
                   'type: "ImageData" top: "d" image_data_param { batch_size: 4 } '
                   'transform_param { mirror: true crop_size: 9 }'),
    "transform": ('type: DATA top: "d" transform_param { crop_size: 5 }',
                  'type: "Data" top: "d" transform_param { crop_size: 5 }'),
    "V0": ('layer { name: "c" type: "conv" num_output: 4 kernelsize: 3 group: 2 biasterm: false '
           'weight_filler { std: 2 } blobs_lr: 1 weight_decay: 0.5 } bottom: "a" top: "b"',
           'name: "c" type: "Convolution" convolution_param { num_output: 4 kernel_size: 3 '
           'group: 2 bias_term: false weight_filler { std: 2 } } bottom: "a" top: "b" '
           'param { lr_mult: 1 decay_mult: 0.5 }'),
    "V0 loss": ('layer { name: "l" type: "softmax_loss" } bottom: "a"',
                'name: "l" type: "SoftmaxWithLoss" bottom: "a"'),
    "V0 pool": ('layer { type: "pool" pool: AVE kernelsize: 3 stride: 2 pad: 1 }',
                'type: "Pooling" pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1 }'),
    "V0 LRN": ('layer { type: "lrn" local_size: 3 alpha: 2 beta: 0.5 k: 2 }',
               'type: "LRN" lrn_param { local_size: 3 alpha: 2 beta: 0.5 k: 2 }'),
    "V0 dropout": ('layer { type: "dropout" dropout_ratio: 0.3 }',
                   'type: "Dropout" dropout_param { dropout_ratio: 0.3 }'),
    "V0 product": ('layer { type: "innerproduct" num_output: 2 }',
                   'type: "InnerProduct" inner_product_param { num_output: 2 }'),
    "V0 concat": ('layer { type: "concat" concat_dim: 0 }',
                  'type: "Concat" concat_param { concat_dim: 0 }'),
    "V0 images": ('layer { type: "images" source: "s" batchsize: 2 new_height: 9 scale: 0.5 '
                  'shuffle_images: true meanfile: "m" cropsize: 5 } top: "d"',
                  'type: "ImageData" image_data_param { source: "s" batch_size: 2 new_height: 9 '
                  'shuffle: true } transform_param { scale: 0.5 mean_file: "m" crop_size: 5 } '
                  'top: "d"')}
PADDED = """layers { layer { name: "p" type: "padding" pad: 2 } bottom: "data" top: "padded" }
layers { layer { name: "c" type: "conv" num_output: 1 kernelsize: 3 pad: 1 } bottom: "padded"
top: "c" }
layers { layer { name: "r" type: "relu" } bottom: "c" top: "padded" }
layers { layer { name: "q" type: "pool" kernelsize: 3 } bottom: "padded" top: "q" }
"""


def _write(folder, text, name="net.prototxt"):
    (folder / name).write_text(text)
    return folder / name


@pytest.mark.parametrize("case", PAIRS)
def test_layers_of_v1_are_upgraded(tmp_path, case):
    old, new = PAIRS[case]
    nets = [read_net(_write(tmp_path, 'name: "n"\ninput: "data" input_dim: [1, 2, 3, 4]\n' + text))
            for text in (f"layers {{ {old} }}\n", f"layer {{ {new} }}\n")]
    assert nets[0] == nets[1] and nets[0].layer


def test_padding_layers_of_v0_become_pads(tmp_path):
    net = read_net(_write(tmp_path, PADDED))
    assert [layer.name for layer in net.layer] == ["c", "r", "q"]
    convolution, _, pooling = net.layer
    assert list(convolution.bottom) == ["data"] and convolution.convolution_param.pad == [2]
    assert list(pooling.bottom) == ["padded"] and pooling.pooling_param.pad == 0


def test_unknown_types_of_v1_are_unsupported_types(tmp_path):
    path = _write(tmp_path, 'input: "x" input_dim: [1, 1, 1, 1] layers { name: "a" type: DENSE_CRF '
                  'bottom: "x" dense_crf_param { max_iter: 10 } } layers { name: "b" type: RELUS }')
    with pytest.raises(UserError, match=r"layer 'a' \(DENSE_CRF\): type 'DENSE_CRF' is not "
                                        "supported; layer 'b' .*'RELUS' is not supported"):
        load_net(path)


def test_rules_of_v1_choose_layers(tmp_path):
    path = _write(tmp_path, "".join(f"layers {{ {PAIRS[case][0]} }}" for case in
                                    ("rules", "excluded", "loss")))
    assert [layer.type for layer in read_net(path, TRAIN).layer] == ["Data", "SoftmaxWithLoss"]


@pytest.mark.parametrize("text, message", [
    ('layers { type: "Convolution" }', "got 'Convolution': write CONVOLUTION"),
    ('layers { type: 77 }', "got '77': write the layer as 'layer', its type in quotes"),
    ('layers {\n layer { name: "a" type: "relu"\nstride: 2 } bottom: "x" }',
     r":3: layer 'a' \(ReLU\): unknown field 'stride' of LayerParameter"),
    ('layers { layer { name: "a" type: "lrn"\nsize: 2 } bottom: "x" }',
     r":2: layer 'a' \(LRN\): unknown field 'size' of LRNParameter"),
    (PADDED.replace("conv", "lrn"), ":2: a padding layer must have .* write the pad in those"),
    ('layers {\n layer { type: "padding" } bottom: "x" bottom: "y" top: "z" }',
     ":1: a padding layer must have one bottom and one top"),
    ('layers: 3\nlayers { layer: 3 }', ":1: layer must be braces"),
    ('layers { }\nlayer { }', ":2: 'layer' beside 'layers' .*Caffe would drop"),
    ('layers: 3', ":1: layer must be braces"),
    ('layers { name: "a" type: RELU\nblobs_lr: x }', ":2: .*lr_mult must be a number, got x"),
    ('layers { name: "a" type: RELU\nodd: 1 }', r":2: layer 'a' \(ReLU\): unknown field 'odd'"),
    ('layer { name: "a" type: "ReLU"\nblobs_lr: 1 }',
     ":2: .*unknown field 'blobs_lr' of LayerParameter: write it as param { lr_mult: ... }")])
def test_mistakes_in_v1_name_their_lines(tmp_path, text, message):
    with pytest.raises(UserError, match=f"net.prototxt{message}" if message[0] == ":" else message):
        read_net(_write(tmp_path, text))


WEIGHT = np.arange(6, dtype=np.float32).reshape(2, 3)
BIAS = np.float32([0.5, -1])
IP = ('layers { name: "ip" type: INNER_PRODUCT bottom: "x" top: "y" blobs_lr: 1 blobs_lr: 2 '
      'inner_product_param { num_output: 2 } }\n')
NET = 'input: "x" input_dim: 1 input_dim: 3 input_dim: 1 input_dim: 1\n' + IP


def _legacy(array):
    blob = blob_of(array)
    blob.ClearField("shape")
    shape = (1,) * (4 - array.ndim) + array.shape
    blob.num, blob.channels, blob.height, blob.width = shape
    return blob


def _binary(layers):
    """A net of V1 in binary: a name, then field 2 for each layer."""
    data = b"\x0a\x01n"
    for layer in layers:
        content = layer.SerializeToString()
        assert len(content) < 128
        data += b"\x12" + bytes([len(content)]) + content
    return data


V1 = [caffe_pb2.WeightsLayerV1(name="data", type=5), caffe_pb2.WeightsLayerV1(
    name="ip", type=14, blobs=[_legacy(WEIGHT), _legacy(BIAS)]),
    caffe_pb2.WeightsLayerV1(name="odd", type=90)]
V0 = [caffe_pb2.WeightsLayerV1(layer=caffe_pb2.WeightsLayerV0(
    name="ip", type="innerproduct", blobs=[_legacy(WEIGHT), _legacy(BIAS)])),
    caffe_pb2.WeightsLayerV1(layer=caffe_pb2.WeightsLayerV0(name="r", type="relu"))]


@pytest.mark.parametrize("layers, types", [
    (V1, {"data": "Data", "ip": "InnerProduct", "odd": "V1 type 90"}),
    (V0, {"ip": "InnerProduct", "r": "ReLU"})], ids=["v1", "v0"])
def test_caffemodels_of_the_first_formats_are_read(tmp_path, layers, types):
    path = tmp_path / "w.caffemodel"
    path.write_bytes(_binary(layers))
    read = read_caffemodel(path)
    assert {name: layer.type for name, layer in read.items()} == types
    np.testing.assert_array_equal(read["ip"].blobs[0], WEIGHT.reshape(1, 1, 2, 3), strict=True)
    net = load_net(_write(tmp_path, NET), path)
    x = torch.tensor([1.0, 2, 3]).reshape(1, 3, 1, 1)
    assert net(x=x)["y"].tolist() == [(WEIGHT @ [1, 2, 3] + BIAS).tolist()]


def test_a_caffemodel_of_both_formats_is_refused(tmp_path):
    path = tmp_path / "w.caffemodel"
    path.write_bytes(_binary(V1) + caffe_pb2.WeightsFile(
        layer=[caffe_pb2.WeightsLayer(name="a").SerializeToString()]).SerializeToString())
    with pytest.raises(UserError, match="w.caffemodel: has layers of the first format"):
        read_caffemodel(path)


@pytest.mark.parametrize("cut", [1, 20, 60])
def test_a_caffemodel_of_v1_that_is_cut_is_refused(tmp_path, cut):
    path = tmp_path / "w.caffemodel"
    path.write_bytes(_binary(V1[1:2])[:-cut])
    with pytest.raises(UserError, match="w.caffemodel: not a caffemodel, or cut short"):
        read_caffemodel(path)


def test_a_net_of_v1_trains_as_its_upgrade(tmp_path):
    loss = 'layers { name: "l" type: SOFTMAX_LOSS bottom: "y" bottom: "t" top: "l" }'
    inputs = 'input: "x" input: "t" input_dim: [4, 3, 1, 1, 4, 1, 1, 1]\n'
    old = _write(tmp_path, inputs + IP + loss)
    new = _write(tmp_path, str(read_net(old)), "new.prototxt")
    weights = []
    for net in (old, new):
        solver = load_solver(_write(tmp_path, f'net: "{net}" base_lr: 1 lr_policy: "fixed" '
                                              'momentum: 0.9 random_seed: 3', "solver.prototxt"))
        for _ in range(2):
            solver.step(x=torch.ones(4, 3, 1, 1), t=torch.tensor([0.0, 1, 1, 1]).view(4, 1, 1, 1))
        weights.append(solver.net.params["ip"])
    for ours, upgraded in zip(*weights):
        assert torch.equal(ours, upgraded) and ours.any()
