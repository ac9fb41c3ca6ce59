"""What networks start from: inputs of data layers, and fillers."""

import math

import numpy as np
import pytest
import torch
from google.protobuf import text_format

from prototxt_import import load_net, load_solver
from prototxt_import.format.caffe_pb2 import FillerParameter
from prototxt_import.layers.fillers import fan, fill
from pspnet_repro.errors import UserError


def test_data_layers_become_inputs(tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_text('''
        layer { name: "d" type: "ImageSegData" top: "data" top: "label" include { phase: TRAIN }
                transform_param { crop_size: 9 } image_data_param { batch_size: 2 } }
        layer { name: "t" type: "Data" top: "data" include { phase: TEST }
                transform_param { crop_size: 5 } data_param { batch_size: 3 } }
        layer { name: "c" type: "Convolution" bottom: "data" top: "c"
                convolution_param { num_output: 4 kernel_size: 1 } }
        layer { name: "loss" type: "SoftmaxWithLoss" bottom: "c" bottom: "label" top: "loss"
                include { phase: TRAIN } }''')
    net = load_net(path, phase="TRAIN")
    assert net.input_shapes == {"data": (2, 3, 9, 9), "label": (2, 1, 9, 9)}
    # Blank scores: every class has probability 1/4.
    outputs = net(data=np.zeros((1, 3, 4, 4), np.uint8), label=np.zeros((1, 1, 4, 4), np.uint8))
    assert outputs["loss"].item() == pytest.approx(math.log(4))
    # The database has the channels.
    net = load_net(path)
    assert net.input_shapes == {"data": None} and net.partial_shapes == {"data": (3, None, 5, 5)}
    assert load_net(path, shapes={"data": (1, 6, 2, 2)}).params["c"][0].shape == (4, 6, 1, 1)


def test_tops_of_a_data_layer_take_the_batch_of_a_given_one(tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_text('''
        layer { name: "d" type: "Data" top: "data" top: "label"
                transform_param { crop_size: 5 mean_file: "m" } data_param { batch_size: 50 } }
        layer { name: "e" type: "MemoryData" top: "more" top: "other" memory_data_param {
                batch_size: 4 channels: 2 height: 3 width: 3 } }
        layer { name: "i" type: "Input" top: "a" top: "b" input_param { shape { dim: 7 dim: 1 } } }
        layer { name: "c" type: "InnerProduct" bottom: "data" top: "c"
                inner_product_param { num_output: 4 } }
        layer { name: "loss" type: "SoftmaxWithLoss" bottom: "c" bottom: "label" top: "loss" }''')
    shapes = {"more": (4, 2, 3, 3), "other": (4,), "a": (7, 1), "b": (7, 1)}
    net = load_net(path, shapes={"data": (2, 3, 5, 5)})
    assert net.input_shapes == shapes | {"data": (2, 3, 5, 5), "label": (2,)}
    net = load_net(path, shapes={"data": (2, 3, 5, 5), "label": (2, 1), "other": (1,), "a": (9, 1)})
    assert net.input_shapes == {"data": (2, 3, 5, 5), "label": (2, 1), "more": (1, 2, 3, 3),
                                "other": (1,), "a": (9, 1), "b": (7, 1)}
    net = load_net(path, shapes={"label": (3,)})
    assert net.partial_shapes == shapes | {"data": (3, None, 5, 5), "label": (3,)}


@pytest.mark.parametrize(("kind", "fields", "label"), [
    ("Data", "", (2,)), ("ImageData", "", (2,)), ("HDF5Data", "", None),
    ("ImageData", "image_data_param { label_type: PIXEL }", None)])
def test_label_beside_images_of_a_given_size(tmp_path, kind, fields, label):
    path = tmp_path / "net.prototxt"
    path.write_text(f'layer {{ name: "d" type: "{kind}" top: "x" top: "t" {fields} }}')
    assert load_net(path).input_shapes == {"x": None, "t": None}
    net = load_net(path, shapes={"x": (2, 3, 4, 5)})
    assert net.input_shapes == {"x": (2, 3, 4, 5), "t": label}
    assert load_net(path, shapes={"t": (2,)}).input_shapes == {"x": None, "t": (2,)}


@pytest.mark.parametrize(("fields", "data", "label"), [
    ("", (3, 3, 16, 24), (3, 1, 16, 24)),
    ("is_color: false label_divide_factor: 8", (3, 1, 16, 24), (3, 1, 2, 3)),
    ("crop_height: 8 crop_width: 12 label_divide_factor: 4 mirror: 1", (3, 3, 8, 12),
     (3, 1, 8, 12))])
def test_sizes_of_dense_images(tmp_path, fields, data, label):
    path = tmp_path / "net.prototxt"
    path.write_text(f'''layer {{ name: "d" type: "DenseImageData" top: "data" top: "label"
        dense_image_data_param {{ batch_size: 3 new_height: 16 new_width: 24 {fields} }} }}''')
    assert load_net(path).input_shapes == {"data": data, "label": label}


def test_inputs_without_a_size_make_the_network(tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_text('''
        layer { name: "d" type: "Data" top: "x" top: "t" data_param { batch_size: 4 } }
        layer { name: "c" type: "Convolution" bottom: "x" top: "c"
                convolution_param { num_output: 4 kernel_size: 1 weight_filler { value: 2 } } }
        layer { name: "loss" type: "SoftmaxWithLoss" bottom: "c" bottom: "t" top: "loss" }''')
    net = load_net(path, phase="TRAIN")
    assert net.params == {}
    with torch.inference_mode():
        assert net(x=torch.zeros(2, 3, 5, 5), t=torch.zeros(2, 5, 5))["loss"].item() == (
            pytest.approx(math.log(4)))
    assert net.params["c"][0].shape == (4, 3, 1, 1)
    assert net(x=torch.ones(1, 3, 2, 2), t=torch.zeros(1, 2, 2))["loss"].requires_grad
    net.loss.backward()
    assert net.params["c"][0].grad is not None
    (tmp_path / "s.prototxt").write_text('net: "net.prototxt" base_lr: 1 lr_policy: "fixed"')
    solver = load_solver(tmp_path / "s.prototxt")
    solver.step(x=torch.ones(1, 3, 2, 2), t=torch.zeros(1, 2, 2))
    # The bias of the right class rises by 1 - 1/4.
    torch.testing.assert_close(solver.net.params["c"][1].detach(),
                               torch.tensor([0.75, -0.25, -0.25, -0.25]))


def test_unsupported_layers_that_prepare_data_are_inputs(tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_text('''
        layer { name: "d" type: "Data" top: "raw" }
        layer { name: "e" type: "Data" top: "more" top: "t" }
        layer { name: "a" type: "Augment" bottom: "raw" bottom: "more" top: "x" top: "shade" }
        layer { name: "b" type: "Python" bottom: "shade" top: "light"
                python_param { module: "m" layer: "L" } }
        layer { name: "y" type: "Eltwise" bottom: "x" bottom: "light" top: "y" }
        layer { name: "loss" type: "EuclideanLoss" bottom: "y" bottom: "t" top: "loss" }''')
    with pytest.warns(UserWarning, match=r"'a' \(Augment\) is not computed: give x, shade as an"):
        net = load_net(path, phase="TRAIN")
    # "raw" and "shade" have no other reader; but "more" comes with "t".
    assert list(net.partial_shapes) == ["more", "t", "x", "shade", "light"]
    ones = torch.ones(1, 2)
    assert net(x=ones, light=2 * ones, t=ones, more=ones, shade=ones)["loss"] == 4
    learns = 'top: "shade" convolution_param { num_output: 3 }'
    path.write_text(path.read_text().replace('top: "shade"', learns, 1))
    with pytest.raises(UserError, match=r"'a' \(Augment\): type 'Augment' is not supported"):
        load_net(path, phase="TRAIN")


def test_unsupported_layers_that_prepare_data_in_place_are_left_out(tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_text('''
        layer { name: "d" type: "ImageData" top: "x" top: "t"
                image_data_param { new_height: 4 new_width: 5 batch_size: 2 } }
        layer { name: "d" type: "Noise" bottom: "x" top: "x" noise_param { gaussian_std: 0.1 } }
        layer { name: "a" type: "Jitter" bottom: "x" bottom: "t" top: "x" top: "u" }
        layer { name: "y" type: "Power" bottom: "x" top: "y" power_param { scale: 3 } }
        layer { name: "z" type: "Eltwise" bottom: "t" bottom: "u" top: "z" }''')
    with pytest.warns(UserWarning) as caught:
        net = load_net(path)
    said = " ".join(str(warning.message) for warning in caught)
    assert "'d' (Noise) is not computed: give x as" in said and "give x, u as an input" in said
    # The data layer's blob keeps its size.
    assert net.partial_shapes == {"x": (2, 3, 4, 5), "t": (2,), "u": None}
    tops = net(x=torch.ones(2, 3, 4, 5), t=torch.ones(2), u=torch.ones(2))
    assert tops["y"].eq(3).all() and tops["z"].tolist() == [2, 2]


def test_the_second_input_of_a_preparing_layer_is_no_label_of_whole_images(tmp_path):
    """As a data layer's would be: here it has a label for each pixel."""
    path = tmp_path / "net.prototxt"
    path.write_text('''
        layer { name: "d" type: "ImageSegData" top: "data" top: "label"
                image_data_param { source: "x" } }
        layer { name: "a" type: "Augment" bottom: "data" bottom: "label" top: "x" top: "t" }
        layer { name: "c" type: "Convolution" bottom: "x" top: "s"
                convolution_param { num_output: 2 kernel_size: 1 } }
        layer { name: "loss" type: "SoftmaxWithLoss" bottom: "s" bottom: "t" top: "loss" }''')
    with pytest.warns(UserWarning, match=r"'a' \(Augment\) is not computed: give x, t as an input"):
        net = load_net(path, phase="TRAIN", shapes={"x": (1, 3, 4, 5)})
    assert net.partial_shapes == {"x": (1, 3, 4, 5), "t": None}
    loss = net(x=torch.zeros(1, 3, 4, 5), t=torch.zeros(1, 1, 4, 5))["loss"]
    assert loss.item() == pytest.approx(math.log(2), rel=1e-6)


@pytest.mark.parametrize(("kind", "phase", "left_out"), [
    ("ErrorMetric", "TRAIN", True), ("MeanError", "TRAIN", False), ("MeanError", "TEST", True)])
def test_errors_that_training_may_minimize_are_left_out_in_testing_alone(tmp_path, kind, phase,
                                                                         left_out):
    path = tmp_path / "net.prototxt"
    path.write_text(f'''input: "x" input_shape {{ dim: [1, 2] }}
        layer {{ name: "y" type: "Power" bottom: "x" top: "y" }}
        layer {{ name: "e" type: "{kind}" bottom: "y" top: "e" }}''')
    with (pytest.warns(UserWarning, match=f"'{kind}' is not supported, and no layer reads e")
          if left_out else pytest.raises(UserError, match=f"type '{kind}' is not supported")):
        net = load_net(path, phase=phase)
        assert list(net(x=torch.ones(1, 2))) == ["y"]


@pytest.mark.parametrize(("text", "low", "high", "mean", "std"), [
    ('value: 3', 3, 3, 3, 0),
    ('type: "uniform" min: -1 max: 3', -1, 3, 1, 4 / math.sqrt(12)),
    ('type: "gaussian" mean: 2 std: 0.5', -2, 6, 2, 0.5),
    # (40, 50, 10): 500 inputs an output, 400 outputs an input.
    ('type: "xavier"', -math.sqrt(3 / 500), math.sqrt(3 / 500), 0, math.sqrt(1 / 500)),
    ('type: "xavier" variance_norm: FAN_OUT', -math.sqrt(3 / 400), math.sqrt(3 / 400), 0,
     math.sqrt(1 / 400)),
    ('type: "msra"', -1, 1, 0, math.sqrt(2 / 500)),
    ('type: "msra" variance_norm: AVERAGE', -1, 1, 0, math.sqrt(2 / 450)),
    ('type: "gaussian" sparse: 10', -8, 8, 0, math.sqrt(10 / 40))])
def test_filler(text, low, high, mean, std):
    tensor = torch.empty(40, 50, 10, dtype=torch.float64)
    fill(tensor, text_format.Parse(text, FillerParameter()))
    assert low <= tensor.min() and tensor.max() <= high
    # 20,000 draws: four standard deviations of the mean, and of the spread, whose own is at most
    # 1.2% (of numbers that are mostly zero).
    assert tensor.mean().item() == pytest.approx(mean, abs=4 * std / math.sqrt(20000) + 1e-9)
    assert tensor.std().item() == pytest.approx(std, rel=0.048, abs=1e-9)


def test_fan_of_short_blobs():
    assert fan((), FillerParameter.FAN_IN) == 1
    assert fan((5,), FillerParameter.FAN_IN) == 1 and fan((5,), FillerParameter.FAN_OUT) == 5
