"""What a file is that was given as weights: told by its first bytes, or by the names in it."""

import codecs
import os
import re
import zipfile
from pathlib import Path
from typing import BinaryIO, NamedTuple

from pspnet_repro.weights.names import CONVERT, OTHER, has_tensors, network_of, state_dict_of

_HEAD = 4096
_FIELDS = 12  # of a protobuf message, that are looked at


class Kind(NamedTuple):
    """A short noun phrase for a file, and what can be done about it; FILE stands for its path."""

    what: str
    way: str


_AGAIN = "download or copy it again"
_FAILED = "the download failed: download the file itself again"
_UNPACK = "unpack it and name the file of weights in it"
_NAME = "it holds no weights; name a file of train or of pspnet convert"
_BINARY = "Caffe did not write it, or it is damaged: save it with snapshot_format: BINARYPROTO"
_CONVERT = "pspnet convert NET.prototxt W.caffemodel -o OUT.safetensors"
_TENSORS = ('only tensors are read from files of other programs; save {"state_dict": '
            "model.state_dict()} alone with the program that wrote it")

PYTORCH = Kind("a PyTorch file", f"if a PSPNet or ResNet is in it, {CONVERT}")
SAFETENSORS = Kind("a safetensors file", PYTORCH.way)
CAFFEMODEL = Kind("a caffemodel", "convert it first: " + _CONVERT.replace("W.caffemodel", "FILE"))
OLD_CAFFEMODEL = Kind("a caffemodel of the first format (V1 'layers')", CAFFEMODEL.way)
HDF5_CAFFEMODEL = Kind("an HDF5 caffemodel", CAFFEMODEL.way)
CAFFEMODELS = CAFFEMODEL, OLD_CAFFEMODEL, HDF5_CAFFEMODEL
SOLVERSTATE = Kind("a solverstate of Caffe", "it holds no weights; its caffemodel does")
HDF5_SOLVERSTATE = Kind("an HDF5 solverstate", SOLVERSTATE.way)
PROTOTXT = Kind("a prototxt", "it holds no weights; they are in its caffemodel: "
                + _CONVERT.replace("NET.prototxt", "FILE"))
SOLVER = Kind("a solver of Caffe", "it holds no weights; name its network and the weights of that: "
              "NET.prototxt,W.caffemodel")
TEXT = Kind("a text", _NAME)
UNKNOWN = Kind("a file of no known kind", "name a file of train or of pspnet convert")

_STARTS = (
    (b"version https://git-lfs", Kind("a git-LFS pointer", "fetch the file that it stands for: "
                                                           "git lfs pull")),
    (b"\x1f\x8b", Kind("a gzip archive", _UNPACK)), (b"BZh", Kind("a bzip2 archive", _UNPACK)),
    (b"\xfd7zXZ", Kind("an xz archive", _UNPACK)), (b"(\xb5/\xfd", Kind("a zstd archive", _UNPACK)),
    (b"7z\xbc\xaf", Kind("a 7z archive", _UNPACK)), (b"Rar!", Kind("a rar archive", _UNPACK)),
    (b"\x93NUMPY", Kind("a NumPy array", _NAME)), (b"%PDF", Kind("a PDF document", _NAME)),
    (b"\x89PNG", Kind("a PNG image", _NAME)), (b"\xff\xd8\xff", Kind("a JPEG image", _NAME)),
    (b"MATLAB 5.0", Kind("a MATLAB file", _NAME)))


def refusal(path: Path | str, content: object = None) -> str:
    """The sentence with which a file is refused: what it is, and what can be done. Arguments and
    errors as in `kind_at`."""
    return sentence(path, kind_at(path, content))


def sentence(path: Path | str, kind: Kind) -> str:
    """The refusal of a file whose Kind is known."""
    return f"{path}: this is {kind.what}: {kind.way.replace('FILE', str(path))}"


def kind_at(path: Path | str, content: object = None) -> Kind:
    """The Kind of a file or folder.

    Args:
        path: of a file the first bytes are read, and an archive's list of names.
        content: what was loaded from it, where it holds tensors; their names then tell more.
    Raises:
        OSError: the file cannot be read.
    """
    if os.path.isdir(path):
        weights = Path(path) / "weights.pt"
        return Kind("a folder", f"name {weights}" if weights.is_file() else
                    "name the file of weights in it")
    with open(path, "rb") as file:
        form = kind_of(file)
    return form if content is None else kind_of_content(content, form)


def kind_of(file: BinaryIO) -> Kind:
    """The Kind of an open file, or of bytes in io.BytesIO, by its form alone."""
    head = file.read(_HEAD)
    size = file.seek(0, os.SEEK_END)
    if not head:
        return Kind("an empty file", _AGAIN)
    if not any(head):
        return Kind("a file of zeros", f"a download or a copy that was never filled: {_AGAIN}")
    for start, kind in _STARTS:
        if head.startswith(start):
            return kind
    start = head.lstrip(b"\xef\xbb\xbf\t\r\n ").lower()
    if start.startswith((b"<!doctype", b"<html", b"<head", b"<body", b"<script", b"<!--",
                         b"<?xml")):
        xml = start.startswith(b"<?xml") and b"<html" not in start
        return Kind("an XML page" if xml else "an HTML page", _FAILED)
    if head.startswith(b"PK"):
        return _kind_of_zip(file, head)
    if head[0] == 0x80 and head[1:2] in (b"\2", b"\3", b"\4", b"\5"):
        # What torch.save began with before it wrote zip archives: 0x1950a86a20f9469cfc6c.
        old = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19" in head[:32]
        return PYTORCH if old else Kind("a Python pickle that torch.save did not write", _TENSORS)
    if head[257:262] == b"ustar":
        old = head[:100].rstrip(b"\0") in (b"sys_info", b"storages", b"tensors", b"pickle")
        return (Kind("a PyTorch file of the old tar format", _TENSORS) if old else
                Kind("a tar archive", _UNPACK))
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return _kind_of_hdf5(head)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2 ** 32:
        return SAFETENSORS
    return _kind_of_text(head) or _kind_of_protobuf(file, size) or UNKNOWN


def _kind_of_zip(file, head):
    try:
        with zipfile.ZipFile(file) as archive:
            names = [name.rpartition("/")[2] for name in archive.namelist()]
    except (zipfile.BadZipFile, OSError, ValueError, RuntimeError, NotImplementedError):
        form = "PyTorch file" if b"data.pkl" in head else "zip archive"
        return Kind(f"a {form} that is damaged or cut short", _AGAIN)
    if "constants.pkl" in names:
        return Kind("a TorchScript archive", 'save its tensors alone: torch.save({"state_dict": '
                    'torch.jit.load("FILE").state_dict()}, "OUT.pth")')
    if "data.pkl" in names:
        return PYTORCH
    if names and all(name.endswith(".npy") for name in names):
        return Kind("a NumPy archive", _NAME)
    return Kind("a zip archive", _UNPACK)


def _kind_of_hdf5(head):
    if b"learned_net\0" in head:
        return HDF5_SOLVERSTATE
    if b"layer_names\0" in head or b"keras" in head:
        return Kind("a Keras file", OTHER)
    return HDF5_CAFFEMODEL if b"data\0" in head else Kind("an HDF5 file", _BINARY)


def _kind_of_text(head):
    try:
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(head)
    except UnicodeDecodeError:
        return None
    if not all(character.isprintable() or character.isspace() for character in text):
        return None
    if re.search(r"^\s*(layers?\s*{|input(_dim)?\s*:|(train_)?net\s*:\s*[\"'])", text, re.M):
        return SOLVER if re.search(r"^\s*(base_lr|lr_policy)\s*:", text, re.M) else PROTOTXT
    return TEXT


def _kind_of_protobuf(file, size):
    fields = dict(_protobuf_fields(file, size))
    if fields.get((100, 2), b"")[:1] == b"\n":
        return CAFFEMODEL
    if {(1, 2), (2, 2)} <= fields.keys():
        return OLD_CAFFEMODEL
    if (1, 0) in fields and (b".caffemodel" in fields.get((2, 2), b"") or (3, 2) in fields
                             and (7, 2) not in fields):
        return SOLVERSTATE
    if (1, 0) in fields and (7, 2) in fields:
        return Kind("an ONNX model", "it cannot be loaded: name the file that it was exported from")
    return None


def _protobuf_fields(file, size):
    """((number, wire type), first bytes) of the first fields of a message."""
    file.seek(0)
    for _ in range(_FIELDS):
        key = _varint(file)
        length = {1: 8, 5: 4}.get(key & 7, 0)
        if key & 7 in (0, 2):
            value = _varint(file)
            length = value if key & 7 == 2 else 0
        start = file.tell()
        if not key or key & 7 in (3, 4, 6, 7) or start >= size:
            return
        yield (key >> 3, key & 7), file.read(min(length, 64))
        file.seek(min(start + length, size))


def _varint(file):
    """A number of protobuf; 0 where the file ends."""
    value = shift = 0
    while (byte := file.read(1)) and shift < 70:
        value |= (byte[0] & 127) << shift
        if byte[0] < 128:
            return value
        shift += 7
    return 0


def with_objects(error: Exception) -> Kind:
    """The Kind of a PyTorch file that torch's reader of plain tensors refuses with an error."""
    name = re.search(r"(?:GLOBAL|unsupported class) (\S+)", str(error))
    if name is None:
        return Kind("a PyTorch file that is damaged, or holds more than tensors", _TENSORS)
    words = {"_reconstruct": "numpy.ndarray", "scalar": "numpy.generic"}.get(
        name[1].rpartition(".")[2]) if "numpy" in name[1] else None
    return Kind(f"a PyTorch file with objects of {words or name[1][:80]}", _TENSORS)


def kind_of_content(content: object, form: Kind = PYTORCH) -> Kind:
    """The Kind of what was loaded from a file of a form, PYTORCH or SAFETENSORS."""
    if not isinstance(content, dict):
        return Kind(f"{form.what} that holds a {type(content).__name__}", _TENSORS)
    if {"settings", "weights"} <= content.keys():
        return Kind("a file of this program", _NAME)
    state, places = state_dict_of(content)
    if not has_tensors(state):
        held = ", ".join(repr(str(key)[:40]) for key in list(content)[:5])
        if sum(map(has_tensors, content.values())) > 1:
            return Kind(f"{form.what} with tensors of several networks ({held})", _TENSORS)
        return Kind(f"{form.what} without tensors (it holds {held or 'nothing'})", _TENSORS)
    whose, way = network_of(state)
    place = f" ({places})" if places else ""
    return Kind(f"{form.what.removesuffix(' file')} state dict with names of {whose}{place}", way)
