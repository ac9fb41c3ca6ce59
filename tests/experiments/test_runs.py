"""What identifies a run, and what a call of run_table.py has to do."""

import dataclasses

import pytest

from experiments import plan
from experiments.experiment import Experiment
from experiments.profiles import PROFILES
from experiments.rows import BASELINE, FULL, ROWS, TABLES
from pspnet_repro import PSPNet
from pspnet_repro.data.benchmarks import CAMVID_TABLE
from pspnet_repro.data.labels import ZERO_IS_VOID
from pspnet_repro.errors import UsageError, UserError
from pspnet_repro.evaluation import MULTI_SCALE
from pspnet_repro.evaluation.protocol import preset
from pspnet_repro.files import file_sha256
from pspnet_repro.model.resnet import ResNet
from pspnet_repro.weights import model_file, plain_file
from pspnet_repro.weights.torchvision import INPUT

MINI = PROFILES["mini"]


@pytest.fixture
def data(tmp_path):
    for split in ("train", "val"):
        (tmp_path / f"{split}.txt").write_text("a.png b.png\n")
    return tmp_path


def _experiment(data, profile=MINI, backbones=None):
    return Experiment(profile, data, data / "runs", backbones)


def _plan(table, data, seeds=1, names="all"):
    return _experiment(data).plan(plan.select_tables(table, names), seeds)


def test_18_trainings_make_all_tables(data):
    trainings, folders = _plan("all", data)
    assert len(trainings) == 18
    assert {row.name for number in "1234" for row in TABLES[number]} == set(folders)
    # Single and multi-scale tests of the four depths, and one test of each other training.
    assert sum(len(training.tests) for training in trainings) == 22
    full, = [training for training in trainings if training.row == FULL]
    assert full.rows == [FULL, f"{FULL}-ms"]
    fidelity, _ = _plan("fidelity", data)
    assert len(fidelity) == 13 and len(_plan("all", data, seeds=3)[0]) == 54


def test_seeds_have_folders_of_their_own(data):
    trainings, folders = _plan("1", data, seeds=2, names=f"{BASELINE},{FULL}")
    assert [(t.row, t.settings.seed) for t in trainings] == [
        (BASELINE, 0), (FULL, 0), (BASELINE, 1), (FULL, 1)]
    assert [folder.parent.name[:14] for folder in folders[BASELINE]] == [
        "baseline-seed0", "baseline-seed1"]


def test_a_plan_says_what_is_there(data):
    (training,), folders = _plan("3", data, names=f"{FULL},{FULL}-ms")
    assert training.state() == "to do" and training.steps_done() == 0
    training.folder.mkdir(parents=True)
    (training.folder / "losses.jsonl").write_text("{}\n" * 7)
    assert training.state() == "interrupted at step 7 of 600"
    (training.folder / "weights.pt").touch()
    assert training.state() == "trained, 2 of 2 tests to do" and training.images_done(9) == 0
    folders[FULL][0].mkdir()
    (folders[FULL][0] / "counts.jsonl").write_text("{}\n" * 4)
    assert training.images_done(9) == 3
    (folders[FULL][0] / "result.json").touch()
    assert training.images_done(9) == 9
    assert training.state() == "trained, 1 of 2 tests to do"
    assert [test.row for test in training.missing()] == [f"{FULL}-ms"]
    folders[f"{FULL}-ms"][0].mkdir()
    (folders[f"{FULL}-ms"][0] / "result.json").touch()
    assert training.state() == "done" and training.missing() == []


def test_lists_of_a_benchmark_have_its_labels(data):
    tables = {name: _experiment(data, PROFILES[name]).pairs("val")[0].table
              for name in PROFILES}
    assert tables == {"mini": None, "camvid": CAMVID_TABLE, "camvid-281": CAMVID_TABLE,
                      "camvid-329": CAMVID_TABLE, "paper": ZERO_IS_VOID}


def test_backbones_are_tried_with_the_plan(data, tmp_path):
    def check(backbones):
        _experiment(data, backbones=backbones).plan(plan.select_tables("all", "all"), 1)

    nets = [PSPNet(12, **MINI.model, **MINI.depths[depth]) for depth in (50, 101)]
    files = [tmp_path / "50.pt", tmp_path / "101.pt"]
    for file, net in zip(files, nets):
        model_file.save_model(file, net.backbone)
    check({50: files[0]})
    lacking = model_file.read_model_file(files[0])
    del lacking["weights"]["stem.0.conv.weight"]
    plain_file.save(tmp_path / "lacking.pt", lacking)
    with pytest.raises(UserError, match="lacking.pt"):
        check({50: tmp_path / "lacking.pt"})
    with pytest.raises(UsageError, match=r"blocks must be \(1, 1, 2, 1\), for which the weights of "
                                         r".*101.pt were made, got \(1, 1, 1, 1\)"):
        check({50: files[1]})


def test_a_training_is_named_by_everything_that_matters(data, tmp_path):
    def folder(name=BASELINE, seed=0, profile=MINI, backbones=None):
        trainings, _ = _experiment(data, profile, backbones).plan({"any": [ROWS[name]]}, seed + 1)
        return trainings[seed].folder

    weights = tmp_path / "weights.pt"
    model_file.save_model(weights, PSPNet(12, **MINI.model, **MINI.depths[50]).backbone)
    folders = {folder(), folder(seed=1), folder(FULL), folder("aux-0.3"), folder("depth-101"),
               folder("train-biased"), folder(backbones={50: weights}),
               folder(profile=dataclasses.replace(MINI, train={**MINI.train, "base_lr": 0.02})),
               folder(profile=dataclasses.replace(MINI, model={**MINI.model, "width": 0.25}))}
    (data / "train.txt").write_text("c.png b.png\n")
    folders.add(folder())
    assert len(folders) == 10
    assert folder(FULL) == folder(f"{FULL}-ms") == folder("test-no-flip")


def test_a_network_takes_the_structure_of_its_backbone(data, tmp_path):
    def settings(profile):
        return _experiment(data, profile, {50: weights}).settings(ROWS[FULL], 0)

    weights = tmp_path / "weights.pt"
    open_profile = dataclasses.replace(
        MINI, model={name: value for name, value in MINI.model.items() if name != "stride_in"})
    for place in ("1x1", "3x3"):
        model_file.save_model(weights, ResNet(
            blocks=(1, 1, 1, 1), stem="classic", stem_width=16, widths=(8, 16, 32, 64),
            stride_in=place))
        assert settings(open_profile).model["stride_in"] == place
        assert PSPNet(**settings(open_profile).model).backbone.settings["stride_in"] == place
    assert settings(MINI).model == {**MINI.model, **MINI.depths[50], "classes": 12,
                                    **ROWS[FULL].model}
    model_file.save_model(weights, ResNet(
        blocks=(1, 1, 1, 1), stem="classic", stem_width=16, widths=(8, 16, 32, 64),
        stride_in="1x1"))
    with pytest.raises(UsageError, match=f"stride_in must be 1x1, for which the weights of "
                                         f"{weights} were made, got 3x3: leave it to the file"):
        settings(MINI)


def test_padding_of_a_row_changes_nothing_else(data):
    centre, other = (_experiment(data).settings(ROWS[name], 0) for name in ("train-centre", FULL))
    assert centre == dataclasses.replace(other, augmentation=dataclasses.replace(
        MINI.train["augmentation"], padding="centre"))


def test_a_test_of_another_network_is_one_of_its_own(data):
    trainings, folders = _plan("fidelity", data, names="authors,test-bottleneck-stride")
    training, = trainings
    assert {folder: test.network for folder, test in training.tests.items()} == {
        folders["authors"][0]: {}, folders["test-bottleneck-stride"][0]: {"stride_in": "1x1"}}
    assert plan.Training.from_json(training.to_json()).tests == training.tests


def test_rows_of_another_structure_than_the_backbones_are_left_out(data, tmp_path):
    weights = tmp_path / "weights.pt"
    structure = {"blocks": (1, 1, 1, 1), "stem": "classic", "stem_width": 16,
                 "widths": (8, 16, 32, 64), "stride_in": "3x3"}
    tables = plan.select_tables("fidelity", "all")
    for theirs, apart in (({}, {"train-bottleneck-stride", "train-imagenet-input", "train-semseg",
                                "semseg"}), (INPUT, {"train-bottleneck-stride"})):
        model_file.save_model(weights, ResNet(**structure, **theirs))
        _, folders = _experiment(data, backbones={50: weights}).plan(tables, 1)
        assert {row.name for row in tables["fidelity"]} - folders.keys() == apart


def test_semsegs_recipe_is_what_its_facts_are(data):
    experiment = _experiment(data, PROFILES["paper"])
    settings = experiment.settings(ROWS["semseg"], 0)
    net = PSPNet(**settings.model)
    assert (net.settings.stride_in, net.settings.variance, net.settings.spatial_dropout) == (
        "3x3", "torch", True)
    assert net.backbone.stem[0].bn.momentum == 0.1 and net.settings.input_order == "rgb"
    assert (settings.guidance, settings.augmentation.padding, settings.rate_in_momentum,
            settings.decay_bn) == ("full", "centre", False, True)
    assert experiment.protocol(ROWS["semseg"]) == preset("semseg", 512, 473, scales=MULTI_SCALE)
    assert experiment.protocol(ROWS["train-semseg"]) == experiment.protocol(ROWS["authors"])


def test_the_other_place_of_the_stride_is_the_profiles(data):
    def place(profile, name):
        return _experiment(data, profile).settings(ROWS[name], 0).model.get("stride_in")

    assert [place(MINI, name) for name in (FULL, "train-bottleneck-stride")] == ["3x3", "1x1"]
    assert [place(PROFILES["paper"], name) for name in (FULL, "train-bottleneck-stride")] == [
        None, "3x3"]


def test_rows_of_one_protocol_share_a_test(data):
    """The authors' program at one scale is the full row itself, in another table."""
    (_, ours), (_, theirs) = (_plan(table, data, names=name)
                              for table, name in (("1", FULL), ("fidelity", "authors")))
    assert ours[FULL] == theirs["authors"]


def test_a_test_is_named_by_its_protocol_and_list(data):
    def folder(row, profile=MINI):
        _, folders = _experiment(data, profile).plan({"any": [row]}, 1)
        return folders[row.name][0].name

    names = {folder(row, profile) for row in TABLES["fidelity"][:9]
             for profile in (MINI, dataclasses.replace(MINI, base_size=200))}
    assert len(names) == 18
    (data / "val.txt").write_text("c.png b.png\n")
    assert folder(TABLES["fidelity"][0]) not in names


def test_protocol_of_a_row(data):
    protocol = _experiment(data, PROFILES["paper"]).protocol(ROWS["test-stride"])
    assert (protocol.stride, protocol.base_size, protocol.scales) == (473, 512, MULTI_SCALE)


def test_select_tables():
    assert list(plan.select_tables("all", "all")) == ["1", "2", "3", "4", "5"]
    chosen = plan.select_tables("1", "b1-ave, baseline")
    assert [row.name for row in chosen["1"]] == ["baseline", "b1-ave"]
    assert list(plan.select_tables("all", "aux-0.6")) == ["2", "5"]
    with pytest.raises(UsageError, match="table 1 has no row 'b2'; rows are baseline, b1-max"):
        plan.select_tables("1", "b2")
    with pytest.raises(UsageError, match="--rows: no table has a row 'b2'"):
        plan.select_tables("all", "b2")


def test_data_set_takes_lists_and_ade20k_as_downloaded(tmp_path):
    for part in ("training", "validation"):
        (tmp_path / "images" / part).mkdir(parents=True)
        (tmp_path / "images" / part / "ADE_1.jpg").touch()
    profile = PROFILES["paper"]
    pair, = _experiment(tmp_path, profile).pairs("val")
    assert pair.label == tmp_path / "annotations" / "validation" / "ADE_1.png"
    as_downloaded = _experiment(tmp_path, profile)
    assert (as_downloaded.settings(ROWS[FULL], 0).list_sha256
            == as_downloaded.data.digest("train"))
    (tmp_path / "train.txt").write_text("a.jpg b.png\n")
    (tmp_path / "val.txt").write_text("a.jpg\n")
    with_lists = _experiment(tmp_path, profile)
    pair, = with_lists.pairs("train")
    assert pair.label == tmp_path / "b.png" and pair.table[:3] == b"\xff\x00\x01"
    assert with_lists.list_sha256("train") == file_sha256(tmp_path / "train.txt")
    with pytest.raises(UserError, match="val.txt must name an image and a label a line"):
        with_lists.pairs("val")
    with pytest.raises(UserError, match="no such data folder"):
        _experiment(tmp_path / "nowhere", profile)
