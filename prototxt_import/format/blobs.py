"""BlobProtos, the arrays of caffemodels and solverstates."""

import math

import numpy as np
from google.protobuf.unknown_fields import UnknownFieldSet

from prototxt_import.format import caffe_pb2
from pspnet_repro.protobuf import field
from pspnet_repro.words import counted

_DATA = 5  # a field of BlobProto


def blob_of(array: np.ndarray) -> caffe_pb2.WeightsBlob:
    """The BlobProto of an array, as Caffe writes it: a WeightsBlob of packed float32."""
    return caffe_pb2.WeightsBlob.FromString(b"".join(blob_pieces(array)))


def blob_pieces(array: np.ndarray) -> list[bytes | memoryview]:
    """The bytes of `blob_of` in pieces, without a copy of a float32 array."""
    array = np.asarray(array)
    shape = caffe_pb2.WeightsBlob(shape=caffe_pb2.BlobShape(dim=array.shape))
    numbers = np.ascontiguousarray(array, "<f4").reshape(-1).data
    return [*field(_DATA, numbers), shape.SerializeToString()]


def _shape(blob):
    legacy = ("num", "channels", "height", "width")
    if any(blob.HasField(name) for name in legacy):
        shape = tuple(getattr(blob, name) for name in legacy)
    else:
        shape = tuple(blob.shape.dim)
    if len(shape) > 32 or any(size < 0 for size in shape):
        raise ValueError(f"its shape must be at most 32 sizes, each at least 0, got {shape[:33]}")
    return shape


def array_of(blob: caffe_pb2.WeightsBlob) -> np.ndarray:
    """The float32 array of a WeightsBlob, a view of its bytes where these are packed floats.

    Raises:
        ValueError: its numbers do not fill its shape.
        DecodeError: its numbers cannot be read.
    """
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
