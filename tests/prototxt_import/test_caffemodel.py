"""Caffemodel files: every way to store a blob, damaged files, size and time, writing."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from helpers.paths import ROOT

from prototxt_import import read_caffemodel, write_caffemodel
from prototxt_import.format.caffe_pb2 import (
    BlobShape,
    WeightsBlob,
    WeightsBlobUnpacked,
    WeightsFile,
    WeightsLayer,
)
from pspnet_repro.errors import UserError

VALUES = np.arange(6, dtype=np.float32).reshape(2, 3) / 7


def _file(tmp_path, *blobs, kind="Convolution", name="a"):
    """A caffemodel of one layer, from blobs serialized or as messages."""
    layer = WeightsLayer(name=name, type=kind)
    for blob in blobs:
        layer.blobs.add().MergeFromString(blob if isinstance(blob, bytes)
                                          else blob.SerializeToString())
    path = tmp_path / "w.caffemodel"
    path.write_bytes(WeightsFile(name="n", layer=[layer.SerializeToString()]).SerializeToString())
    return path


def _read_one(path):
    (_, (blob,)), = read_caffemodel(path).values()
    assert blob.dtype == np.float32
    return blob


SHAPE = BlobShape(dim=[2, 3])
STORED = {
    "packed": WeightsBlob(shape=SHAPE, data=[VALUES.tobytes()]),
    "pieces": WeightsBlob(shape=SHAPE, data=[VALUES.tobytes()[:8], VALUES.tobytes()[8:]]),
    "double": WeightsBlob(shape=SHAPE, double_data=[VALUES.astype(np.float64).tobytes()]),
    "unpacked": WeightsBlobUnpacked(data=VALUES.flatten()).SerializeToString()
                + WeightsBlob(shape=SHAPE).SerializeToString(),
    "unpacked double": WeightsBlobUnpacked(double_data=VALUES.flatten()).SerializeToString()
                       + WeightsBlob(shape=SHAPE).SerializeToString(),
    "half packed": WeightsBlob(data=[VALUES.tobytes()[:8]]).SerializeToString()
                   + WeightsBlobUnpacked(data=VALUES.flatten()[2:]).SerializeToString()
                   + WeightsBlob(shape=SHAPE).SerializeToString()}


@pytest.mark.parametrize("blob", STORED.values(), ids=STORED)
def test_blob_is_read_however_it_is_stored(tmp_path, blob):
    np.testing.assert_array_equal(_read_one(_file(tmp_path, blob)), VALUES, strict=True)


def test_legacy_shape_is_read(tmp_path):
    blob = WeightsBlob(num=1, channels=1, height=2, width=3, data=[VALUES.tobytes()])
    np.testing.assert_array_equal(_read_one(_file(tmp_path, blob)), VALUES[None, None], strict=True)


def test_blob_without_shape_is_one_number(tmp_path):
    assert _read_one(_file(tmp_path, WeightsBlob(data=[VALUES[:1, :1].tobytes()]))).shape == ()


def test_packed_blob_is_a_view(tmp_path):
    assert not _read_one(_file(tmp_path, STORED["packed"])).flags.owndata


@pytest.mark.parametrize("kind", ["ConvolutionData", "BNData", "HoleConvolutionData", "", "é"])
def test_types_are_kept_as_they_are(tmp_path, kind):
    assert read_caffemodel(_file(tmp_path, STORED["packed"], kind=kind))["a"].type == kind


@pytest.mark.parametrize(("blob", "message"), [
    (WeightsBlob(shape=SHAPE, data=[VALUES.tobytes()[:-4]]), r"5 numbers for shape \(2, 3\)"),
    (WeightsBlob(shape=SHAPE, data=[VALUES.tobytes() + b"\0" * 4]), r"7 numbers for shape"),
    (WeightsBlob(shape=SHAPE, data=[VALUES.tobytes()[:-1]]), "Error parsing message"),
    (WeightsBlob(shape=SHAPE), r"0 numbers for shape \(2, 3\)"),
    (STORED["packed"].SerializeToString()
     + WeightsBlobUnpacked(data=[1.0]).SerializeToString(), "7 numbers for shape"),
    (WeightsBlob(shape=BlobShape(dim=[2, -3]), data=[VALUES.tobytes()]), r"got \(2, -3\)"),
    (WeightsBlob(shape=BlobShape(dim=[2 ** 62, 2 ** 62])), "0 numbers for shape"),
    (WeightsBlob(shape=BlobShape(dim=[1] * 40)), "at most 32 sizes")])
def test_blob_that_does_not_fill_its_shape_is_refused(tmp_path, blob, message):
    with pytest.raises(UserError, match=f"w.caffemodel: layer 'a', blob 0: .*{message}"):
        read_caffemodel(_file(tmp_path, blob))


def test_nan_is_warned_of(tmp_path):
    blob = WeightsBlob(shape=BlobShape(dim=[1]), data=[np.float32([np.nan]).tobytes()])
    with pytest.warns(UserWarning, match="NaN in the blobs of 1 layer, first in 'a'"):
        weights = read_caffemodel(_file(tmp_path, blob))
    assert np.isnan(weights["a"].blobs[0]).all()


LAYER = WeightsLayer(name="a", type="X", blobs=[STORED["packed"]]).SerializeToString()
WHOLE = WeightsFile(layer=[LAYER, WeightsLayer(name="b").SerializeToString()]).SerializeToString()
# Field 100, a length of 2^40 - 1.
GIGANTIC = b"\xa2\x06" + b"\xff" * 5 + b"\x1f"


@pytest.mark.parametrize(("data", "message"), [
    (b"", "this is an empty file"),
    (WHOLE[:-3], "cut short"),
    (WHOLE[:40], "cut short: byte 3 promises .* bytes, 37 are left"),
    (b"\x0a" + GIGANTIC, "cut short"),
    (GIGANTIC + b"\0" * 9, "byte 8 promises 1099511627775 bytes, 9 are left"),
    (b"\xff" * 30, "not a caffemodel, or damaged"),
    (b"\x0a\x01n", "holds no layers"),
    (b"\x89HDF\r\n\x1a\n rest", "not HDF5 as Caffe writes it, or damaged"),
    (b'name: "net"\nlayer { name: "a" }\n', "this is a prototxt: it holds no weights"),
    (WeightsFile(name="n").SerializeToString() + b"\x12\x03abc", "damaged after layer None"),
    (b"\xa2\x06\x02\x0a\xff" + b"\0" * 300, "damaged after layer None"),
    (WHOLE + WeightsFile(layer=[LAYER]).SerializeToString(), "layer 'a' is there twice")],
    ids=["empty", "end", "cut", "long name", "gigantic", "ones", "no layers", "hdf5", "text", "v1",
         "damaged layer", "twice"])
def test_damaged_file_is_refused(tmp_path, data, message):
    path = tmp_path / "w.caffemodel"
    path.write_bytes(data)
    with pytest.raises(UserError, match=message) as raised:
        read_caffemodel(path)
    assert str(raised.value).startswith(str(path)) and "\n" not in str(raised.value)


@pytest.mark.parametrize("seed", range(20))
def test_random_bytes_are_refused(tmp_path, seed):
    path = tmp_path / "w.caffemodel"
    path.write_bytes(np.random.default_rng(seed).bytes(3000))
    with pytest.raises(UserError, match="w.caffemodel: "):
        read_caffemodel(path)


def test_missing_file_and_folder_are_refused(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_caffemodel(tmp_path / "none")
    with pytest.raises(UserError, match="cannot be read"):
        read_caffemodel(tmp_path)


def test_written_file_reads_back(tmp_path):
    layers = {"a": ("Convolution", [VALUES, np.float32(3)]), "relu": ("ReLU", []),
              "b": ("BN", [np.zeros((1, 2, 1, 1)), np.ones((0, 2))])}
    path = tmp_path / "w.caffemodel"
    write_caffemodel(path, "net", layers)
    again = read_caffemodel(path)
    assert list(again) == list(layers)
    for name, (kind, blobs) in layers.items():
        assert again[name].type == kind
        for blob, wanted in zip(again[name].blobs, blobs, strict=True):
            np.testing.assert_array_equal(blob, np.asarray(wanted, np.float32), strict=True)
    assert WeightsFile.FromString(path.read_bytes()).name == "net"


def test_failed_write_leaves_nothing(tmp_path):
    def layers():
        yield "a", ("Convolution", [VALUES])
        raise OSError(28, "No space left on device")

    class Full(dict):
        def items(self):
            return layers()

    with pytest.raises(UserError, match="cannot be written: .*No space left"):
        write_caffemodel(tmp_path / "w.caffemodel", "net", Full())
    assert list(tmp_path.iterdir()) == []


MEASURE = """
import json, sys, time
from prototxt_import import load_net, read_caffemodel
from experiments.peak_memory import peak_bytes
before = peak_bytes()
start = time.process_time()
if sys.argv[1] == "read":
    layers = read_caffemodel(sys.argv[2])
else:
    layers = load_net(sys.argv[3], sys.argv[2]).params
seconds = time.process_time() - start
print(json.dumps({"seconds": seconds, "bytes": peak_bytes() - before, "layers": len(layers)}))
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A network and its weights: 187 MB, the size of PSPNet50, the largest blob last as there."""
    folder = tmp_path_factory.mktemp("large")
    text, layers, bottom = 'input: "x" input_shape { dim: 1 dim: 512 dim: 3 dim: 3 }', {}, "x"
    for k in range(13):
        outputs = 512 if k < 11 else 4096 if k == 11 else 512
        inputs, size = (4096, 3) if k == 12 else (512, 3 if k < 11 else 1)
        name = f"conv{k}"
        text += (f'layer {{ name: "{name}" type: "Convolution" bottom: "{bottom}" top: "{name}" '
                 f'convolution_param {{ num_output: {outputs} kernel_size: {size} '
                 f'pad: {size // 2} bias_term: false }} }}\n')
        layers[name] = ("ConvolutionData", [np.full((outputs, inputs, size, size), k, np.float32)])
        bottom = name
    write_caffemodel(folder / "w.caffemodel", "large", layers)
    (folder / "net.prototxt").write_text(text)
    assert (folder / "w.caffemodel").stat().st_size > 185e6
    return folder


@pytest.mark.parametrize("what", ["read", "load"])
def test_large_file_takes_little_time_and_memory(large, what):
    done = subprocess.run([sys.executable, "-c", MEASURE, what, str(large / "w.caffemodel"),
                           str(large / "net.prototxt")], capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=120, check=True)
    result = json.loads(done.stdout)
    assert result["layers"] == 13
    assert result["bytes"] <= 2 * (large / "w.caffemodel").stat().st_size
    # Of the processor: what else the machine does is not counted.
    assert result["seconds"] <= 2
