"""Fields of protobuf messages, written without a copy of what they hold."""

from collections.abc import Iterator


def field(number: int, *pieces: bytes | memoryview) -> Iterator[bytes | memoryview]:
    """The pieces of a field whose content is `pieces`, one after the other: its key, its length and
    they."""
    length = sum(memoryview(piece).nbytes for piece in pieces)
    yield _varint(number << 3 | 2) + _varint(length)
    yield from pieces


def _varint(number):
    bits = bytearray()
    while number > 127:
        bits.append(number & 127 | 128)
        number >>= 7
    return bytes([*bits, number])
