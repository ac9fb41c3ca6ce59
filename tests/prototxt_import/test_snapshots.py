"""Snapshots: the original's read and repeated byte for byte, and others refused."""

import numpy as np
import pytest
import torch
from helpers.golden import GOLDEN, assert_same_bits, golden_files, read_golden

from prototxt_import import (
    SolverState,
    load_solver,
    read_caffemodel,
    read_solverstate,
    write_caffemodel,
    write_solverstate,
)
from pspnet_repro import ops
from pspnet_repro.errors import UserError

FOLDER = GOLDEN / "snapshots"
EXACT = pytest.mark.skipif(ops.USE_REFERENCE, reason="the reference operators sum otherwise")
pytestmark = pytest.mark.filterwarnings("ignore:.*not followed, as the weights")


def _solver(arrays, folder):
    (folder / "solver.prototxt").write_text(str(arrays["solver"]))
    (folder / "net.prototxt").write_text(str(arrays["net"]))
    return load_solver(folder / "solver.prototxt")


def _train(solver, arrays, end):
    """Train to an iteration; losses and the recorded parameters have the original's bits."""
    for t in range(solver.iteration, end):
        losses = solver.step(data=arrays[f"data@{t}"], label=arrays[f"label@{t}"])
        assert all(losses[name] == arrays[f"{name}@{t}"] for name in ("loss", "loss_aux"))
        for layer, tensors in solver.net.params.items():
            for k, tensor in enumerate(tensors):
                name = f"step{t + 1}/{layer}/{k}"
                assert name in arrays or f"step{t + 1}/conv1/0" not in arrays
                if name in arrays:
                    assert_same_bits(tensor, arrays[name])


def _same_hdf5(ours, theirs):
    import h5py

    def content(path):
        held = {}
        with h5py.File(path) as file:
            file.visititems(lambda name, item: held.update({name: None if isinstance(
                item, h5py.Group) else (item.dtype, item.shape, np.asarray(item).tobytes(),
                                        item.id.get_type().encode())}))
        return held

    assert content(ours) == content(theirs)


def _check_snapshot(solver, monkeypatch, tmp_path, name):
    monkeypatch.chdir(tmp_path)
    files = solver.snapshot(name)
    ending = ".h5" if "hdf5" in name else ""
    assert files == tuple(f"{name}_iter_{solver.iteration}{kind}{ending}"
                          for kind in (".caffemodel", ".solverstate"))
    for file in files:
        if ending:  # what Caffe wrote tells the time
            _same_hdf5(file, FOLDER / file)
        else:
            assert (tmp_path / file).read_bytes() == (FOLDER / file).read_bytes()


@EXACT
@pytest.mark.parametrize("path", golden_files("snapshots"))
def test_training_and_its_snapshots_are_the_original_s(path, tmp_path, monkeypatch):
    torch.set_num_threads(1)
    arrays = read_golden(path)
    solver = _solver(arrays, tmp_path)
    with torch.no_grad():
        for layer, tensors in solver.net.params.items():
            for k, tensor in enumerate(tensors):
                tensor.copy_(torch.from_numpy(arrays[f"init/{layer}/{k}"]))
    _train(solver, arrays, int(arrays["at"]))
    _check_snapshot(solver, monkeypatch, tmp_path, path.stem)


@EXACT
@pytest.mark.parametrize("path", golden_files("snapshots"))
def test_training_restored_in_the_middle_ends_as_the_original(path, tmp_path, monkeypatch):
    torch.set_num_threads(1)
    arrays = read_golden(path)
    solver = _solver(arrays, tmp_path)
    solver.restore(next(FOLDER.glob(f"{path.stem}_iter_{arrays['at']}.solverstate*")))
    _check_snapshot(solver, monkeypatch, tmp_path, path.stem)
    _train(solver, arrays, sum(name.startswith("data@") for name in arrays))
    _check_snapshot(solver, monkeypatch, tmp_path, path.stem)


@pytest.mark.parametrize("ending", ["", ".h5"])
def test_solverstates_are_read_as_they_were_written(tmp_path, ending):
    state = SolverState(7, "some/where_iter_7.caffemodel", [
        np.arange(6, dtype=np.float32).reshape(1, 2, 3), np.float32([-1]).reshape(1)], 2)
    path = tmp_path / f"a.solverstate{ending}"
    write_solverstate(path, state)
    again = read_solverstate(path)
    assert again[:2] == state[:2] and again.current_step == 2
    for ours, wanted in zip(again.history, state.history, strict=True):
        np.testing.assert_array_equal(ours, wanted, strict=True)


def test_hdf5_caffemodels_are_read_as_they_were_written(tmp_path):
    path, array = tmp_path / "a.caffemodel.h5", np.arange(6, dtype=np.float32).reshape(2, 3)
    write_caffemodel(path, "net", {"b": ("InnerProduct", [array]), "a": ("ReLU", [])})
    layers = read_caffemodel(path)
    assert [(name, len(layer.blobs)) for name, layer in layers.items()] == [("a", 0), ("b", 1)]
    np.testing.assert_array_equal(layers["b"].blobs[0], array, strict=True)
    with pytest.raises(UserError, match="a.caffemodel.h5: layer 'a/b': HDF5 cannot hold a layer "
                                        "with a slash .* snapshot_format: BINARYPROTO"):
        write_caffemodel(path, "net", {"a/b": ("ReLU", [])})
