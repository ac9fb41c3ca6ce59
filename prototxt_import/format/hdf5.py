"""Caffe's HDF5 files: caffemodels and solverstates, as snapshot_format: HDF5 makes them."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from pspnet_repro.errors import UserError, first_line
from pspnet_repro.files import refuse_pipe
from pspnet_repro.weights import recognize

_MAGIC = b"\x89HDF\r\n\x1a\n"


def is_hdf5(path: Path | str) -> bool:
    """Whether a file begins as HDF5 does; False for what cannot be read.

    Raises:
        UserError: a pipe, which may never give anything.
    """
    refuse_pipe(path)
    try:
        with open(path, "rb") as file:
            return file.read(len(_MAGIC)) == _MAGIC
    except (OSError, ValueError):
        return False


def _h5py(path):
    try:
        import h5py
    except ImportError as error:
        raise UserError(f"{path}: HDF5 needs h5py: pip install -r requirements-hdf5.txt, or let "
                        "Caffe write snapshot_format: BINARYPROTO") from error
    return h5py


@contextlib.contextmanager
def _opened(path, group):
    """The open file; UserError where it is damaged or has no such group."""
    h5py = _h5py(path)
    try:
        with h5py.File(path, "r") as file:
            if not isinstance(file.get(group), h5py.Group):
                with open(path, "rb") as plain:
                    raise UserError(recognize.sentence(path, recognize.kind_of(plain)))
            yield file
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise UserError(f"{path}: not HDF5 as Caffe writes it, or damaged: {first_line(error)}: "
                        "copy it again, or save it with snapshot_format: BINARYPROTO") from error


def _array(dataset):
    return np.asarray(dataset, np.float32).reshape(dataset.shape)


def iterate_hdf5_layers(path: Path | str) -> Iterator[tuple[str, str, list[np.ndarray]]]:
    """(name, "", arrays) of the layers of an HDF5 caffemodel, in alphabetical order.

    Raises:
        UserError: h5py is not installed, or the file is damaged or another kind of HDF5 file.
    """
    with _opened(path, "data") as file:
        for name, layer in file["data"].items():
            yield name, "", [_array(layer[str(k)]) for k in range(len(layer))]


def hdf5_layers_writer(
        path: Path | str,
        layers: Mapping[str, tuple[str, Sequence[np.ndarray]]]) -> Callable[[BinaryIO], None]:
    """A function that fills an open file with layers: a mapping {name: (type, arrays)}.

    Raises:
        UserError: h5py is not installed, or a name has a slash.
    """
    h5py = _h5py(path)
    for name in layers:
        if "/" in name:
            raise UserError(f"{path}: layer {name!r}: HDF5 cannot hold a layer with a slash in "
                            "its name, in Caffe neither: save it with snapshot_format: "
                            "BINARYPROTO, or rename the layer")

    def write(output):
        with h5py.File(output, "w") as file:
            data = file.create_group("data")
            for name, (_, arrays) in layers.items():
                layer = data.create_group(name)
                for k, array in enumerate(arrays):
                    layer.create_dataset(str(k), data=np.asarray(array, "<f4"))

    return write


def read_hdf5_state(path: Path | str) -> tuple[int, str, int, list[np.ndarray]]:
    """(iter, learned_net or "", current_step, arrays of the history) of an HDF5 solverstate.

    Raises:
        UserError: h5py is not installed, or the file is damaged or another kind of HDF5 file.
    """
    with _opened(path, "history") as file:
        history = file["history"]
        learned_net = np.asarray(file["learned_net"]).item() if "learned_net" in file else b""
        return (int(np.asarray(file["iter"]).item()), learned_net.decode(errors="surrogateescape"),
                int(np.asarray(file["current_step"]).item()),
                [_array(history[str(k)]) for k in range(len(history))])


def hdf5_state_writer(path: Path | str, iteration: int, learned_net: str, current_step: int,
                      arrays: Sequence[np.ndarray]) -> Callable[[BinaryIO], None]:
    """A function that fills an open file with a solverstate.

    Raises:
        UserError: h5py is not installed.
    """
    h5py = _h5py(path)
    text = learned_net.encode(errors="surrogateescape") + b"\0"

    def write(output):
        with h5py.File(output, "w") as file:
            file.create_dataset("iter", data=np.asarray([iteration], "<i4"))
            # A string that ends with a zero byte, which h5py's own are not.
            kind = h5py.h5t.C_S1.copy()
            kind.set_size(len(text))
            h5py.h5d.create(file.id, b"learned_net", kind, h5py.h5s.create(h5py.h5s.SCALAR)).write(
                h5py.h5s.ALL, h5py.h5s.ALL, np.asarray(text, f"S{len(text)}"), kind)
            file.create_dataset("current_step", data=np.asarray([current_step], "<i4"))
            history = file.create_group("history")
            for k, array in enumerate(arrays):
                history.create_dataset(str(k), data=np.asarray(array, "<f4"))

    return write
