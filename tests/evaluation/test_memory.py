"""The memory of a test is bounded, whatever the photograph and the file say."""

import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from helpers.commands import run
from helpers.networks import MODEL
from helpers.paths import ROOT
from helpers.refusals import refused

from pspnet_repro import Predictor, PSPNet
from pspnet_repro.evaluation import MULTI_SCALE, Protocol
from pspnet_repro.evaluation.imresize import imresize
from pspnet_repro.evaluation.memory import MAX_BYTES, window_bytes, wrong_sizes
from pspnet_repro.evaluation.protocol import PRESETS
from pspnet_repro.evaluation.tiles import Tiles
from pspnet_repro.model.settings import NetworkSettings
from pspnet_repro.weights import model_file

# Tests an image of a million pixels with 150 classes, and prints by how much the peak grew.
LARGE = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy as np, torch
from experiments.peak_memory import peak_bytes
from pspnet_repro.evaluation.sliding import predict_tiles
from pspnet_repro.evaluation import preset
torch.set_num_threads(1)

class NoNetwork:
    def logits(self, x):
        return x.new_zeros(len(x), 150, (x.shape[2] - 1) // 8 + 1, (x.shape[3] - 1) // 8 + 1)
    def __call__(self, x):
        return x.new_zeros(len(x), 150, *x.shape[2:])

before = peak_bytes()
tiles, = predict_tiles(NoNetwork(), [np.zeros((1000, 1000, 3), np.uint8)], classes=150,
                       protocol=preset(sys.argv[2], 96, 97, scales=(0.5, 1.0)))
for place, tile in tiles:
    tile.argmax(0)
print(peak_bytes() - before)
"""


@pytest.mark.parametrize("sizes", [[(50, 40)], [(30, 20), (60, 45)], [(200, 160), (300, 240)]])
def test_tiles_are_the_mean_of_resized_canvases(sizes):
    """With canvases kept, and added up where they are larger than the photograph."""
    canvases = [torch.rand(3, *size) + 0.1 for size in sizes]
    tiles = Tiles((3, 150, 130), sizes, True)
    assert [tiles.add(canvas) for canvas in canvases] == [False] * (len(sizes) - 1) + [True]
    wanted = np.zeros((150, 130, 3))
    for canvas in canvases:
        resized = imresize(canvas.permute(1, 2, 0).numpy(), (150, 130))
        wanted += resized / resized.sum(2, keepdims=True) / len(sizes)
    seen = np.zeros((150, 130), int)
    for place, tile in tiles:
        seen[place] += 1
        np.testing.assert_allclose(tile.permute(1, 2, 0), wanted[place], rtol=0, atol=1e-6)
    assert (seen == 1).all()
    np.testing.assert_allclose(tiles.whole().permute(1, 2, 0), wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("protocol", PRESETS)
def test_a_large_photograph_needs_no_map_of_pixels_times_classes(protocol):
    done = subprocess.run([sys.executable, "-c", LARGE, str(ROOT), protocol], capture_output=True,
                          text=True, check=True)
    assert int(done.stdout) < 1000 * 1000 * 150 * 4 / 2


@pytest.mark.parametrize("size, photo", [((40, 50), (130, 177)), ((130, 177), (40, 50)),
                                         ((1, 7), (5, 1))])
def test_tiles_of_opencv_are_its_resize(size, photo):
    """Places are those of OpenCV, in float32; sums differ by rounding."""
    canvas = torch.rand(5, *size)
    tiles = Tiles((5, *photo), [size], True, "opencv")
    tiles.add(canvas)
    wanted = cv2.resize(canvas.permute(1, 2, 0).numpy(), photo[::-1],
                        interpolation=cv2.INTER_LINEAR).reshape(*photo, 5)
    np.testing.assert_allclose(tiles.whole().permute(1, 2, 0), wanted, rtol=0, atol=5e-7)


# Makes pictures of 9 million pixels, counts them, and prints by how much the peak grew.
PICTURES = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy as np
from experiments.peak_memory import peak_bytes
from pspnet_repro.data.classes import numbered_classes
from pspnet_repro.data.labels import _values_of
from pspnet_repro.evaluation import ConfusionMatrix, imresize
from pspnet_repro.evaluation.pictures import overlay
image, label = np.ones((3000, 3000, 3), np.uint8), np.ones((3000, 3000), np.uint8)
overlay(image[:9], label[:9], numbered_classes(4))  # what is loaded once
before = peak_bytes()
overlay(image, label, numbered_classes(4))
ConfusionMatrix(4).update(label, label)
_values_of(image, [(1, 1, 1, 3)])
imresize(image, (9, 2900))
print(peak_bytes() - before)
"""


def test_pictures_of_a_large_photograph_are_made_in_strips():
    """In one piece numpy would count with 8 bytes a pixel, and look up with 8 more."""
    done = subprocess.run([sys.executable, "-c", PICTURES, str(ROOT)], capture_output=True,
                          text=True, check=True)
    # The overlay has 3 bytes a pixel, and strips take some 50 MB.
    assert int(done.stdout) < 3000 * 3000 * 3 + 70e6


def test_sizes_of_the_released_networks_are_allowed():
    for classes, base, crop, scales in ((150, 512, 473, MULTI_SCALE), (21, 512, 473, MULTI_SCALE),
                                        (19, 2048, 713, MULTI_SCALE)):
        settings = NetworkSettings(classes, 101)
        assert wrong_sizes(settings, Protocol(base, crop, scales)) == {}
    assert window_bytes(NetworkSettings(19), 2049) < MAX_BYTES < window_bytes(
        NetworkSettings(19), 4089)


@pytest.mark.parametrize("facts, name", [({"crop_size": 32761}, "crop_size 32761"),
                                         ({"base_size": 32768}, "base_size 32768")])
def test_sizes_of_a_file_that_need_too_much_memory_are_its_fault(tmp_path, capfd, facts, name):
    path = tmp_path / "w.pt"
    model_file.save_model(path, PSPNet(**MODEL), **facts)
    refused(f"w.pt: {name}: .* give a smaller --", Predictor, str(path))
    code, _, said = run(capfd, "predict", ROOT / "README.md", "--weights", path, "-o",
                        tmp_path / "out")
    assert code == 1 and f"{path}: {name}" in said and not (tmp_path / "out").exists()
    option = f"--{name.split()[0].replace('_', '-')}"
    code, _, said = run(capfd, "predict", ROOT / "README.md", "--weights", path, option, 30001,
                        "-o", tmp_path / "out")
    assert code == 2 and f"{option}: 30001 pixels" in said
