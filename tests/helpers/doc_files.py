"""Small files under the names that README and docs use, for the tests that run their commands."""

import cv2
import numpy as np
import torch

from helpers.backbone_files import BLOCKS, WIDTHS, Classifier, torch_state
from helpers.import_files import drawn
from prototxt_import import export, load_net
from pspnet_repro import PSPNet
from pspnet_repro.model.resnet import ResNet
from pspnet_repro.weights import model_file

CLASSES = 11
SIDE = 89  # of windows: its feature map holds every bin of the paper
TINY = {"width": 0.125, "stem_width": 8, "blocks": (1, 1, 1, 3)}
SOLVER = """net: "train_val.prototxt"
base_lr: 0.01 lr_policy: "poly" power: 0.9 max_iter: 10 momentum: 0.9 weight_decay: 0.0001
"""
TRAIN_NET = """layer { name: "data" type: "Input" top: "data" top: "label"
  input_param { shape { dim: 2 dim: 3 dim: 89 dim: 89 } shape { dim: 2 dim: 1 dim: 89 dim: 89 } } }
layer { name: "score" type: "Convolution" bottom: "data" top: "score"
  convolution_param { num_output: 3 kernel_size: 1 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "label" top: "loss" }
"""


def furnish(folder, text):
    """Make the files that a text names and that are missing."""
    for name, make in _MAKERS.items():
        if name in text and not (folder / name).exists():
            (folder / name).parent.mkdir(exist_ok=True)
            make(folder / name)


def _photograph(path, shape=(50, 70, 3)):
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, shape, np.uint8))


def _photographs(folder):
    folder.mkdir()
    for number in range(2):
        _photograph(folder / f"{number}.jpg")


def _images(folder):
    folder.mkdir()
    for number in range(10):
        _photograph(folder / f"{number}.jpg")


def _labels(folder):
    folder.mkdir()
    for number in range(10):
        label = np.random.default_rng(number).integers(0, CLASSES, (50, 70), np.uint8)
        cv2.imwrite(str(folder / f"{number}.png"), label)


def _data(folder):
    folder.mkdir()
    _images(folder / "images")
    _labels(folder / "labels")
    _class_names(folder / "classes.txt")
    for split, numbers in (("train", range(6)), ("val", range(6, 10))):
        (folder / f"{split}.txt").write_text(
            "".join(f"images/{number}.jpg labels/{number}.png\n" for number in numbers))


def _class_names(path):
    path.write_text("".join(f"{number} {number} {number} class {number}\n"
                            for number in range(CLASSES)))


def _settings(path):
    path.write_text('data = "DIR"\nbase_lr = 0.001\n')
    furnish(path.parent, "DIR")


def _network(classes):
    def make(path):
        model_file.save_model(path, drawn(PSPNet(classes, **TINY)), base_size=96, crop_size=SIDE)
    return make


def _caffemodel(path):
    """A prototxt, and its caffemodel beside it."""
    caffemodel = {"NET.prototxt": "W.caffemodel", "deploy.prototxt": "weights.caffemodel",
                  "pspnet50_ADE20K_473.prototxt": "pspnet50_ADE20K.caffemodel"}[path.name]
    export(drawn(PSPNet(150, **TINY)), SIDE, path, path.with_name(caffemodel))


def _recorded(path):
    """The blobs of a pass of NET.prototxt."""
    data = np.random.default_rng(0).normal(0, 50, (1, 3, SIDE, SIDE)).astype(np.float32)
    net = load_net(path.with_name("NET.prototxt"), path.with_name("W.caffemodel"))
    net(data=torch.from_numpy(data))
    blob = net.blobs["conv5_4"].detach().numpy()
    np.savez(path, **{"data": data, "sample/conv5_4": blob.ravel(),
                      "mean_abs/conv5_4": np.float64(np.abs(blob).mean())})


def _solver(path):
    path.write_text(SOLVER)
    path.with_name("train_val.prototxt").write_text(TRAIN_NET)


def _classifier(path):
    """Caffe's files of an ImageNet ResNet."""
    prototxt, caffemodel = Classifier().write(path.parent)
    prototxt.rename(path.with_suffix(".prototxt"))
    caffemodel.rename(path)


# In this order: a later file may need one before it.
_MAKERS = {
    "photo.jpg": _photograph, "a.jpg": _photograph, "b.jpg": _photograph, "photos": _photographs,
    "DIR": _data, "DATA": _data, "settings.toml": _settings, "IMAGES": _images,
    "LABELS": _labels, "classes.txt": _class_names,
    "pspnet50.safetensors": _network(150), "one.pt": _network(150), "two.pt": _network(150),
    "A.pt": _network(150), "B.pt": _network(150),
    "RUN/weights.pt": _network(CLASSES),
    "R50.safetensors": lambda path: model_file.save_model(
        path, ResNet(stem="classic", stem_width=12, widths=WIDTHS, blocks=BLOCKS,
                     stride_in="3x3")),
    "resnet50.pth": lambda path: torch.save(torch_state(), path),
    "NET.prototxt": _caffemodel, "deploy.prototxt": _caffemodel,
    "pspnet50_ADE20K_473.prototxt": _caffemodel, "RESNET.caffemodel": _classifier,
    "solver.prototxt": _solver,
    "golden.npz": _recorded,
}
