"""A PSPNet as the original's files."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from prototxt_import.conversion import image_input
from prototxt_import.conversion.describe import describe
from prototxt_import.conversion.head import shortest
from prototxt_import.format.caffe_pb2 import SolverParameter
from prototxt_import.format.caffemodel import caffemodel_writer
from prototxt_import.format.prototxt import prototxt_text
from prototxt_import.splits import with_splits
from pspnet_repro.errors import UserError
from pspnet_repro.files import write_together
from pspnet_repro.model.caffe_names import caffe_names
from pspnet_repro.model.pspnet import PSPNet
from pspnet_repro.training.settings import TrainSettings
from pspnet_repro.weights.model_file import check_finite

TRAIN_NET, SOLVER = "train_val.prototxt", "solver.prototxt"


def export(model: PSPNet, crop_size: int, prototxt_path: Path | str, caffemodel_path: Path | str,
           training: dict | None = None, write: Callable[[dict], None] = write_together) -> None:
    """Write a PSPNet as a deploy prototxt and a caffemodel that the original program loads.

    Names, types, shapes and layout are the released networks'; a miniature backbone gets those of
    tests/golden/solver. `convert` gives the same network back, bit for bit.

    Args:
        model: with float32 parameters.
        crop_size: pixels a side of the deploy net's input; its feature map must be a multiple of
            every bin.
        prototxt_path, caffemodel_path: the files; folders are made.
        training: TrainSettings values, {} for the paper's: then train_val.prototxt and
            solver.prototxt are written beside the deploy net. Its inputs are `data` and `label`,
            without a layer that reads them.
        write: writes {path: content}, see files.write_together.
    Raises:
        UserError: a crop that does not fit, weights that are not finite or of another dtype, or a
            file that cannot be written. All files are written, or none.
    """
    folder = Path(prototxt_path).parent
    extra = [] if training is None else [folder / TRAIN_NET, folder / SOLVER]
    paths = [Path(path) for path in (prototxt_path, caffemodel_path, *extra)]
    if len({path.absolute() for path in paths}) < len(paths):
        raise UserError(f"the files must have different names: {', '.join(map(str, paths))}")
    net = describe(model, crop_size)
    for name, tensor in model.named_parameters():
        if str(tensor.dtype) != "torch.float32":
            raise UserError(f"{name} must be float32, is {tensor.dtype}")
    if shortest(model.settings.dropout) != model.settings.dropout:
        raise UserError(f"dropout {model.settings.dropout} has more digits than a prototxt's "
                        "float32 holds")
    check_finite(model, "the network")
    if training is not None and model.auxiliary is not None and (
            model.settings.strides[-1] > 1):
        raise UserError("a training net with an auxiliary branch needs stride 1 in stage 5: both "
                        "branches are compared with the same labels")
    values = {field.name: field.default for field in dataclasses.fields(TrainSettings)}
    values |= training or {}
    deviations = [name for name, original in (("rate_in_momentum", True), ("decay_bn", False))
                  if values[name] != original]
    deviations += ["spatial_dropout"] if model.settings.spatial_dropout else []
    if training is not None and deviations:
        raise UserError(f"the original program trains with one value of {', '.join(deviations)}, "
                        "this network was trained with another")
    train_net = describe(model, crop_size, values)
    messages = [net] if training is None else [net, train_net, _solver(values)]
    contents = list(map(prototxt_text, messages))
    contents.insert(1, caffemodel_writer(train_net.name, _layers(model, train_net)))
    write(dict(zip(paths, contents)))


def _layers(model, train_net):
    """Layer name -> (type, arrays), as the original writes its training net."""
    names = {layer: model.get_submodule(path) for path, layer in caffe_names(model).items()}
    layers = {}
    for layer in with_splits(train_net.input, train_net.layer):
        module = names.get(layer.name)
        arrays = [tensor.detach().cpu().numpy() for tensor in module.state_dict().values()
                  ] if module is not None else []
        if layer.name == image_input.LAYER:
            arrays = image_input.layer_arrays(model.settings)
        if layer.type in ("BN", "SyncBN"):
            # The original goes by name; BN is the type that every release of it knows.
            layer.type = "BN"
            arrays = [array.reshape(1, -1, 1, 1) for array in arrays]
        layers[layer.name] = (layer.type, arrays)
    return layers


def _solver(values):
    names = ("base_lr", "power", "max_iter", "momentum", "weight_decay", "iter_size")
    return SolverParameter(net=TRAIN_NET, lr_policy="poly", snapshot_prefix="pspnet",
                           snapshot=max(1, values["max_iter"] // 10),
                           **{name: values[name] for name in names})
