"""The momentum of a Caffe training, for the same network of ours."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from prototxt_import.conversion.convert import convert_network
from prototxt_import.conversion.graph import Graph
from prototxt_import.format.caffemodel import read_caffemodel
from prototxt_import.format.hdf5 import is_hdf5
from prototxt_import.format.solverstate import read_solverstate
from prototxt_import.snapshot import find_learned_net
from pspnet_repro.errors import UserError
from pspnet_repro.words import counted

_FRESH = "start from the weights alone, with --initial-weights"


class Momentum(NamedTuple):
    """Steps that were taken, and {name of a PSPNet's parameter: float32 array} of the buffers."""

    iteration: int
    buffers: dict


def described_net(solverstate: str | Path) -> Path:
    """The path of the caffemodel that a solverstate names, which describes its network too.
    UserError where a file is missing, or HDF5, which has no settings of layers."""
    caffemodel = find_learned_net(solverstate, read_solverstate(solverstate).learned_net)
    if is_hdf5(caffemodel):
        raise UserError(f"{caffemodel}: HDF5 holds weights without the settings of their layers: "
                        f"name the training net too: --initial-weights NET.prototxt,{caffemodel}")
    return caffemodel


def convert_momentum(solverstate: str | Path, prototxt: str | Path, caffemodel: str | Path
                     ) -> Momentum:
    """The momentum of a snapshot of SGD, by the names of our parameters.

    Args:
        prototxt: of the network, or `caffemodel` again where Caffe wrote it in a training.
        caffemodel: the weights of the same snapshot, whose layers are in the history's order.
    Raises:
        UserError: a file cannot be read, or the history is of another network or solver, or of a
            layer that becomes part of another here (a BatchNorm, a bias before BN).
    """
    state = read_solverstate(solverstate)
    places = {row.layer: row.place for row in convert_network(prototxt, caffemodel).rows}
    blobs = [(layer, k, blob) for layer, arrays in _layers(prototxt, caffemodel).items()
             for k, blob in enumerate(arrays)]
    if len(state.history) != len(blobs):
        kind = (": it is of AdaDelta or Adam, and PSPNet trains with SGD" if len(state.history)
                == 2 * len(blobs) else ": it is of another network")
        raise UserError(f"{solverstate}: needs a history of {counted(len(blobs), 'blob')}, one for "
                        f"each blob of {caffemodel}, it has {len(state.history)}{kind}; {_FRESH}")
    buffers = {}
    for at, ((layer, k, blob), array) in enumerate(zip(blobs, state.history)):
        where = f"{solverstate}: history {at}, of layer {layer!r}, blob {k}"
        if array.size != blob.size or _plain(array.shape) != _plain(blob.shape):
            raise UserError(f"{where}: has shape {array.shape}, must be {blob.shape} as in "
                            f"{caffemodel}: it is of another network; {_FRESH}")
        if not np.isfinite(array).all():
            raise UserError(f"{where}: not finite: the training had diverged; restore an earlier "
                            "snapshot")
        place = places.get(layer, "left out")
        if place == "left out":
            continue
        statistics = place.endswith(".bn") and k > 1
        if k > 3 or k > 1 and not statistics or statistics and array.any() or (
                k and place.endswith(".conv")) or f"{place}.scale" in buffers:
            raise UserError(f"{where}: has no place of its own in {place}: the layer becomes part "
                            f"of another here; {_FRESH}")
        if not statistics:
            name = f"{place}.{('weight', 'bias')[k]}"
            if name in buffers:
                raise UserError(f"{where}: a second layer for {name}; {_FRESH}")
            buffers[name] = array
    return Momentum(state.iteration, buffers)


def _layers(prototxt, caffemodel):
    """{layer: arrays} in the order of the network."""
    layers = {name: layer.blobs for name, layer in read_caffemodel(caffemodel).items()
              if layer.blobs}
    if not is_hdf5(caffemodel):
        return layers
    # HDF5 has them in alphabetical order.
    order = [node.name for node in Graph(prototxt).nodes if node.params]
    return {name: layers[name] for name in order if name in layers}


def _plain(shape):
    return [size for size in shape if size != 1]
