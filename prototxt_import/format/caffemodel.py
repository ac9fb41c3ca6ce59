"""Caffemodel files: names, types and blobs of layers, read in place and written."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from google.protobuf.message import DecodeError

from prototxt_import.format import caffe_pb2, v1
from prototxt_import.format.blobs import array_of, blob_pieces
from prototxt_import.format.hdf5 import hdf5_layers_writer, is_hdf5, iterate_hdf5_layers
from prototxt_import.format.wire import iterate_fields
from pspnet_repro.errors import UserError, first_line
from pspnet_repro.files import write_bytes
from pspnet_repro.protobuf import field
from pspnet_repro.weights import recognize
from pspnet_repro.words import counted

_V1_LAYERS, _LAYERS = 2, 100  # fields of NetParameter
_BLOBS = 7  # of LayerParameter


class LayerWeights(NamedTuple):
    """Type of a layer, as the file spells it, and its blobs: float32 arrays, read-only."""

    type: str
    blobs: list[np.ndarray]


def read_caffemodel(path: Path | str) -> dict[str, LayerWeights]:
    """Read the layers of a caffemodel.

    The file may be binary, of any version of Caffe, or HDF5, whose layers come in alphabetical
    order and without types. Shapes may have the new or the legacy form, numbers be packed or not,
    float or double.

    Returns:
        {layer name: LayerWeights} in the file's order; layers without blobs are in it too. Arrays
        are views of the file's bytes where these are packed floats.
    Raises:
        UserError: no such file, a damaged one, a blob whose numbers do not fill
            its shape, or two layers of one name with blobs.

    A NaN in a blob is warned of.
    """
    layers = {}
    for name, layer in iterate_caffemodel(path):
        layers.setdefault(name, layer)
    return layers


def iterate_caffemodel(path: Path | str) -> Iterator[tuple[str, LayerWeights]]:
    """(name, LayerWeights) of every layer, as `read_caffemodel`; one at a time is in memory."""
    seen, with_nan = {}, []
    layers = (iterate_hdf5_layers(path) if is_hdf5(path) else
              _binary_layers(path))
    for name, kind, blobs in layers:
        if name in seen and (blobs or seen[name]):
            raise UserError(f"{path}: layer {name!r} is there twice")
        seen.setdefault(name, bool(blobs))
        if any(np.isnan(array).any() for array in blobs):
            with_nan.append(name)
        yield name, LayerWeights(kind, blobs)
    if with_nan:
        warnings.warn(f"{path}: NaN in the blobs of {counted(len(with_nan), 'layer')}, first in "
                      f"{with_nan[0]!r}", stacklevel=2)


def _binary_layers(path):
    """(name, type, blobs) of the layers of a binary file."""
    name, form = None, None
    for number, data in iterate_fields(
            path, "a caffemodel", (recognize.CAFFEMODEL, recognize.OLD_CAFFEMODEL),
            {_V1_LAYERS: bytes, _LAYERS: bytes}):
        if form not in (None, number):
            raise UserError(f"{path}: has layers of the first format (V1) and of the present one, "
                            "of which Caffe would drop one kind: save it with Caffe again")
        form = number
        try:
            if number == _V1_LAYERS:
                name, kind, protos = v1.weights_of(data)
            else:
                layer = caffe_pb2.WeightsLayer.FromString(data)
                name, kind, protos = layer.name, layer.type, layer.blobs
        except (DecodeError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: damaged after layer {name!r}: {first_line(error)}") from error
        if not (isinstance(name, str) and isinstance(kind, str)):
            raise UserError(f"{path}: name and type of a layer must be text in UTF-8, got {name!r} "
                            f"and {kind!r}: rename it with the program that wrote the file")
        del data  # a large layer would else be in memory three times
        blobs = []
        for k, blob in enumerate(protos):
            try:
                blobs.append(array_of(blob))
            except (DecodeError, ValueError) as error:
                raise UserError(f"{path}: layer {name!r}, blob {k}: {first_line(error)}") from error
        layer = protos = blob = None
        yield name, kind, blobs
    if form is None:
        raise UserError(f"{path}: not a caffemodel: it holds no layers")


def write_caffemodel(path: Path | str, name: str,
                     layers: Mapping[str, tuple[str, Sequence[np.ndarray]]]) -> None:
    """Write a caffemodel, atomically: HDF5 where its name ends in .h5, else binary.

    `name` is the network's.

    Raises:
        UserError: the file cannot be written, or HDF5 cannot hold the layers.
    """
    write_bytes(path, hdf5_layers_writer(path, layers) if str(path).endswith(".h5") else
                caffemodel_writer(name, layers))


def caffemodel_writer(
        name: str,
        layers: Mapping[str, tuple[str, Sequence[np.ndarray]]]) -> Callable[[BinaryIO], None]:
    """A function that writes what `write_caffemodel` writes to a binary file."""
    def write(file):
        # Messages one after the other are one message.
        file.write(caffe_pb2.WeightsFile(name=name).SerializeToString())
        for layer_name, (kind, blobs) in layers.items():
            layer = caffe_pb2.WeightsLayer(name=layer_name, type=kind).SerializeToString()
            file.writelines(field(_LAYERS, layer, *(piece for blob in blobs for piece in field(
                _BLOBS, *blob_pieces(blob)))))

    return write
