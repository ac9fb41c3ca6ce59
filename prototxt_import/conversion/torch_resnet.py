"""A torchvision-style ResNet's state dict into our backbone."""

from pathlib import Path

import numpy as np
import torch

from prototxt_import.conversion.blobs import listed, merged_bn
from prototxt_import.conversion.convert import Conversion, Row, without_memory
from pspnet_repro.data.conventions import MEAN_BGR
from pspnet_repro.errors import UserError
from pspnet_repro.model.resnet import ResNet
from pspnet_repro.weights import model_file, plain_file, recognize
from pspnet_repro.weights.sizes import check_tensors

# torchvision's input is (rgb / 255 - mean) / deviation; here blue, green, red in 0..255.
_MEAN = 255 * np.array([0.406, 0.456, 0.485])
_DEVIATION = 255 * np.array([0.225, 0.224, 0.229])
_PARTS = {"reduce": ("conv1", "bn1"), "spatial": ("conv2", "bn2"), "increase": ("conv3", "bn3"),
          "project": ("downsample.0", "downsample.1")}
_BN = ("weight", "bias", "running_mean", "running_var")


def convert_torch_resnet(path: Path) -> Conversion:
    """The Conversion, in eval mode, of a file of a ResNet's state dict (torch.save, safetensors).

    Names are torchvision's: conv1, bn1 (a deep stem adds conv2, bn2, conv3, bn3), layer1.0.conv1,
    ..., layer4.2.downsample.1; fc and num_batches_tracked are left out. They may stand under
    "state_dict", and after "module.", as trainings save them. Strides are 1, 2, 2, 2 in
    the 3x3 convolutions. The first convolution takes over the step from our input (BGR, 0..255,
    minus our mean) to torchvision's: its channels are turned round and divided by 255 times the
    deviation. What is left, the difference of the two means (at most half a level of 255), is a
    constant after that convolution, and is subtracted from the mean of its BN. This is exact except
    in the outermost outputs of that one convolution, where its window lies partly on the padding,
    which stands for the mean colour: for ours here, for torchvision's there.

    Raises:
        UserError: a file that cannot be read, names or shapes of another network, or numbers that
            are not finite.
    """
    content = plain_file.load_content(path)
    state, _ = recognize.state_dict_of(content)
    if not {"conv1.weight", "layer1.0.conv1.weight"} <= state.keys():
        raise UserError(recognize.refusal(path, content))
    if not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise UserError(f"{path}: must be a state dict of tensors alone")
    check_tensors(path, state)
    settings = _settings(path, state)
    model = without_memory(ResNet, settings, path)
    sources = {}
    for module, (conv, bn) in _units(model).items():
        sources[f"{module}.conv.weight"] = f"{conv}.weight"
        sources |= {f"{module}.bn.{name}": f"{bn}.{name}" for name in _BN}
    _check_names(path, state, model, sources)
    weights = {name: state[source].float().clone() for name, source in sources.items()}
    _take_over_input(weights)
    model.load_state_dict(weights, assign=True)
    model_file.check_finite(model, path)
    rows = [Row(name.removesuffix(".weight"), "x".join(map(str, state[name].shape)),
                ours.removesuffix(".weight"))
            for ours, name in sources.items() if ours.endswith(".weight")]
    rows += [Row(name, "x".join(map(str, state[name].shape)), "left out") for name in state
             if name.startswith("fc.")]
    return Conversion(model.eval(), rows, 224)


def _settings(path, state):
    blocks = tuple(next(k for k in range(len(state) + 1) if f"layer{s}.{k}.conv1.weight"
                        not in state) for s in (1, 2, 3, 4))
    needed = ["conv1.weight", *(f"layer{s}.0.conv{k}.weight" for s in (1, 2, 3, 4) for k in (1, 3))]
    missing = [name for name in needed if name not in state or state[name].dim() != 4]
    if missing:
        raise UserError(f"{path}: not a ResNet of bottlenecks: lacks {listed(missing)}")
    return {"blocks": blocks, "stem": "deep" if "conv3.weight" in state else "classic",
            "stem_width": state["conv1.weight"].shape[0],
            "widths": tuple(state[f"layer{s}.0.conv1.weight"].shape[0] for s in (1, 2, 3, 4)),
            "strides": (1, 2, 2, 2), "dilations": (1, 1, 1, 1), "stride_in": "3x3"}


def _units(model):
    """{our module: (their convolution, their BN)}."""
    units = {f"stem.{k}": (f"conv{k + 1}", f"bn{k + 1}") for k in range(len(model.stem))}
    for s in (1, 2, 3, 4):
        for k, block in enumerate(getattr(model, f"stage{s + 1}")):
            units |= {f"stage{s + 1}.{k}.{part}": tuple(f"layer{s}.{k}.{name}" for name in names)
                      for part, names in _PARTS.items() if getattr(block, part) is not None}
    return units


def _check_names(path, state, model, sources):
    wanted = {sources[name]: tensor for name, tensor in model.state_dict().items()}
    given = {name: tensor for name, tensor in state.items()
             if not name.startswith("fc.") and not name.endswith(".num_batches_tracked")}
    differences = model_file.shape_differences(wanted, given)
    if differences:
        raise UserError(f"{path}: not a ResNet of bottlenecks: {'; '.join(differences[:20])}")


def _take_over_input(weights):
    weight = weights["stem.0.conv.weight"].double().numpy()[:, ::-1]
    scaled = weight / _DEVIATION[:, None, None]
    shift = (scaled * (np.array(MEAN_BGR) - _MEAN)[:, None, None]).sum((1, 2, 3))
    weights["stem.0.conv.weight"] = torch.from_numpy(scaled.astype(np.float32))
    mean, var, scale, bias = (weights[f"stem.0.bn.{name}"].numpy() for name in (
        "running_mean", "running_var", "weight", "bias"))
    for name, array in merged_bn(mean, var, scale, bias, shift=shift).items():
        weights[f"stem.0.bn.{name}"] = torch.from_numpy(array)
