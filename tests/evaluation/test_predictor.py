"""Predictor: three lines from a file of weights to label maps."""

import io
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from prototxt_import import export
from pspnet_repro import Predictor, PSPNet
from pspnet_repro.data.classes import known_classes
from pspnet_repro.errors import UsageError, UserError
from pspnet_repro.evaluation import Protocol, predict_probabilities
from pspnet_repro.evaluation.network_file import read_network
from pspnet_repro.weights import model_file

MINI = {"width": 0.125, "stem": "classic", "stem_width": 8, "blocks": (1, 1, 1, 1), "bins": (1, 2)}
NAMES = ["sky", "tree", "road", "car"]
COLOURS = [[10, 20, 30], [200, 0, 0], [0, 200, 0], [0, 0, 200]]


def _net(seed=0, classes=4):
    torch.manual_seed(seed)
    net = PSPNet(classes, **MINI)
    for name, parameter in net.named_parameters():
        if name.endswith("score.bias"):
            torch.nn.init.normal_(parameter)
    return net.eval()


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "net.safetensors"
    model_file.save_model(path, _net(), names=NAMES, palette_rgb=COLOURS, base_size=64,
                          crop_size=57)
    return path


@pytest.fixture(scope="module")
def photograph():
    return np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)


def test_predictor_takes_all_that_the_file_knows(weights, photograph):
    predictor = Predictor(weights)
    assert predictor.protocol == Protocol(64, 57) and predictor.names == NAMES
    prediction = predictor(photograph, probabilities=True)
    wanted = predict_probabilities(_net().for_inference(), photograph, classes=4, base_size=64,
                                   crop_size=57)
    assert np.array_equal(prediction.probabilities, wanted)
    assert np.array_equal(prediction.labels, wanted.argmax(2))
    assert prediction.labels.dtype == np.uint8
    assert prediction.names == NAMES and prediction.colours == [tuple(c) for c in COLOURS]
    assert predictor(photograph).probabilities is None
    height, width = prediction.labels.shape
    assert repr(prediction) == f"Prediction({width}x{height} pixels, 4 classes)"


def test_overlay_is_a_picture_with_the_photograph_under_its_classes(weights, photograph):
    prediction = Predictor(weights)(photograph)
    picture = prediction.overlay()
    assert isinstance(picture, Image.Image) and picture.mode == "RGB"
    mixed = np.asarray(picture)[:50, :70].astype(int)
    wanted = (photograph.astype(int) + np.array(COLOURS)[prediction.labels]) / 2
    assert np.abs(mixed - wanted).max() <= 1


def test_paths_pil_images_and_arrays_are_one_photograph(weights, photograph, tmp_path):
    predictor = Predictor(weights)
    file = tmp_path / "photo.png"
    cv2.imwrite(str(file), photograph[:, :, ::-1])
    labels = predictor(photograph).labels
    for image in (file, str(file), Image.open(file), Image.fromarray(photograph).convert("RGBA")):
        assert np.array_equal(predictor(image).labels, labels)
    turned = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned a quarter counterclockwise
    Image.fromarray(np.rot90(photograph).copy()).save(turned, "PNG", exif=exif)
    assert np.array_equal(predictor(Image.open(turned)).labels, labels)


def test_many_streams_and_batches(weights):
    rng = np.random.default_rng(1)
    photographs = [rng.integers(0, 256, (h, w, 3), np.uint8) for h, w in
                   ((50, 70), (30, 30), (70, 50), (64, 64))]
    predictor = Predictor(weights)
    read = []

    def images():
        for number, image in enumerate(photographs):
            read.append(number)
            yield image

    predictions = predictor.many(images(), batch_size=2, probabilities=True)
    first = next(predictions)
    assert len(read) < len(photographs)
    for photograph, prediction in zip(photographs, [first, *predictions], strict=True):
        alone = predictor(photograph, probabilities=True)
        assert np.array_equal(prediction.image, photograph)
        np.testing.assert_allclose(prediction.probabilities, alone.probabilities, atol=1e-5)


def test_several_networks_are_averaged(weights, photograph, tmp_path):
    model_file.save_model(tmp_path / "b.pt", _net(1), crop_size=57)
    both = Predictor([weights, tmp_path / "b.pt"])(photograph, probabilities=True)
    each = [predict_probabilities(_net(seed).for_inference(), photograph, classes=4, base_size=64,
                                  crop_size=57) for seed in (0, 1)]
    np.testing.assert_allclose(both.probabilities, np.mean(each, 0), atol=1e-6)
    model_file.save_model(tmp_path / "c.pt", _net(2, classes=5))
    with pytest.raises(UserError, match="c.pt: has 5 classes, must have 4 as the other weights"):
        Predictor([weights, tmp_path / "c.pt"])


def test_files_of_the_original_are_one_network(photograph, tmp_path):
    net = _net(classes=21)
    pair = tmp_path / "net.prototxt", tmp_path / "w.caffemodel"
    export(net, 57, *pair)
    predictor = Predictor(pair)
    assert predictor.protocol == Protocol(512, 57)
    assert predictor.classes == known_classes("voc2012")
    wanted = predict_probabilities(net.for_inference(), photograph, classes=21, base_size=512,
                                   crop_size=57)
    np.testing.assert_allclose(predictor(photograph, probabilities=True).probabilities, wanted,
                               atol=1e-5)
    with pytest.raises(UsageError, match="weights must name a caffemodel beside .*net.prototxt"):
        Predictor(pair[0])


@pytest.mark.parametrize("facts, names, base_size", [
    ({"training": {"data": "camvid", "crop_size": 89}}, known_classes("camvid").names, 480),
    ({"training": {"data": "mine"}}, tuple(f"class {k}" for k in range(11)), 512),
    ({}, tuple(f"class {k}" for k in range(11)), 512)])
def test_names_and_sizes_follow_the_training(tmp_path, facts, names, base_size):
    model_file.save_model(tmp_path / "w.pt", _net(classes=11), **facts)
    file = read_network(tmp_path / "w.pt")
    assert (file.classes.names, file.base_size) == (names, base_size)
    assert file.crop_size == facts.get("training", {}).get("crop_size", 473)


@pytest.mark.parametrize("names, palette_rgb, words", [
    (NAMES[:3], COLOURS, "names must be 4 names of at most 80 printable characters"),
    (["a", "b", "c", "d\x1b[2J"], COLOURS, "names must be 4 names"),
    ("abcd", COLOURS, "names must be 4 names"), (NAMES, None, "palette_rgb must be 4 times three"),
    (NAMES, [[0, 0, 256]] * 4, "palette_rgb must be 4 times three numbers from 0 to 255")])
def test_names_of_a_hostile_file_are_refused(tmp_path, names, palette_rgb, words):
    model_file.save_model(tmp_path / "w.pt", _net(), names=names, palette_rgb=palette_rgb)
    with pytest.raises(UserError, match=f"w.pt: {words}"):
        Predictor(tmp_path / "w.pt")


@pytest.mark.parametrize("image, words", [
    (np.zeros((5, 5), np.uint8), r"got an array of shape \(5, 5\) and type uint8: repeat its one"),
    (np.zeros((3, 5, 5), np.uint8), r"move its channels last, image.transpose\(1, 2, 0\)"),
    (np.zeros((5, 5, 4), np.uint8), r"drop its transparency, image\[:, :, :3\]"),
    (np.zeros((5, 5, 3), np.uint16), "image must be uint8, 0 to 255, got .*uint16: scale it"),
    (np.zeros((5, 5, 3), np.float32), "image must be uint8, 0 to 255, got .*float32: scale it"),
    (np.zeros((0, 5, 3), np.uint8), "with at least one pixel, got an array"),
    (np.zeros((3, 5, 5), np.uint8), r"image must be \(H, W, 3\) RGB"),
    (Image.new("I;16", (4, 4)), "got a PIL image of mode I;16: scale it"),
    (Image.new("F", (4, 4)), "got a PIL image of mode F"),
    (7, "image must be a path, a PIL image or a numpy array, got a int")])
def test_other_images_are_refused(weights, image, words):
    with pytest.raises(UsageError, match=words):
        Predictor(weights)(image)


@pytest.mark.parametrize("how, words", [
    ({"precision": "float16"}, "precision must be one of float32, tf32, bfloat16, got 'float16'"),
    ({"precision": "tf32"}, 'precision "tf32" needs device "cuda"'),
    ({"protocol": 3}, "protocol must be a pspnet_repro.evaluation.Protocol, or .*, got 3$"),
    ({"protocol": "Caffe"}, "or one of caffe, semseg, or None for .* own, got 'Caffe'$"),
    ({"fused": "no"}, "fused must be True or False, got 'no'$"),
    ({"protocol": Protocol(64, 60)}, "crop_size: .*60")])
def test_other_arguments_are_refused(weights, how, words):
    with pytest.raises(UsageError, match=words):
        Predictor(weights, **how)
    with pytest.raises(UsageError, match="weights must name a file, got an empty list"):
        Predictor([])


def test_a_first_prediction_waits_for_no_compiler_of_torch(weights, tmp_path):
    """torch._dynamo and sympy, which torch loads for draws and copies on "meta", take 3 s."""
    Image.new("RGB", (60, 40)).save(tmp_path / "photo.png")
    code = ("import sys, torch; before = set(sys.modules); from pspnet_repro import Predictor; "
            "Predictor(sys.argv[1])(sys.argv[2]); "
            "print(*{'torch._dynamo', 'sympy'} & (set(sys.modules) - before), 'loaded')")
    done = subprocess.run([sys.executable, "-c", code, weights, tmp_path / "photo.png"], text=True,
                          capture_output=True, check=True)
    assert done.stdout == "loaded\n"
