"""Systems of other papers as rows of the harness."""

import dataclasses
import json
import os
import signal

import numpy as np
import pytest
from helpers.harness import plan_rows, run_rows
from helpers.report_runs import MINI, renamed, result, write_run
from helpers.small_system import NET, SOLVER

from experiments import run_table
from experiments.experiment import Experiment
from experiments.plan import select_tables
from experiments.profiles import PROFILES
from experiments.report.results import Results
from experiments.report.tables import orderings, table_blocks
from experiments.rows import BASELINE, TABLES, Row
from experiments.run_row import run_row
from experiments.systems import training
from experiments.systems.initial import load_vgg16
from experiments.systems.network import NAMES, Network, system_files
from prototxt_import import load_net, write_caffemodel
from pspnet_repro.defaults import VGG16
from pspnet_repro.distributed import Processes
from pspnet_repro.errors import Interrupted, UsageError, UserError
from pspnet_repro.evaluation.evaluate import evaluate


@pytest.fixture(scope="module")
def systems(tiny):
    """Folders of the tests of the three systems' trainings."""
    profile, data, folder = tiny
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "STATISTICS_BATCHES", 2)
        return {name: run_rows(profile, data, folder / "systems", name)[0] for name in NAMES}


def test_systems_are_rows_as_others(tiny, systems):
    profile, _, folder = tiny
    for name, out in systems.items():
        result = json.loads((out / "result.json").read_text())
        assert result["row"] == name and result["settings"]["system"] == name
        assert result["settings"]["max_iter"] == profile.train["max_iter"]
        assert np.sum(result["confusion"]) == 3 * profile.crop_size ** 2
        curve = [json.loads(line) for line in
                 (out.parent / "curve.jsonl").read_text().splitlines()]
        assert [line["iteration"] for line in curve] == [1, 2]
        # Three images, all of the validation list: the last point is the test itself.
        assert curve[-1]["mean_iou"] == pytest.approx(result["mean_iou"], rel=1e-12)
        assert str(folder) not in (out / "result.json").read_text()
        assert not list(out.parent.glob("checkpoint*"))


def test_an_interrupted_system_trains_to_the_same_bits(tiny, systems, tmp_path, monkeypatch):
    profile, data, _ = tiny
    experiment = Experiment(profile, data, tmp_path)
    (run,), _ = plan_rows(experiment, "fcn-8s")
    step = training._step

    def stopping(*arguments):
        loss = step(*arguments)
        os.kill(os.getpid(), signal.SIGINT)
        return loss

    with monkeypatch.context() as patch, pytest.raises(Interrupted, match="after step 1 of 2; the"):
        patch.setattr(training, "_step", stopping)
        run_row(experiment, run, progress=False)
    assert run.state() == "interrupted at step 1 of 2"
    assert (run.folder / "checkpoint_iter_1.solverstate").exists()
    run_row(experiment, run, progress=False)
    assert run.state() == "done" and not list(run.folder.glob("checkpoint*"))
    whole = systems["fcn-8s"].parent
    for name in (training.WEIGHTS, training.DEPLOY, "losses.jsonl", "curve.jsonl"):
        assert (run.folder / name).read_bytes() == (whole / name).read_bytes(), name


def test_a_damaged_checkpoint_of_a_system_names_the_way_on(tiny, tmp_path):
    profile, data, _ = tiny
    experiment = Experiment(profile, data, tmp_path)
    (run,), _ = plan_rows(experiment, "segnet")
    run.folder.mkdir()
    (run.folder / "checkpoint_iter_1.solverstate").write_bytes(b"none")
    with pytest.raises(UserError, match="checkpoint_iter_1.*; remove the folder .* to train again"):
        run_row(experiment, run, progress=False)


def test_any_network_is_a_row_of_any_table(tiny, tmp_path, write, monkeypatch, capsys):
    """Its accuracy, of a type that is not known, is no part of the training."""
    profile, data, _ = tiny
    monkeypatch.setitem(PROFILES, "mini", profile)
    monkeypatch.setattr(run_table, "run_all", lambda experiment, trainings, jobs, at_once: [
        run_table.run_job(job, progress=False) for job in jobs])
    files = f"{write(NET)},{write(SOLVER, 'solver.prototxt')}"
    words = ["--data", str(data), "--runs", str(tmp_path / "runs"), "--system", f"mine={files}"]
    for table in ("4", "fidelity"):
        assert run_table.main(["--table", table, "--rows", "mine", *words]) == 0
        said = capsys.readouterr().out
        assert f"Table {table}, profile mini: {int(table == '4')} of 1 trainings to do" in said
    text = (tmp_path / "runs" / "mini" / "report.json").read_text()
    result, = json.loads(text)["results"]["mine"]
    assert result["settings"]["solver"] == {
        "base_lr": 1e-4, "lr_policy": "fixed", "max_iter": 2, "momentum": 0.9, "type": "Adam"}
    assert result["row"] == "mine" and str(tmp_path) not in text
    run, = (tmp_path / "runs" / "mini").glob("mine-seed0-*")
    assert "ignores label 255, the data's void, in place of 0" in (run / "log.txt").read_text()
    # The files of a finished row are a network and weights of Caffe's.
    net = load_net(run / training.DEPLOY, run / training.WEIGHTS)
    assert set(net.params) == {"conv1_1", "score"} and net.output_names == ["score"]


@pytest.mark.parametrize("words, error, said", [
    (["mine=nowhere.prototxt"], UserError, "--system mine: nowhere.prototxt: no such file; name "),
    (["fcn-8s=train.prototxt"], UsageError, "fcn-8s: there is a row of this name: choose another"),
    (["a=train.prototxt", "a=train.prototxt"], UsageError, "--system a: there is a row of this na"),
])
def test_systems_that_are_no_rows_are_refused(tmp_path, write, monkeypatch, words, error, said):
    monkeypatch.chdir(write(NET).parent)
    words = [word for text in words for word in ("--system", text)]
    with pytest.raises(error, match=said):
        run_table.run_tables(run_table.parser().parse_args(
            [*words, "--runs", str(tmp_path / "runs")]), Processes(0, 1))


def test_other_profiles_and_torchrun_leave_systems_out(tmp_path):
    def tables(*words, size=1):
        args = run_table.parser().parse_args(["--table", "4", *words])
        return run_table._tables(args, PROFILES[args.profile], Processes(0, size))

    chosen, notes = tables("--profile", "camvid")
    assert chosen["4"] == select_tables("4", "all")["4"][3:]
    assert notes == ["Not in profile camvid: fcn-8s, segnet, dilatednet."]
    with pytest.raises(UsageError, match="segnet: profile camvid has no such network; profiles mi"):
        tables("--profile", "camvid", "--rows", "baseline,segnet")
    chosen, (note,) = tables(size=2)
    assert len(chosen["4"]) == 6 and "the same command without torchrun" in note
    with pytest.raises(UsageError, match="rows of other systems train in one process"):
        tables("--rows", "segnet", size=2)


def test_published_recipes_are_their_own(tmp_path):
    for split in ("train", "val"):
        (tmp_path / f"{split}.txt").write_text("a.jpg b.png\n")
    experiment = Experiment(PROFILES["paper"], tmp_path, tmp_path / "runs")
    facts = {name: experiment.settings(Row(name, system=()), 0) for name in NAMES}
    assert {name: (s.crop_size, s.batch_size, s.max_iter) for name, s in facts.items()} == {
        "fcn-8s": (384, 1, 300_000), "segnet": (384, 4, 40_000), "dilatednet": (384, 1, 200_000)}
    assert facts["fcn-8s"].solver == {
        "base_lr": 1e-14, "lr_policy": "fixed", "max_iter": 300_000, "momentum": 0.99,
        "weight_decay": 0.0005}
    assert facts["dilatednet"].solver["stepsize"] == 100_000
    assert experiment.protocol(Row("segnet", system=())).crop_size == 384
    segnet = facts["segnet"]
    assert segnet.from_json(segnet.to_json(), segnet.net).to_json() == segnet.to_json()


def test_vgg16_starts_the_systems(tiny, tmp_path, write):
    """An inner product there is a convolution here; a layer of another size is left."""
    profile, data, _ = tiny
    net = Network(system_files("fcn-8s", "mini")[0], 12, (185, 1)).for_training()
    shapes = {name: [tuple(p.shape) for p in net.params[name]] for name in ("conv1_1", "fc6")}
    blobs = {name: ("any", [np.full(shape, 0.5, np.float32) for shape in sizes])
             for name, sizes in shapes.items()}
    blobs["fc6"][1][0] = blobs["fc6"][1][0].reshape(1, 1, len(blobs["fc6"][1][0]), -1)
    blobs["conv1_2"] = blobs["conv2_1"] = ("any", [np.zeros((9, 9, 3, 3), np.float32)] * 2)
    file = tmp_path / "vgg16.caffemodel"
    write_caffemodel(file, "VGG", blobs)
    assert load_vgg16(net, file) == (f"initial weights: conv1_1, fc6 of {file}; of another size: "
                                     "conv2_1")
    assert (net.params["fc6"][0] == 0.5).all()
    folders = {Experiment(profile, data, tmp_path, backbones).plan({"4": [row]}, 1)[0][0].folder
               for row in (Row("fcn-8s", system=()),) for backbones in ({}, {VGG16: file})}
    assert len(folders) == 2
    write_caffemodel(file, "VGG", {"conv1_1": blobs["conv2_1"]})
    with pytest.raises(UserError, match="fits no layer of .*, 1 layer of another size: leave out"):
        Experiment(profile, data, tmp_path, {VGG16: file}).settings(Row("segnet", system=()), 0)


def test_a_systems_network_is_tested_as_others(tiny, systems):
    """The finished row's files give its figures again."""
    profile, data, _ = tiny
    out = systems["dilatednet"]
    net = training.load_system(out.parent)
    matrix = evaluate(net, Experiment(profile, data, out).pairs("val"), classes=net.classes,
                      protocol=profile.protocol, progress=False)
    result = json.loads((out / "result.json").read_text())
    assert matrix.counts.tolist() == result["confusion"]
    assert dataclasses.replace(profile.protocol).facts()["crop_size"] == result["test"]["crop_size"]


def test_paper_table_has_further_rows(tmp_path):
    other = Row("mine", label="mine", system=())
    for profile in (MINI, renamed(data="ade20k", contextual=())):
        results = Results({name: [write_run(tmp_path / profile.data / name, result(0, figure))]
                           for name, figure in ((BASELINE, 0.4), ("mine", 0.5))}, profile)
        _, table, *_ = table_blocks("1", results, profile, [*TABLES["1"], other])
        assert len(table.rows) == len(TABLES["1"]) + 1
        last = dict(zip(table.heads, table.rows[-1], strict=True))
        assert (last["Setting"], last["mean IoU"], last["row"]) == ("mine", "50.00", "mine")
        assert last.get("rank", "-") == last.get("paper's mean IoU", "-") == "-"
    assert orderings("1", results) == []
