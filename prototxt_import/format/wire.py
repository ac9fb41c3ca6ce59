"""Protobuf's wire format: the fields of a binary file, one at a time."""

import os
from collections.abc import Container, Iterator, Mapping
from pathlib import Path

from pspnet_repro.errors import UserError, first_line
from pspnet_repro.files import refuse_pipe
from pspnet_repro.weights import recognize

# Bytes after the key by wire type; 0: a length follows.
_FIXED = {1: 8, 2: 0, 5: 4}


def iterate_fields(path: Path | str, what: str, kinds: Container[recognize.Kind],
                   wanted: Mapping[int, type], way: str | None = None
                   ) -> Iterator[tuple[int, bytes | int]]:
    """(number, value) of the fields of a binary file, which is never whole in memory.

    Args:
        path: the file.
        what: it must be, such as "a caffemodel".
        kinds: the Kinds of recognize that it may be; what no Kind is known for may be any.
        wanted: {number: bytes, or int for a varint} of the fields that are read; others are
            skipped.
        way: what to do with a file of another Kind; None: what the Kind says.
    Raises:
        UserError: no such file, another kind of file, one that is cut short, or a field that is
            wanted and of another type.
    """
    refuse_pipe(path)
    try:
        with Path(path).open("rb") as file:
            kind = recognize.kind_of(file)
            if kind not in kinds and kind != recognize.UNKNOWN:
                raise UserError(recognize.sentence(path, kind._replace(way=way or kind.way)))
            file.seek(0)
            yield from _fields(file, path, what, wanted)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {first_line(error)}") from error


def _fields(file, path, what, wanted):
    size = os.fstat(file.fileno()).st_size
    while file.tell() < size:
        key = _varint(file, path, what)
        number, wire_type = key >> 3, key & 7
        if number in wanted and wire_type != (0 if wanted[number] is int else 2):
            raise UserError(f"{path}: not {what}, or damaged: field {number} before byte "
                            f"{file.tell()} is of another type")
        if wire_type == 0:
            value = _varint(file, path, what)
            if number in wanted:
                yield number, value
            continue
        if wire_type not in _FIXED:
            raise UserError(f"{path}: not {what}, or damaged at byte {file.tell()}")
        length = _FIXED[wire_type] or _varint(file, path, what)
        left = size - file.tell()
        if length > left:
            raise UserError(f"{path}: not {what}, or cut short: byte {file.tell()} promises "
                            f"{length} bytes, {left} are left")
        if number in wanted:
            yield number, file.read(length)
        else:
            file.seek(length, os.SEEK_CUR)


def _varint(file, path, what):
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            raise UserError(f"{path}: not {what}, or cut short")
        value |= (byte[0] & 127) << shift
        if byte[0] < 128:
            return value
    raise UserError(f"{path}: not {what}, or damaged at byte {file.tell()}")
