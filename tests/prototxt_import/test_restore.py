"""CaffeSolver.restore: small networks, moved files, and what is refused."""

import os
import shutil
import sys

import pytest
import torch
from helpers.golden import GOLDEN

from prototxt_import import load_solver, read_caffemodel, read_solverstate
from pspnet_repro.errors import UserError

FOLDER = GOLDEN / "snapshots"

NET = """
name: "net" input: "x" input_shape { dim: 2 dim: 1 }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y" loss_weight: 1
        inner_product_param { num_output: 2 weight_filler { value: 2 } } }
"""
SOLVER = 'net: "net.prototxt" base_lr: 0.5 lr_policy: "fixed" type: "%s"'


def _small(folder, kind="SGD", net=NET, more=""):
    folder.mkdir(exist_ok=True)
    (folder / "net.prototxt").write_text(net)
    momentum = "" if kind == "RMSProp" else " momentum: 0.5"
    (folder / "solver.prototxt").write_text(SOLVER % kind + momentum + more)
    return load_solver(folder / "solver.prototxt")


def _stepped(folder, *args, steps=1, **more):
    solver = _small(folder, *args, **more)
    for _ in range(steps):
        solver.step(x=torch.tensor([[1.0], [-3]]))
    return solver


def test_a_snapshot_that_was_moved_is_restored(tmp_path):
    solver = _stepped(tmp_path / "a")
    solver.snapshot(tmp_path / "there" / "s")
    shutil.move(tmp_path / "there", tmp_path / "here")
    again = _small(tmp_path / "b")
    again.restore(tmp_path / "here" / "s_iter_1.solverstate")
    assert again.iteration == 1
    for _ in range(2):
        for one in (solver, again):
            one.step(x=torch.tensor([[2.0], [1]]))
    assert torch.equal(again.net.params["ip"][0], solver.net.params["ip"][0])
    (tmp_path / "here" / "s_iter_1.caffemodel").unlink()
    with pytest.raises(UserError, match="s_iter_1.solverstate: its learned_net .*no such file "
                                        "beside the solverstate .* nor at .*copy the snapshot"):
        again.restore(tmp_path / "here" / "s_iter_1.solverstate")
    assert again.iteration == 3


def test_restore_waits_for_sizes_that_come_with_the_inputs(tmp_path):
    sizeless = NET.replace("input_shape { dim: 2 dim: 1 }", "")
    solver = _stepped(tmp_path / "a", net=sizeless)
    with pytest.raises(UserError, match="take a step before a snapshot"):
        _small(tmp_path / "b", net=sizeless).snapshot(tmp_path / "s")
    _, state = solver.snapshot(tmp_path / "s")
    again = _small(tmp_path / "b", net=sizeless)
    again.restore(state)
    assert again.iteration == 1
    for one in (solver, again):
        one.step(x=torch.tensor([[2.0], [1]]))
    assert again.iteration == 2
    assert torch.equal(again.net.params["ip"][0], solver.net.params["ip"][0])


def test_multistep_resumes_with_the_steps_that_the_file_has(tmp_path):
    """Caffe counts stepvalues that were passed, whatever they were when the snapshot was made."""
    folder = tmp_path / "a"
    text = (SOLVER % "SGD").replace("fixed", "multistep") + " gamma: 0.5 stepvalue: "
    _small(folder)
    (folder / "solver.prototxt").write_text(text + "1 stepvalue: 8")
    solver = load_solver(folder / "solver.prototxt")
    for _ in range(3):
        solver.step(x=torch.ones(2, 1))
    _, state = solver.snapshot(tmp_path / "s")
    assert read_solverstate(state).current_step == 1
    (folder / "solver.prototxt").write_text(text + "7 stepvalue: 4")
    again = load_solver(folder / "solver.prototxt")
    again.restore(state)
    # The first of the new stepvalues counts as passed; the second is at 4.
    rates = []
    for again.iteration in (3, 4, 9):
        rates.append(again.learning_rate)
    assert rates == [0.25, 0.125, 0.125]


def _refused(solver, path, message):
    before = [p.detach().clone() for p in solver.net.parameters()]
    with pytest.raises(UserError, match=message) as raised:
        solver.restore(path)
    assert "\n" not in str(raised.value)
    assert all(torch.equal(a, b) for a, b in zip(before, solver.net.parameters()))
    assert solver.iteration == 0 and not solver.optimizer.state
    solver.step(x=torch.ones(2, 1))


@pytest.mark.parametrize("written, kind, message", [
    ("Adam", "SGD", "SGD on .*net.prototxt needs a history of 2 blobs, 1 for each of its 2 "
                    "parameters, it has 4: it is of a solver of type AdaDelta or Adam"),
    ("SGD", "AdaDelta", "needs a history of 4 blobs, .* has 2: it is of a solver of type SGD, "),
    ("SGD", "AdaDelta", "restore it with that type"),
    ("Nesterov", "RMSProp", "history 0, of layer 'ip', blob 0: holds -.*squares, never below 0"),
    ("Adam", "AdaDelta", "holds -.*it is of another type of solver")])
def test_solverstates_of_other_types_are_refused(tmp_path, written, kind, message):
    solver = _stepped(tmp_path / "a", written)
    _, state = solver.snapshot(tmp_path / "s")
    _refused(_small(tmp_path / "b", kind), state, message)


@pytest.mark.parametrize("net, message", [
    (NET.replace("num_output: 2", "num_output: 3"),
     r"history 0, of layer 'ip', blob 0: needs shape \(3, 1\), has \(2, 1\): it is of another net"),
    (NET.replace("weight_filler", "bias_term: false weight_filler"),
     "needs a history of 1 blob, .* has 2: it is of a solver of type AdaDelta or Adam"),
    (NET.replace('"ip"', '"other"'), "s_iter_1.caffemodel: fits another network: 0 of 1 layer")])
def test_solverstates_of_other_networks_are_refused(tmp_path, net, message):
    _, state = _stepped(tmp_path / "a").snapshot(tmp_path / "s")
    _refused(_small(tmp_path / "b", net=net), state, message)


WHOLE = (FOLDER / "sgd_iter_6.solverstate").read_bytes()


@pytest.mark.parametrize("data, message", [
    (b"", "this is an empty file"), (WHOLE[:-1], "cut short"), (WHOLE[:1000], "cut short"),
    (WHOLE[:3000], "cut short"),
    ((FOLDER / "sgd_iter_6.caffemodel").read_bytes(),
     "this is a caffemodel: name the .solverstate that Caffe writes beside"),
    (b'net: "a"\nbase_lr: 1\n', "this is a solver of Caffe: name the .solverstate"),
    (b"\x89HDF\r\n\x1a\n rest", "not HDF5 as Caffe writes it, or damaged"),
    (b"\x12\x03abc", "it has no iter"),
    (b"\x08\x01\x1a\x04\x2a\x02ab", "history 0: "),
    (b"\x08\x01\x10\x05", "field 2 before byte 3 is of another type"),
    (b"\x08\x01", "names no learned_net"),
    (b"\x08" + b"\xff" * 9 + b"\x01", "iter must be 0 to 2.31 - 1")],
    ids=["empty", "end", "cut", "history", "caffemodel", "solver", "hdf5", "no iter", "blob",
         "kind", "no net", "negative"])
def test_damaged_and_foreign_solverstates_are_refused(tmp_path, data, message):
    path = tmp_path / "a.solverstate"
    path.write_bytes(data)
    _refused(_small(tmp_path / "b"), path, rf"a.solverstate: .*{message}")


def test_hdf5_files_of_the_other_kind_are_refused():
    with pytest.raises(UserError, match="this is an HDF5 caffemodel"):
        read_solverstate(FOLDER / "sgd_hdf5_iter_4.caffemodel.h5")
    with pytest.raises(UserError, match="this is an HDF5 solverstate: it holds no weights"):
        read_caffemodel(FOLDER / "sgd_hdf5_iter_4.solverstate.h5")


def test_hdf5_snapshot_of_a_name_with_a_slash_is_refused(tmp_path):
    solver = _stepped(tmp_path, net=NET.replace('"ip"', '"a/b"'),
                      more=" snapshot_format: HDF5")
    with pytest.raises(UserError, match="layer 'a/b': HDF5 cannot hold a layer with a slash"):
        solver.snapshot(tmp_path / "s")
    assert not list(tmp_path.glob("s_*"))


def test_a_snapshot_that_fails_changes_nothing(tmp_path):
    solver = _stepped(tmp_path / "a")
    files = solver.snapshot(tmp_path / "s")
    (tmp_path / "s_iter_2.solverstate").mkdir()
    solver.step(x=torch.ones(2, 1))
    with pytest.raises(UserError, match="s_iter_2.solverstate: cannot be written: is a folder"):
        solver.snapshot(tmp_path / "s")
    left = sorted(path.name for path in tmp_path.iterdir() if path.name != "a")
    assert left == ["s_iter_1.caffemodel", "s_iter_1.solverstate", "s_iter_2.solverstate"]
    assert [path.rpartition("/")[2] for path in files] == left[:2]


def test_history_goes_on_where_a_layer_stopped_learning(tmp_path):
    """With multiplier 0 the old momentum still moves the weights, as in the original."""
    solver = _stepped(tmp_path / "a")
    _, state = solver.snapshot(tmp_path / "s")
    frozen = NET.replace("inner_product_param", "param { lr_mult: 0 } inner_product_param")
    again = _small(tmp_path / "b", net=frozen)
    again.restore(state)
    weight, buffer = again.net.params["ip"][0].clone(), read_solverstate(state).history[0]
    again.step(x=torch.ones(2, 1))
    assert torch.equal(again.net.params["ip"][0], weight - 0.5 * torch.tensor(buffer))


def test_a_restore_that_waited_and_fails_leaves_the_solver_as_it_was(tmp_path):
    _, state = _stepped(tmp_path / "a").snapshot(tmp_path / "s")
    sizeless = NET.replace("input_shape { dim: 2 dim: 1 }", "").replace("num_output: 2",
                                                                        "num_output: 3")
    solver = _small(tmp_path / "b", net=sizeless)
    solver.restore(state)
    with pytest.raises(UserError, match="it is of another network"):
        solver.step(x=torch.ones(2, 1))
    assert solver.iteration == 0
    solver.step(x=torch.ones(2, 1))
    assert solver.iteration == 1


def test_squares_in_the_place_of_momentum_are_warned_of(tmp_path):
    wide = NET.replace("num_output: 2", "num_output: 200")
    solver = _small(tmp_path / "a", "RMSProp", net=wide, more=" rms_decay: 0.5")
    solver.step(x=torch.tensor([[1.0], [-3]]))
    _, state = solver.snapshot(tmp_path / "s")
    with pytest.warns(UserWarning, match="no number of its history is below 0, .* of type SGD"):
        _small(tmp_path / "b", net=wide).restore(state)


def test_a_crash_between_the_files_leaves_no_state_of_other_weights(tmp_path, monkeypatch):
    solver = _stepped(tmp_path / "a")
    solver.snapshot(tmp_path / "s")
    replace = os.replace

    def crash(source, target):
        if str(target).endswith(".solverstate"):
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        solver.snapshot(tmp_path / "s")
    assert sorted(path.name for path in tmp_path.glob("s_*")) == ["s_iter_1.caffemodel"]


def test_hdf5_without_its_package_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UserError, match="HDF5 needs h5py: pip install -r requirements-hdf5.txt"):
        read_solverstate(FOLDER / "sgd_hdf5_iter_4.solverstate.h5")
