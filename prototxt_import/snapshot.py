"""Snapshots of a training: the caffemodel and the solverstate of Caffe, written and read."""

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from prototxt_import.format import caffe_pb2
from prototxt_import.format.blobs import blob_of
from prototxt_import.format.hdf5 import hdf5_layers_writer
from prototxt_import.format.solverstate import SolverState, solverstate_writer
from prototxt_import.net import CaffeNet
from prototxt_import.parameters import same_shape
from prototxt_import.splits import written_layers
from pspnet_repro.errors import UserError
from pspnet_repro.files import write_together
from pspnet_repro.training.solver import CaffeSGD
from pspnet_repro.words import counted

_BLOBS = 7  # the field of a LayerParameter


def owned(net: CaffeNet) -> dict[tuple[str, int], torch.nn.Parameter]:
    """{(layer, index): tensor} of a CaffeNet's parameters in Caffe's order, shared ones once."""
    parameters, seen = {}, set()
    for layer, tensors in net.params.items():
        for k, tensor in enumerate(tensors):
            if id(tensor) not in seen:
                seen.add(id(tensor))
                parameters[layer, k] = tensor
    return parameters


def write_snapshot(net: CaffeNet, prefix: str | os.PathLike, state: SolverState,
                   hdf5: bool) -> tuple[str, str]:
    """Write a network and a state, which takes the caffemodel's path as its learned_net; the paths
    of both files, as Caffe names them. UserError where one cannot be written: nothing changed."""
    ending = ".h5" if hdf5 else ""
    caffemodel, solverstate = (f"{os.fspath(prefix)}_iter_{state.iteration}{kind}{ending}"
                               for kind in (".caffemodel", ".solverstate"))
    state = state._replace(learned_net=caffemodel)

    def ready(parts):
        # An older solverstate of this name never stands beside the new weights.
        Path(solverstate).unlink(missing_ok=True)

    write_together({Path(caffemodel): _hdf5_writer(net, caffemodel) if hdf5 else _writer(net),
                    Path(solverstate): solverstate_writer(solverstate, state)}, ready)
    return caffemodel, solverstate


def _numpy(tensors):
    return [tensor.detach().cpu().float().numpy() for tensor in tensors]


def _writer(net):
    """A function that fills a file with the bytes that Caffe would write."""
    def write(file):
        file.write(caffe_pb2.NetParameter(name=net.name, input=net.declared_inputs)
                   .SerializeToString())
        for layer in written_layers(net):
            data = _layer_bytes(layer, net.params.get(layer.name, ()))
            file.write(caffe_pb2.WeightsFile(layer=[data]).SerializeToString())

    return write


def _layer_bytes(layer, tensors):
    """A layer with its blobs as Caffe writes it: fields in the order of their numbers."""
    before, after = caffe_pb2.LayerParameter(), caffe_pb2.LayerParameter()
    before.CopyFrom(layer)
    after.CopyFrom(layer)
    for field, _ in layer.ListFields():
        (after if field.number < _BLOBS else before).ClearField(field.name)
    blobs = caffe_pb2.WeightsLayer(blobs=map(blob_of, _numpy(tensors)))
    shapes = caffe_pb2.InputLayer()
    if layer.HasField("input_param"):
        shapes.input_param.CopyFrom(layer.input_param)
        after.ClearField("input_param")
    return b"".join(part.SerializeToString() for part in (before, blobs, after, shapes))


def _hdf5_writer(net, path):
    parameters = owned(net)
    return hdf5_layers_writer(path, {
        layer.name: (layer.type, _numpy(tensor for k, tensor in
                                        enumerate(net.params.get(layer.name, ()))
                                        if (layer.name, k) in parameters))
        for layer in written_layers(net)})


def find_learned_net(solverstate: Path | str, name: str) -> Path:
    """The path of the caffemodel that a solverstate names: beside the solverstate, where a
    snapshot that was moved has it, or as it is named; UserError where it is at neither place."""
    if not name:
        raise UserError(f"{solverstate}: names no learned_net, so its weights are unknown: name "
                        "the solverstate of a snapshot, which Caffe writes beside a caffemodel")
    beside = Path(solverstate).parent / Path(name).name
    for path in (beside, Path(name)):
        if path.is_file():
            return path
    raise UserError(f"{solverstate}: its learned_net {name}: no such file beside the solverstate "
                    f"({beside}) nor at {Path(name).absolute()}: copy the snapshot's caffemodel "
                    "beside its solverstate")


def check_history(path: Path | str, history: Sequence[np.ndarray], net: CaffeNet, kind: str,
                  rule: type[CaffeSGD]) -> dict[tuple[str, int], list[np.ndarray]]:
    """Check that a solverstate's history fits a network and a rule of updates of the name `kind`.

    Returns:
        {(layer, index): arrays, one for each of rule.HISTORIES}.
    Raises:
        UserError: other numbers or shapes; the blob is named.
    """
    parameters = owned(net)
    rounds, count = len(rule.HISTORIES), len(parameters)
    if len(history) != rounds * count:
        likely = {count: "SGD, Nesterov, AdaGrad or RMSProp", 2 * count: "AdaDelta or Adam"}.get(
            len(history))
        way = (f"it is of a solver of type {likely}: restore it with that type" if likely else
               "it is of another network: name the solver that wrote it")
        raise UserError(f"{path}: {kind} on {net.path} needs a history of "
                        f"{counted(rounds * count, 'blob')}, {rounds} for each of its "
                        f"{counted(count, 'parameter')}, it has {len(history)}: {way}")
    types = {layer.name: layer.type for layer in net.layers}
    fitting, signed = {}, []
    for k, ((layer, index), tensor) in enumerate(parameters.items()):
        arrays = history[k::count]
        for at, array, name in zip(range(k, len(history), count), arrays, rule.HISTORIES):
            where = f"{path}: history {at}, of layer {layer!r}, blob {index}"
            if not same_shape(tuple(tensor.shape), array.shape, types[layer]):
                raise UserError(f"{where}: needs shape {tuple(tensor.shape)}, has {array.shape}: "
                                "it is of another network: name the solver that wrote it")
            if not np.isfinite(array).all():
                raise UserError(f"{where}: not finite: the training had diverged; restore an "
                                "earlier snapshot")
            if not name.startswith("square"):
                signed.append(array)
            elif array.min(initial=0) < 0:
                raise UserError(f"{where}: holds {array.min()}, and {kind} has squares, never "
                                "below 0: it is of another type of solver: restore it with the "
                                "type that wrote it")
        fitting[layer, index] = arrays
    if (sum(array.size for array in signed) > 100 and any(array.any() for array in signed)
            and all(array.min(initial=0) >= 0 for array in signed)):
        warnings.warn(f"{path}: no number of its history is below 0, as in the squares of AdaGrad, "
                      f"RMSProp and AdaDelta: is its solver of type {kind}?", stacklevel=3)
    return fitting


def history_of(net: CaffeNet, optimizer: CaffeSGD) -> list[np.ndarray]:
    """The history of an optimizer as SolverState has it; zeros where no step was taken."""
    parameters = owned(net).values()
    names = type(optimizer).HISTORIES
    states = optimizer.state
    return _numpy(states[tensor][name] if tensor in states and name in states[tensor]
                  else torch.zeros_like(tensor) for name in names for tensor in parameters)


def restore_history(net: CaffeNet, optimizer: CaffeSGD,
                    fitting: Mapping[tuple[str, int], Sequence[np.ndarray]]) -> None:
    """Give an optimizer the arrays that `check_history` returned."""
    learned = {id(p) for group in optimizer.param_groups for p in group["params"]}
    for key, tensor in owned(net).items():
        if id(tensor) in learned:
            for name, array in zip(type(optimizer).HISTORIES, fitting[key]):
                optimizer.state[tensor][name] = torch.from_numpy(
                    array.reshape(tensor.shape).copy()).to(tensor)
