"""Files that people give as weights: {name: (bytes, what each is, words of the way on)}."""

import argparse
import bz2
import gzip
import io
import lzma
import pickle
import tarfile
import warnings
import zipfile

import numpy as np
import torch

STATE = {"conv.weight": torch.ones(2, 3, 3, 3)}
PROTOTXT = b'name: "net"\ninput: "data"\nlayer { name: "a" type: "ReLU" }\n'
# ModelProto: ir_version 8, producer_name, graph, opset_import.
ONNX = b"\x08\x08\x12\x07pytorch\x3a\x05graph\x42\x04\x0a\x00\x10\x0d"


class Settings:
    """What omegaconf's DictConfig and others are to a file of weights: a class."""


def saved(content, **how):
    buffer = io.BytesIO()
    torch.save(content, buffer, **how)
    return buffer.getvalue()


def _zip(*names):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, b"content")
    return buffer.getvalue()


def _tar(*names):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(name))
    return buffer.getvalue()


def _script():
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(torch.nn.Conv2d(1, 1, 1), torch.ones(1, 1, 2, 2)), buffer)
    return buffer.getvalue()


def _npz():
    buffer = io.BytesIO()
    np.savez(buffer, a=np.ones(2))
    return buffer.getvalue()


def _npy():
    buffer = io.BytesIO()
    np.save(buffer, np.ones(2))
    return buffer.getvalue()


FORMS = {
    "html": (b"\n<!DOCTYPE html>\n<html><body>Sign in</body></html>", "an HTML page",
             "the download failed: download the file itself again"),
    "html bare": (b"<html>\r\n<head><title>404 Not Found</title>", "an HTML page", "download"),
    "html mark": (b"\xef\xbb\xbf<!doctype HTML><title>", "an HTML page", "the download failed"),
    "html latin": (b"<html><title>pas trouv\xe9</title>", "an HTML page", "the download failed"),
    "xml": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "an XML page",
            "the download failed"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 9\n",
            "a git-LFS pointer", "git lfs pull"),
    "empty": (b"", "an empty file", "download or copy it again"),
    "zeros": (bytes(5000), "a file of zeros", "download or copy it again"),
    "gzip": (gzip.compress(b"x"), "a gzip archive", "unpack it"),
    "bzip2": (bz2.compress(b"x"), "a bzip2 archive", "unpack it"),
    "xz": (lzma.compress(b"x"), "an xz archive", "unpack it"),
    "zstd": (b"(\xb5/\xfd\x04\x00", "a zstd archive", "unpack it"),
    "7z": (b"7z\xbc\xaf\x27\x1c\x00\x04", "a 7z archive", "unpack it"),
    "rar": (b"Rar!\x1a\x07\x01\x00", "a rar archive", "unpack it"),
    "tar": (_tar("model/a.pth"), "a tar archive", "unpack it"),
    "old torch": (_tar("sys_info", "pickle"), "a PyTorch file of the old tar format", "state_dict"),
    "zip": (_zip("model/a.pth", "README"), "a zip archive", "unpack it"),
    "empty zip": (_zip(), "a zip archive", "unpack it"),
    "cut zip": (_zip("model/a.pth")[:40], "a zip archive that is damaged or cut short", "again"),
    "cut torch": (saved(STATE)[:-40], "a PyTorch file that is damaged or cut short",
                  "download or copy it again"),
    "torchscript": (_script(), "a TorchScript archive", "torch.jit.load("),
    "npz": (_npz(), "a NumPy archive", "it holds no weights"),
    "npy": (_npy(), "a NumPy array", "it holds no weights"),
    "png": (b"\x89PNG\r\n\x1a\n\0\0", "a PNG image", "it holds no weights"),
    "jpeg": (b"\xff\xd8\xff\xe0\0\x10JFIF", "a JPEG image", "it holds no weights"),
    "text": (b"some text\n", "a text", "it holds no weights"),
    "json": (b'{"weight_map": {"a": "model-1.safetensors"}}', "a text", "it holds no weights"),
    "yaml": (b"TRAIN:\n  arch: psp\n  base_lr: 0.01\n", "a text", "it holds no weights"),
    "prototxt": (PROTOTXT, "a prototxt", "convert {path} W.caffemodel -o OUT.safetensors"),
    "solver": (b'net: "net.prototxt"\nbase_lr: 0.01\n', "a solver of Caffe", "it holds no weights"),
    "onnx": (ONNX, "an ONNX model", "name the file that it was exported from"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + b"\0" * 90, "an HDF5 file", "snapshot_format: BINARYPROTO"),
    "keras": (b"\x89HDF\r\n\x1a\n" + b"\0" * 90 + b"layer_names\0", "a Keras file", "cannot be"),
    "pickle": (pickle.dumps({"a": np.ones(2)}), "a Python pickle that torch.save did not write",
               'save {{"state_dict": model.state_dict()}} alone'),
    "namespace": (saved({"state_dict": STATE, "args": argparse.Namespace(lr=1)}),
                  "a PyTorch file with objects of argparse.Namespace", "only tensors are read"),
    "old namespace": (saved({"args": argparse.Namespace()}, _use_new_zipfile_serialization=False),
                      "a PyTorch file with objects of argparse.Namespace", "only tensors are read"),
    "class": (saved({"state_dict": STATE, "cfg": Settings()}),
              f"a PyTorch file with objects of {__name__}.Settings",
              'save {{"state_dict": model.state_dict()}} alone with the program that wrote it'),
    "numpy": (saved({"a": np.ones(2)}), "a PyTorch file with objects of numpy.ndarray", "only ten"),
    "numpy number": (saved({"best": np.float64(1)}), "a PyTorch file with objects of numpy.generic",
                     "only tensors are read"),
    "module": (saved(torch.nn.Conv2d(1, 1, 1)),
               "a PyTorch file with objects of torch.nn.modules.conv.Conv2d", "only tensors"),
    "list": (saved([1, 2]), "a PyTorch file that holds a list", "only tensors are read"),
    "tensor": (saved(torch.ones(2)), "a PyTorch file that holds a Tensor", "only tensors are"),
    "no tensors": (saved({"epoch": 3, "lr": 0.1}),
                   "a PyTorch file without tensors (it holds 'epoch', 'lr')", "only tensors are"),
    "gan": (saved({"g": STATE, "d": STATE}),
            "a PyTorch file with tensors of several networks ('g', 'd')", "only tensors are read"),
    "nothing": (saved({}), "a PyTorch file without tensors (it holds nothing)", "only tensors"),
    "unknown": (bytes(range(7, 200)), "a file of no known kind", "name a file of train")}
