"""Networks of other papers: their files, and what the harness makes of a prototxt."""


import numpy as np
import pytest
import torch
from helpers.small_system import CONV, DATA, NET, SCORE, SOLVER
from torch.nn import functional as F

from experiments.profiles import PROFILES
from experiments.systems import training
from experiments.systems.initial import fix_upsampling, load_vgg16, read_vgg16
from experiments.systems.network import NAMES, Network, system_files
from experiments.systems.statistics import inference_parameters, median_frequency_weights
from prototxt_import import load_net
from prototxt_import.net import CaffeNet
from pspnet_repro.data.images import png_bytes
from pspnet_repro.data.pairs import Pair
from pspnet_repro.errors import UserError
from pspnet_repro.model.settings import MEAN_BGR
from pspnet_repro.weights import plain_file
from pspnet_repro.weights.torchvision import MEAN, STD


def _parameters(name, classes):
    network = Network(system_files(name, "published")[0], classes, None, True)
    with torch.device("meta"):
        net = network.for_training()
    assert net.shapes[network.image] == (network.batch_size, 3, 384, 384)
    assert net.shapes[network.scores] == (network.batch_size, classes, 384, 384)
    return sum(parameter.numel() for parameter in net.parameters())


@pytest.mark.parametrize("name, parameters", [("dilatednet", 134_917_847), ("fcn-8s", 141_562_917)])
def test_published_systems_have_the_benchmarks_parameters(name, parameters):
    """Those of the ADE20K benchmark's files, which have an output for void."""
    assert _parameters(name, 151) == parameters


def test_published_systems_have_the_data_sets_classes():
    # SegNet's lacks the weights of classes, which are the data's.
    assert _parameters("segnet", 150) == 29_529_558
    for name in ("fcn-8s", "dilatednet", "dilatednet-context"):
        file = system_files(name, "published")[0]
        with torch.device("meta"):
            as_written = load_net(file, phase="TRAIN")
        assert sum(p.numel() for p in as_written.parameters()) == _parameters(name, 150)
    # Seven 3x3 convolutions and a 1x1 one of as many channels as classes.
    assert (_parameters("dilatednet-context", 21) - _parameters("dilatednet", 21)
            == 21 * (21 * (7 * 9 + 1) + 8))


@pytest.mark.parametrize("name", [*NAMES, "dilatednet-context"])
def test_miniatures_fit_the_profile(name):
    profile = PROFILES["mini"]
    network = Network(system_files(name, "mini")[0], len(profile.classes), None)
    assert (network.crop_size, network.batch_size) == (profile.crop_size,
                                                       profile.train["batch_size"])


@pytest.mark.parametrize("text, said", [
    (SOLVER, "is a solver, and must be a network: name its net, elsewhere.prototxt"),
    (DATA + CONV + SCORE, "has no SoftmaxWithLoss layer in phase TRAIN.*: name the file that the"),
    (NET.replace("num_output: 12", "num_output: 21"),
     "scores 'score' are .2, 21, 185, 185., and the data has 12 classes: .*: set num_output to 12 "
     "in layer 'score'"),
    (NET.replace('"Convolution" bottom: "data"', '"Another" bottom: "data"'),
     "layer 'conv1_1' .Another.: type 'Another' is not supported"),
    (NET.replace('bottom: "label"', 'bottom: "conv1_1"'), "one of labels, which leads to the loss"),
    (NET.replace('top: "label"', 'top: "label" top: "more"').replace(
        'bottom: "conv1_1" top: "score"', 'bottom: "conv1_1" bottom: "more" top: "score"'),
     "must have one input of images"),
    (NET.replace("kernel_size: 3", "kernel_size: 999"), "layer 'conv1_1' .Convolution.: its ker"),
    (NET.replace("pad: 1", "pad: 1 wrong: 1"), "prototxt:4: layer 'conv1_1'.*: unknown field"),
])
def test_networks_that_cannot_be_trained_say_why(write, text, said):
    path = write(text)
    with pytest.raises(UserError, match=said) as error:
        Network(path, 12, (185, 2))
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)


def test_median_frequency_weights_are_those_by_hand(tmp_path):
    """Frequencies 1 / 3 (of the images that have the class), 2 / 3 and 1; the median is 2 / 3."""
    pairs = []
    for k, label in enumerate(([[0, 1, 1, 255]], [[2, 2, 2, 2]])):
        (tmp_path / f"{k}.png").write_bytes(png_bytes(np.array(label, np.uint8)))
        pairs.append(Pair(tmp_path / f"{k}.png", tmp_path / f"{k}.png"))
    assert median_frequency_weights(pairs, 4) == pytest.approx([2, 1, 2 / 3, 0])


def test_segnet_is_tested_with_the_statistics_of_training_images():
    """Of a single batch they are the batch's own, but for the variance's m / (m - 1)."""
    torch.manual_seed(0)
    network = Network(system_files("segnet", "mini")[0], 12, (41, 2))
    net = network.for_training()
    batch = {network.image: torch.randn(2, 3, 41, 41) * 50,
             network.label: torch.zeros(2, 1, 41, 41)}
    parameters = inference_parameters(net, [batch, batch])
    with torch.no_grad():
        net(**batch)
    wanted = net.blobs[network.scores]
    copy = CaffeNet(network.for_testing(), network.path)
    for name, tensors in copy.params.items():
        for tensor, value in zip(tensors, parameters[name]):
            tensor.data.copy_(value)
    scores = training.SystemNet(copy)(batch[network.image]).detach()
    # The deepest maps have 8 values per channel, which makes a variance larger by a seventh.
    assert (scores - wanted).abs().max() < 0.2 * wanted.abs().max()
    assert set(parameters) == set(net.params)


def test_small_scores_are_upsampled_as_interp_does(write):
    path = write(NET.replace("kernel_size: 3 pad: 1", "kernel_size: 1 stride: 8").replace(
        SCORE, SCORE + 'layer { name: "l" type: "Interp" bottom: "label" top: "small" '
        "interp_param { shrink_factor: 8 } }").replace('bottom: "label" top: "loss"',
                                                       'bottom: "small" top: "loss"'))
    network = Network(path, 12, (41, 1))
    assert network.label == "label"
    net = training.SystemNet(CaffeNet(network.for_testing(), path))
    x = torch.randn(1, 3, 41, 41)
    scores = net(x)
    net.net(data=x)
    torch.testing.assert_close(scores[:, :, ::8, ::8], net.net.blobs["score"], atol=1e-5, rtol=1e-5)


def test_fixed_upsampling_is_bilinear_on_the_diagonal():
    net = Network(system_files("fcn-8s", "mini")[0], 12, (41, 1)).for_training()
    assert fix_upsampling(net) == ["upscore2", "upscore_pool4", "upscore8"]
    weight = net.params["upscore2"][0].detach()
    kernel = torch.tensor([0.25, 0.75, 0.75, 0.25])
    assert torch.equal(weight, torch.eye(12)[:, :, None, None] * (kernel[:, None] * kernel))
    assert fix_upsampling(net) == []


def test_vgg16_of_torchvision_gives_the_same_features(write, tmp_path):
    generator = torch.Generator().manual_seed(0)
    state = {}
    for k in (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28):
        state |= {f"features.{k}.weight": torch.zeros(1), f"features.{k}.bias": torch.zeros(1)}
    for k in (0, 3):
        state |= {f"classifier.{k}.weight": torch.zeros(1), f"classifier.{k}.bias": torch.zeros(1)}
    state["features.0.weight"] = torch.randn(4, 3, 3, 3, generator=generator)
    state["features.0.bias"] = torch.randn(4, generator=generator)
    plain_file.save(tmp_path / "vgg16.pt", state)
    net = Network(write(NET), 12, (41, 1)).for_training()
    assert load_vgg16(net, tmp_path / "vgg16.pt") == (
        f"initial weights: conv1_1 of {tmp_path / 'vgg16.pt'}")
    rgb = torch.randint(0, 256, (1, 3, 41, 41), generator=generator).float()
    theirs = (rgb - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    ours = rgb.flip(1) - torch.tensor(MEAN_BGR)[:, None, None]
    with torch.no_grad():
        net(data=ours, label=torch.zeros(1, 1, 41, 41))
    # Outside the image is its mean, which differs by a third of a grey level.
    torch.testing.assert_close(
        net.blobs["conv1_1"][:, :, 1:-1, 1:-1],
        F.conv2d(theirs, state["features.0.weight"], state["features.0.bias"]),
        atol=1e-4, rtol=1e-4)
    del state["features.5.bias"]
    plain_file.save(tmp_path / "other.pt", state)
    with pytest.raises(UserError, match="must be VGG-16, .*: lacks features.5.bias"):
        list(read_vgg16(tmp_path / "other.pt"))
