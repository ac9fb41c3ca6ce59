"""2,000 damaged copies of the small golden files: each becomes a network or a one-line error."""

import contextlib
import json
import os
import random
import subprocess
import sys

import numpy as np
import pytest
from helpers.paths import ROOT, TESTS

from prototxt_import import SolverState, read_caffemodel, read_solverstate, write_solverstate
from prototxt_import.format import caffe_pb2
from prototxt_import.format.blobs import blob_of
from pspnet_repro.errors import UserError

SEEDS = (0, 2000)


def test_damaged_files_end_in_a_network_or_an_error():
    # In a process of its own: the most memory that it used is then known.
    done = subprocess.run([sys.executable, "-m", "helpers.import_fuzz", *map(str, SEEDS)],
                          cwd=ROOT, env={**os.environ, "PYTHONPATH": str(TESTS)}, timeout=300,
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout)
    assert result["wrong"] == []
    assert result["networks"] + result["errors"] == SEEDS[1] - SEEDS[0]
    assert result["networks"] >= 100 and result["errors"] >= 100
    assert result["peak_bytes"] < 2 ** 31


def _solverstate(path):
    history = [np.ones((2, 3), np.float32), np.ones(2, np.float32)]
    write_solverstate(path, SolverState(7, "a_iter_7.caffemodel", history, 1))
    return path.read_bytes()


def _old_weights(path):
    layers = [caffe_pb2.WeightsLayerV1(name="a", type=14, blobs=[blob_of(np.ones((2, 3)))]),
              caffe_pb2.WeightsLayerV1(layer=caffe_pb2.WeightsLayerV0(
                  name="b", type="relu", blobs=[blob_of(np.ones(3))]))]
    contents = [layer.SerializeToString() for layer in layers]
    return b"\x0a\x01n" + b"".join(b"\x12" + bytes([len(data)]) + data for data in contents)


@pytest.mark.filterwarnings("ignore:.*NaN in the blobs")
@pytest.mark.parametrize("name, make, read", [
    ("a.solverstate", _solverstate, read_solverstate),
    ("a.solverstate.h5", _solverstate, read_solverstate),
    ("a.caffemodel", _old_weights, read_caffemodel)])
def test_damaged_states_and_old_weights_end_in_an_error_of_one_line(tmp_path, name, make, read):
    path, draw, read_files = tmp_path / name, random.Random(0), 0
    whole = make(path)
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(draw.randint(1, 4)):
            at = draw.randrange(len(data))
            data[at:at + draw.choice((0, 1, 1, 9))] = draw.randbytes(draw.choice((0, 1, 1, 3)))
        path.write_bytes(data)
        with contextlib.suppress(UserError):
            read(path)
            read_files += 1
    assert 0 < read_files < 300
