"""Caffemodel files: names, types and blobs of layers, read in place and written."""

import math
import os
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

from prototxt_import.format import caffe_pb2
from pspnet_repro.errors import UserError, first_line
from pspnet_repro.files import refuse_pipe, write_bytes
from pspnet_repro.weights import recognize
from pspnet_repro.words import counted

# Bytes after the key by wire type; 0: a length follows.
_FIXED = {1: 8, 2: 0, 5: 4}


class LayerWeights(NamedTuple):
    """Type of a layer, as the file spells it, and its blobs: float32 arrays, read-only."""

    type: str
    blobs: list


def read_caffemodel(path):
    """Read the layers of a binary caffemodel.

    Args:
        path: the file; shapes in the new or the legacy form, numbers packed or not, float or
            double.
    Returns:
        A dictionary from layer name to LayerWeights, in the file's order; layers without blobs
        are in it too. Arrays are views of the file's bytes where these are packed floats.
    Raises:
        UserError: no such file, a damaged one, V1 or HDF5 format, a blob whose numbers do not fill
            its shape, or two layers of one name with blobs.

    A NaN in a blob is warned of.
    """
    layers = {}
    for name, layer in iterate_caffemodel(path):
        layers.setdefault(name, layer)
    return layers


def iterate_caffemodel(path):
    """(name, LayerWeights) of every layer, as `read_caffemodel`; one at a time is in memory."""
    seen, with_nan = {}, []
    for data in _layer_bytes(path):
        try:
            layer = caffe_pb2.WeightsLayer.FromString(data)
            del data  # a large layer would else be in memory three times
            name, kind = layer.name, layer.type
        except (DecodeError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: damaged after layer {next(reversed(seen), None)!r}: "
                            f"{first_line(error)}") from error
        blobs = []
        for k, blob in enumerate(layer.blobs):
            try:
                blobs.append(_array(blob))
            except (DecodeError, ValueError) as error:
                raise UserError(f"{path}: layer {name!r}, blob {k}: {first_line(error)}") from error
        if name in seen and (blobs or seen[name]):
            raise UserError(f"{path}: layer {name!r} is there twice")
        seen.setdefault(name, bool(blobs))
        if any(np.isnan(array).any() for array in blobs):
            with_nan.append(name)
        layer = blob = None
        yield name, LayerWeights(kind, blobs)
    if with_nan:
        warnings.warn(f"{path}: NaN in the blobs of {counted(len(with_nan), 'layer')}, first in "
                      f"{with_nan[0]!r}", stacklevel=2)


def write_caffemodel(path, name, layers):
    """Write a binary caffemodel, atomically.

    Args:
        path: the file.
        name: of the network.
        layers: a mapping as `read_caffemodel` returns it: layer name -> (type, arrays).
    Raises:
        UserError: the file cannot be written.
    """
    write_bytes(path, caffemodel_writer(name, layers))


def caffemodel_writer(name, layers):
    """A function that writes what `write_caffemodel` writes to a binary file."""
    def write(file):
        # Messages one after the other are one message, so only a layer at a time is in memory.
        file.write(caffe_pb2.WeightsFile(name=name).SerializeToString())
        for layer_name, (kind, blobs) in layers.items():
            layer = caffe_pb2.WeightsLayer(name=layer_name, type=kind)
            for array in blobs:
                array = np.asarray(array)
                layer.blobs.add(data=[np.ascontiguousarray(array, "<f4").tobytes()],
                                shape=caffe_pb2.BlobShape(dim=array.shape))
            one = caffe_pb2.WeightsFile(layer=[layer.SerializeToString()])
            file.write(one.SerializeToString())

    return write


def _layer_bytes(path):
    """The serialized layers of a file, one at a time: the file is never whole in memory."""
    refuse_pipe(path)
    try:
        with Path(path).open("rb") as file:
            yield from _read_layers(file, path)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {first_line(error)}") from error


def _read_layers(file, path):
    size = os.fstat(file.fileno()).st_size
    kind = recognize.kind_of(file)
    if kind not in (recognize.CAFFEMODEL, recognize.UNKNOWN):
        raise UserError(recognize.sentence(path, kind))
    file.seek(0)
    layers = 0
    while file.tell() < size:
        key = _varint(file, path)
        field, wire_type = key >> 3, key & 7
        if wire_type == 0:
            _varint(file, path)
            continue
        if wire_type not in _FIXED:
            raise UserError(f"{path}: not a caffemodel, or damaged at byte {file.tell()}")
        length = _FIXED[wire_type] or _varint(file, path)
        left = size - file.tell()
        if length > left:
            raise UserError(f"{path}: not a caffemodel, or cut short: byte {file.tell()} promises "
                            f"{length} bytes, {left} are left")
        if (field, wire_type) == (2, 2):
            raise UserError(recognize.sentence(path, recognize.OLD_CAFFEMODEL))
        if (field, wire_type) == (100, 2):
            layers += 1
            yield file.read(length)
        else:
            file.seek(length, os.SEEK_CUR)
    if not layers:
        raise UserError(f"{path}: not a caffemodel: it holds no layers")


def _varint(file, path):
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            raise UserError(f"{path}: not a caffemodel, or cut short")
        value |= (byte[0] & 127) << shift
        if byte[0] < 128:
            return value
    raise UserError(f"{path}: not a caffemodel, or damaged at byte {file.tell()}")


def _shape(blob):
    legacy = ("num", "channels", "height", "width")
    if any(blob.HasField(name) for name in legacy):
        shape = tuple(getattr(blob, name) for name in legacy)
    else:
        shape = tuple(blob.shape.dim)
    if len(shape) > 32 or any(size < 0 for size in shape):
        raise ValueError(f"its shape must be at most 32 sizes, each at least 0, got {shape[:33]}")
    return shape


def _array(blob):
    shape = _shape(blob)
    count = math.prod(shape)
    double = bool(blob.double_data)
    pieces = list(blob.double_data if double else blob.data)
    size = sum(len(piece) for piece in pieces)
    stray = any(field.field_number in (5, 8) for field in UnknownFieldSet(blob))
    if not stray and size == count * (8 if double else 4):
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        array = np.frombuffer(data, "<f8" if double else "<f4").astype(np.float32, copy=False)
        return array.reshape(shape)
    # Numbers that are not packed are unknown to the message that takes them for bytes.
    unpacked = caffe_pb2.WeightsBlobUnpacked.FromString(blob.SerializeToString())
    numbers = unpacked.double_data or unpacked.data
    if len(numbers) != count:
        raise ValueError(f"{counted(len(numbers), 'number')} for shape {shape}")
    return np.fromiter(numbers, np.float32, count).reshape(shape)
