"""Solverstates: the state of a solver that Caffe writes beside a caffemodel."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from google.protobuf.message import DecodeError

from prototxt_import.format import caffe_pb2
from prototxt_import.format.blobs import array_of, blob_of
from prototxt_import.format.hdf5 import hdf5_state_writer, is_hdf5, read_hdf5_state
from prototxt_import.format.wire import iterate_fields
from pspnet_repro.errors import UserError, first_line
from pspnet_repro.files import write_bytes
from pspnet_repro.weights import recognize

_ITER, _LEARNED_NET, _HISTORY, _CURRENT_STEP = 1, 2, 3, 4
_WAY = ("name the .solverstate that Caffe writes beside each snapshot's caffemodel, for its "
        "weights are found through it")


class SolverState(NamedTuple):
    """What a solverstate holds.

    Attributes:
        iteration: steps taken.
        learned_net: path of the caffemodel with the weights, as the writer named it, or "".
        history: float32 arrays, one for each parameter of the net in its order, those that never
            learn included; of AdaDelta and Adam two rounds of them.
        current_step: steps of the rate that were taken: stepvalues passed, or stepsizes.
    """

    iteration: int
    learned_net: str
    history: list[np.ndarray]
    current_step: int = 0


def read_solverstate(path: Path | str) -> SolverState:
    """Read a solverstate, binary or HDF5.

    Raises:
        UserError: no such file, a damaged one, another kind of file, or a history whose numbers do
            not fill its shape.
    """
    if is_hdf5(path):
        iteration, learned_net, current_step, history = read_hdf5_state(path)
    else:
        iteration, learned_net, current_step, history = _read_binary(path)
    if not 0 <= iteration < 2 ** 31 or current_step < 0:
        raise UserError(f"{path}: iter must be 0 to 2^31 - 1 and current_step at least 0, got "
                        f"{iteration} and {current_step}: it is damaged, copy it again")
    return SolverState(iteration, learned_net, history, current_step)


def _read_binary(path):
    iteration, learned_net, current_step, history = None, b"", 0, []
    for number, value in iterate_fields(
            path, "a solverstate", (recognize.SOLVERSTATE,),
            {_ITER: int, _LEARNED_NET: bytes, _HISTORY: bytes, _CURRENT_STEP: int}, _WAY):
        if number == _ITER:
            iteration = value
        elif number == _LEARNED_NET:
            learned_net = value
        elif number == _CURRENT_STEP:
            current_step = value
        else:
            try:
                history.append(array_of(caffe_pb2.WeightsBlob.FromString(value)))
            except (DecodeError, ValueError) as error:
                raise UserError(f"{path}: history {len(history)}: {first_line(error)}") from error
    if iteration is None:
        raise UserError(f"{path}: not a solverstate: it has no iter: {_WAY}")
    return iteration, os.fsdecode(learned_net), current_step, history


def write_solverstate(path: Path | str, state: SolverState) -> None:
    """Write a SolverState, atomically, with the bytes that Caffe would write.

    Args:
        path: the file; HDF5 where its name ends in .h5, else binary.
    Raises:
        UserError: the file cannot be written.
    """
    write_bytes(path, solverstate_writer(path, state))


def solverstate_writer(path: Path | str, state: SolverState) -> Callable[[BinaryIO], None]:
    """A function that writes what `write_solverstate` writes to a binary file."""
    if str(path).endswith(".h5"):
        return hdf5_state_writer(path, state.iteration, state.learned_net, state.current_step,
                                 state.history)

    def write(file):
        file.write(caffe_pb2.SolverState(
            iter=state.iteration,
            learned_net=os.fsencode(state.learned_net)).SerializeToString())
        for array in state.history:
            one = caffe_pb2.SolverState(history=[blob_of(array).SerializeToString()])
            file.write(one.SerializeToString())
        file.write(caffe_pb2.SolverState(current_step=state.current_step).SerializeToString())

    return write
