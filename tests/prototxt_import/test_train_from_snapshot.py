"""`pspnet train --solverstate`: a training that changes sides in the middle."""

import itertools
import re
import warnings
from pathlib import Path

import pytest
import torch
from helpers.commands import run
from helpers.import_files import MINI, drawn
from helpers.trainings import read_losses, run_training, run_until_saved

from prototxt_import import (
    convert,
    export,
    load_solver,
    read_caffemodel,
    read_solverstate,
    write_caffemodel,
    write_solverstate,
)
from pspnet_repro import PSPNet, ops
from pspnet_repro.data.augment import Augmentation
from pspnet_repro.data.pairs import read_list
from pspnet_repro.data.training_sequence import TrainingSequence, batches
from pspnet_repro.errors import UsageError, UserError
from pspnet_repro.weights.model_file import save_model
from pspnet_repro.weights.plain_file import load

CROP = 41
SETTINGS = {"crop_size": CROP, "max_iter": 4, "batch_size": 2, "base_lr": 1e-4, "iter_size": 2}
NET = {**MINI, "dropout": 0.0, "variance": "biased", "head": "literal", "arithmetic": "original"}


@pytest.fixture(scope="module")
def half(squares, tmp_path_factory):
    """A network's start as our file, and Caffe's snapshot after 2 of 4 steps on the images that
    our training sees."""
    folder = tmp_path_factory.mktemp("half")
    net = drawn(PSPNet(4, **NET))
    save_model(folder / "start.pt", net)
    export(net, CROP, folder / "net.prototxt", folder / "w.caffemodel",
           training={name: SETTINGS[name] for name in SETTINGS if name != "crop_size"})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        solver = load_solver(folder / "solver.prototxt")
    solver.net.load_weights(folder / "w.caffemodel")
    sequence = TrainingSequence(read_list(squares / "train.txt"), 4, CROP, Augmentation(), 0)
    reader = batches(sequence, 2, 0, 8, 0, range(2))
    torch.set_num_threads(1)
    for _ in range(2):
        passes = list(itertools.islice(reader, 2))
        solver.step(data=[images for images, _ in passes],
                    label=[labels[:, None].float() for _, labels in passes])
    solver.snapshot(folder / "s")
    return folder


def _train(squares, output, changes=(), run=run_training, **options):
    return run(squares, output, {**SETTINGS, "model": {**NET, "classes": 4}, **dict(changes)},
               **options)


@pytest.mark.skipif(ops.USE_REFERENCE, reason="the reference has other orders of sums")
def test_a_training_that_changes_sides_ends_with_the_same_bits(squares, half, tmp_path):
    whole = _train(squares, tmp_path / "whole", initial_weights=half / "start.pt")
    second = _train(squares, tmp_path / "second", solverstate=half / "s_iter_2.solverstate")
    wanted, ours = (load(path)["weights"] for path in (whole, second))
    assert wanted.keys() == ours.keys()
    assert all(torch.equal(wanted[name], ours[name]) for name in wanted)
    assert read_losses(tmp_path / "second") == read_losses(tmp_path / "whole")[2:]


def test_a_training_from_a_solverstate_resumes(squares, half, tmp_path):
    state = half / "s_iter_2.solverstate"
    _train(squares, tmp_path / "cut", run=run_until_saved, iteration=3, solverstate=state)
    ours, wanted = (load(_train(squares, tmp_path / name, solverstate=state))["weights"]
                    for name in ("cut", "whole"))
    assert all(torch.equal(wanted[name], ours[name]) for name in wanted)
    assert [line["iteration"] for line in read_losses(tmp_path / "cut")] == [2, 3]


@pytest.mark.parametrize("variance", [None, "unbiased"])
def test_the_command_resumes_a_solverstate(squares, half, tmp_path, capfd, variance):
    code, _, error = run(
        capfd, "train", "--data", squares / "train.txt", "-o", tmp_path / "run", "--classes", 4,
        "--crop-size", CROP, "--batch-size", 2, "--max-iter", 3, "--threads", 1,
        "--solverstate", half / "s_iter_2.solverstate",
        *(("--variance", variance) if variance else ()))
    assert code == 0, error
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "resuming Caffe's training after step 2: momentum of" in log and "step 2 of 3" in log
    assert ("note: the file's network has variance biased, this one unbiased" in log) == bool(
        variance)
    settings = load(tmp_path / "run" / "weights.pt")["settings"]
    assert settings["stem_width"] == MINI["stem_width"]
    assert settings["variance"] == (variance or "biased") and settings["dropout"] == 0


def _refused(squares, half, tmp_path, message, kind=UserError, **options):
    with pytest.raises(kind, match=message) as raised:
        _train(squares, tmp_path / "run", **options)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "run" / "losses.jsonl").exists()


def test_other_snapshots_are_refused(squares, half, tmp_path):
    state = read_solverstate(half / "s_iter_2.solverstate")
    path = tmp_path / "a.solverstate"
    weights = (half / "net.prototxt", half / "s_iter_2.caffemodel")

    def refuse(state, message, kind=UserError, **options):
        write_solverstate(path, state)
        _refused(squares, half, tmp_path, message, kind,
                 **{"initial_weights": weights, "solverstate": path, **options})

    count = len(state.history)
    refuse(state._replace(history=state.history * 2),
           f"a.solverstate: needs a history of {count} blobs, .* it has {2 * count}: it is of "
           "AdaDelta or Adam, and PSPNet trains with SGD; start from the weights alone")
    refuse(state._replace(history=state.history[:-1]), "it is of another network")
    refuse(state._replace(history=[state.history[-1], *state.history[1:]]),
           "history 0, of layer 'conv1_1_3x3_s2', blob 0: has shape .*, must be")
    refuse(state._replace(iteration=9), "max_iter must be at least 9, the steps that .* has taken, "
                                        "got 4", UsageError)
    refuse(state, "initial_weights must be a pair", UsageError,
           initial_weights=half / "start.pt")
    refuse(state, "rate_in_momentum must be true", UsageError,
           changes={"rate_in_momentum": False})
    refuse(state._replace(learned_net="gone.caffemodel"),
           "a.solverstate: its learned_net gone.caffemodel: no such file", initial_weights=None)
    refuse(state, "momentum of head.score.weight must have shape",
           changes={"model": {**NET, "classes": 5}})


def test_hdf5_snapshots_need_the_training_net(squares, half, tmp_path):
    """Names in HDF5 have no slash: the layers are renamed, and are there in another order."""
    def renamed(text):
        return text.replace("/", "_")

    read = read_caffemodel(half / "s_iter_2.caffemodel")
    caffemodel = tmp_path / "s_iter_2.caffemodel.h5"
    write_caffemodel(caffemodel, "net", {renamed(name): layer for name, layer in read.items()})
    state = read_solverstate(half / "s_iter_2.solverstate")
    path = tmp_path / "s_iter_2.solverstate.h5"
    write_solverstate(path, state._replace(learned_net=caffemodel.name))
    _refused(squares, half, tmp_path, "HDF5 holds weights without the settings of their layers: "
             "name the training net too: --initial-weights NET.prototxt,", solverstate=path)
    net = tmp_path / "train_val.prototxt"
    net.write_text(renamed((half / net.name).read_text()))
    ours = _train(squares, tmp_path / "run", solverstate=path,
                  initial_weights=(net, caffemodel))
    wanted = _train(squares, tmp_path / "wanted", solverstate=half / "s_iter_2.solverstate")
    ours, wanted = (load(weights)["weights"] for weights in (ours, wanted))
    assert all(torch.equal(wanted[name], ours[name]) for name in wanted)


def test_a_caffemodel_without_settings_of_layers_needs_its_net(squares, half, tmp_path):
    """As the released ones, and those that export writes."""
    state = read_solverstate(half / "s_iter_2.solverstate")
    path = tmp_path / "a.solverstate"
    write_solverstate(path, state._replace(learned_net=str(half / "w.caffemodel")))
    _refused(squares, half, tmp_path, "w.caffemodel: holds weights without the settings of their "
             "layers: name the network's prototxt too: --initial-weights NET.prototxt,",
             solverstate=path)


def test_a_snapshot_of_a_net_with_input_layers_describes_itself(half, tmp_path):
    """Later Caffe writes them, and the number of their field."""
    text = (half / "train_val.prototxt").read_text()
    for name, channels in (("data", 3), ("label", 1)):
        text = text.replace(f'input: "{name}"\n', "")
        text += (f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ shape {{ '
                 f'dim: [2, {channels}, {CROP}, {CROP}] }} }} }}\n')
    inputs, layers = re.split(r"(?m)^(?=layer)", text, maxsplit=1)
    shapes = re.sub(r"(?s)input_shape \{.*?\}\n", "", inputs)
    own = layers.rindex('layer { name: "data"')
    (tmp_path / "train_val.prototxt").write_text(shapes + layers[own:] + layers[:own])
    (tmp_path / "solver.prototxt").write_text((half / "solver.prototxt").read_text())
    with pytest.warns(UserWarning, match="not followed"):
        solver = load_solver(tmp_path / "solver.prototxt")
    solver.net.load_weights(half / "w.caffemodel")
    caffemodel, _ = solver.snapshot(tmp_path / "s")
    assert b"\xfa\x08" in Path(caffemodel).read_bytes()  # field 143, of bytes
    nets = [convert(prototxt, half / "w.caffemodel")
            for prototxt in (caffemodel, half / "train_val.prototxt")]
    assert nets[0].settings == nets[1].settings
