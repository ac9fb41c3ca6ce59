"""What a system's network starts from: VGG-16, and the kernels of fixed upsampling."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from prototxt_import.format.caffe_pb2 import FillerParameter
from prototxt_import.format.caffemodel import iterate_caffemodel
from prototxt_import.layers.fillers import fill
from prototxt_import.net import CaffeNet
from pspnet_repro.errors import UserError
from pspnet_repro.model.settings import MEAN_BGR
from pspnet_repro.weights import recognize
from pspnet_repro.weights.plain_file import load_content
from pspnet_repro.weights.torchvision import MEAN, STD
from pspnet_repro.words import counted

_FEATURES = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
_NAMES = ("conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1", "conv3_2", "conv3_3", "conv4_1",
          "conv4_2", "conv4_3", "conv5_1", "conv5_2", "conv5_3")
# torchvision's vgg16, whose classifier.6 is ImageNet's.
_TORCHVISION = {**{f"features.{k}": name for k, name in zip(_FEATURES, _NAMES)},
                "classifier.0": "fc6", "classifier.3": "fc7"}


def read_vgg16(path: Path) -> Iterator[tuple[str, list[np.ndarray]]]:
    """(layer, [weight, bias]) of VGG-16, by Caffe's names, for BGR minus Caffe's mean.

    Args:
        path: a caffemodel of any format, or a file with the state dict of torchvision's vgg16.
    Raises:
        UserError: no such file, or another kind of file.
    """
    if recognize.kind_at(path) in recognize.CAFFEMODELS:
        for name, (_, blobs) in iterate_caffemodel(path):
            if blobs:
                yield name, blobs
        return
    content = load_content(path)
    missing = [f"{name}.{kind}" for name in _TORCHVISION for kind in ("weight", "bias")
               if not isinstance(content.get(f"{name}.{kind}"), torch.Tensor)]
    if missing:
        raise UserError(f"{path}: must be VGG-16, as a caffemodel or as the state dict of "
                        f"torchvision's vgg16 (without batch normalization): lacks {missing[0]}")
    for theirs, name in _TORCHVISION.items():
        blobs = [content[f"{theirs}.{kind}"].float().numpy() for kind in ("weight", "bias")]
        yield name, _for_caffe(path, *blobs) if name == "conv1_1" else blobs


def _for_caffe(path, weight, bias):
    """The first convolution for BGR minus Caffe's mean, where it had RGB in units of deviations."""
    if weight.shape[1:2] != (3,):
        raise UserError(f"{path}: features.0.weight must be (64, 3, 3, 3), got {weight.shape}")
    weight = weight / np.array(STD, np.float32)[:, None, None]
    shift = np.array(MEAN_BGR[::-1], np.float32) - np.array(MEAN, np.float32)
    bias = bias + np.einsum("ocij,c->o", weight, shift)
    return [np.ascontiguousarray(weight[:, ::-1]), bias.astype(np.float32)]


@torch.no_grad()
def load_vgg16(net: CaffeNet, path: Path) -> str:
    """Copy VGG-16 into the layers of the same names and numbers of weights: fc6, an inner product
    there, becomes a convolution. Returns a sentence that says which layers.

    Raises:
        UserError: as `read_vgg16`, weights that are not finite, or no layer fits.
    """
    done, others = [], []
    for name, blobs in read_vgg16(path):
        tensors = net.params.get(name)
        if tensors is None:
            continue
        if [tensor.numel() for tensor in tensors] != [blob.size for blob in blobs]:
            others.append(name)
            continue
        for tensor, blob in zip(tensors, blobs):
            if not np.isfinite(blob).all():
                raise UserError(f"{path}: layer {name!r} is not finite: take the file from its "
                                "source again, or leave out --backbone vgg16")
            if not tensor.is_meta:
                tensor.copy_(torch.tensor(blob).view(tensor.shape))
        done.append(name)
    if not done:
        sizes = f", {counted(len(others), 'layer')} of another size" if others else ""
        raise UserError(f"{path}: fits no layer of {net.path}{sizes}: leave out --backbone vgg16")
    left = f"; of another size: {', '.join(others)}" if others else ""
    return f"initial weights: {', '.join(done)} of {path}{left}"


@torch.no_grad()
def fix_upsampling(net: CaffeNet) -> list[str]:
    """Bilinear kernels on the diagonal for Deconvolution layers that never learn and are all 0, as
    FCN's training script has them; returns the layers' names."""
    fixed = []
    for step in net.steps:
        name, params = step.layer.name, step.params
        if (step.layer.type != "Deconvolution" or params[0].requires_grad or params[0].is_meta
                or params[0].any() or step.layer.convolution_param.group > 1):
            continue
        inputs, outputs, rows, cols = params[0].shape
        if inputs == outputs and rows == cols:
            kernel = torch.empty(1, 1, rows, cols)
            fill(kernel, FillerParameter(type="bilinear"))
            params[0].copy_(torch.eye(inputs)[:, :, None, None] * kernel)
            fixed.append(name)
    return fixed
