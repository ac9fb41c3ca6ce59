"""The command train: what it makes of its arguments."""

import json
import subprocess
import sys

import numpy as np
import pytest
from helpers.commands import SMALL, run
from helpers.image_files import GREY, put
from helpers.paths import ROOT

from pspnet_repro import PSPNet
from pspnet_repro.data.augment import NO_AUGMENTATION, Augmentation
from pspnet_repro.data.classes import known_classes, read_classes
from pspnet_repro.errors import UsageError
from pspnet_repro.evaluation.network_file import read_network
from pspnet_repro.training.initial_weights import read_structure, with_structure
from pspnet_repro.weights import model_file

NET = (*SMALL, "--bins", "1,2")


@pytest.fixture
def cityscapes(tmp_path):
    name = "bonn_000001_000019"
    put(tmp_path / "leftImg8bit" / "train" / "bonn" / f"{name}_leftImg8bit.png", GREY)
    put(tmp_path / "gtFine" / "train" / "bonn" / f"{name}_gtFine_labelIds.png", GREY[..., 0])
    return tmp_path


# Paper, 5.1: 150K, 30K and 90K iterations; crops of 473, 473 and 713; rotation and blur for
# ADE20K and VOC.
@pytest.mark.parametrize("name, classes, crop_size, max_iter, augmentation", [
    ("ade20k", 150, 473, 150_000, Augmentation()),
    ("voc2012", 21, 473, 30_000, Augmentation()),
    ("cityscapes", 19, 713, 90_000, Augmentation(rotation=0.0, blur=False))])
def test_a_benchmark_brings_the_papers_recipe(request, asked, capfd, tmp_path, name, classes,
                                              crop_size, max_iter, augmentation):
    folder = request.getfixturevalue({"ade20k": "ade", "voc2012": "voc"}.get(name, name))
    code, _, error = run(capfd, "train", "--data", f"{name}={folder}", "--output", tmp_path / "run")
    assert code == 0, error
    settings, = asked
    assert (settings.model["classes"], settings.crop_size, settings.max_iter) == (
        classes, crop_size, max_iter)
    assert settings.augmentation == augmentation and settings.batch_size == 16


@pytest.mark.parametrize("word, augmentation", [
    ("all", Augmentation()), ("mirror-resize", Augmentation(rotation=0.0, blur=False)),
    ("none", NO_AUGMENTATION)])
def test_what_is_said_overrides_the_recipe(cityscapes, asked, capfd, tmp_path, word, augmentation):
    code, _, error = run(capfd, "train", "--data", f"cityscapes={cityscapes}",
                         "--output", tmp_path / "run", "--augmentation", word, "--crop-size", 89,
                         "--max-iter", 5)
    assert code == 0, error
    assert asked[0].augmentation == augmentation
    assert (asked[0].crop_size, asked[0].max_iter) == (89, 5)


@pytest.mark.parametrize("words, frozen", [
    ((), (None, False)), (("--freeze-bn", "all"), ("all", False)),
    (("--freeze-backbone",), (None, True)),
    (("--freeze-bn", "backbone", "--freeze-backbone"), ("backbone", True))], ids=str)
def test_what_is_frozen_is_a_setting(cityscapes, asked, capfd, tmp_path, words, frozen):
    code, _, error = run(capfd, "train", "--data", f"cityscapes={cityscapes}",
                         "--output", tmp_path / "run", *words)
    assert code == 0, error
    assert (asked[0].freeze_bn, asked[0].freeze_backbone) == frozen


def test_random_weights_are_not_frozen(ade, capfd, tmp_path):
    code, _, error = run(capfd, "train", "--data", f"ade20k={ade}", "--output", tmp_path / "run",
                         *NET, "--crop-size", 41, "--freeze-backbone")
    assert code == 2 and error.strip().count("\n") == 0
    assert "normalization (--freeze-backbone) must have statistics" in error
    code, _, error = run(capfd, "train", "--data", f"ade20k={ade}", "--output", tmp_path / "run",
                         "--freeze-bn", "head")
    assert code == 2 and "--freeze-bn: invalid choice: 'head'" in error


def test_classes_come_from_beside_the_list_or_must_be_said(asked, capfd, tmp_path):
    put(tmp_path / "a.png", GREY)
    (tmp_path / "train.txt").write_text("a.png a.png\n")
    words = ("train", "--data", tmp_path, "--output", tmp_path / "run")
    code, _, error = run(capfd, *words)
    assert code == 2 and error.strip().endswith("it is no known benchmark and has no classes.txt")
    (tmp_path / "classes.txt").write_text("1 2 3 sea\n4 5 6 wide land\n")
    assert run(capfd, *words)[0] == 0
    assert asked[0].model["classes"] == 2 and asked[0].crop_size == 473
    code, _, error = run(capfd, *words, "--classes", 3)
    assert code == 2 and "--classes must be 2, the number of classes that" in error


def test_settings_are_refused_under_the_names_of_their_options(asked, tmp_path, capfd, monkeypatch):
    """Also where an option gives several settings."""
    put(tmp_path / "a.png", GREY)
    (tmp_path / "train.txt").write_text("a.png a.png\n")
    words = ("train", "--data", tmp_path, "-o", tmp_path / "run", "--classes", 3)
    file = tmp_path / "start.pt"
    model_file.save_model(file, PSPNet(3, width=0.125, stem_width=8, blocks=(1, 1, 1, 1)))
    made = f", for which the weights of {file} were made, got "

    def fail(settings, *_, initial_weights=None, **__):
        with_structure(settings.model, read_structure(initial_weights))
        try:
            PSPNet(3).check_crop(settings.crop_size)
        except ValueError as error:
            raise UsageError(str(error)) from error
        raise UsageError("base_lr must be finite and at least 0, got -1.0")

    monkeypatch.setattr("pspnet_repro.commands.work.train.train", fail)
    for options, said in (
            (("--depth", 101), f"--depth must be that of blocks (1, 1, 1, 1){made}101: "),
            (("--blocks", "1,1,1,2"), f"--blocks must be (1, 1, 1, 1){made}(1, 1, 1, 2): "),
            (("--width", 0.25), f"--width must be that of widths (8, 16, 32, 64){made}0.25: "),
            (("--stem-width", 9), f"--stem-width must be 8{made}9: "),
            (("--no-reduce",), f"--no-reduce: reduce must be True{made}False: "),
            (("--crop-size", 40), "--crop-size: crop sizes must be 8 * k + 1 pixels, got 40\n"),
            ((), "--base-lr must be finite and at least 0, got -1.0\n")):
        code, _, error = run(capfd, *words, "--initial-weights", file, *options)
        assert code == 2 and error.startswith(f"error: {said}") and error.count("\n") == 1, error
    model_file.save_model(file, PSPNet(3, width=0.125, stem_width=8))
    _, _, error = run(capfd, *words, "--initial-weights", file, "--depth", 101)
    assert error.startswith(f"error: --depth must be 50{made}101: leave it to the file")


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_results_do_not_lie_among_the_data(tmp_path, capfd, command):
    data = tmp_path / "data"
    put(data / "images" / "a.png", GREY)
    put(data / "labels" / "a.png", GREY[..., 0])
    (data / "train.txt").write_text("images/a.png labels/a.png\n")
    model_file.save_model(tmp_path / "w.pt", PSPNet(3, width=0.125, stem_width=8))
    (tmp_path / "link").symlink_to(data)
    folders = ("--images", data / "images", "--labels", data / "labels")
    before = sorted(data.rglob("*"))
    for output, words in ((data, ("--data", data)), (tmp_path / "link", ("--data", data)),
                          (data, ("--data", data / "train.txt")),
                          (data / "images", folders), (data / "labels", folders),
                          (data, ("--data", data / "train.txt", "--data-root", tmp_path))):
        more = ("--classes", 3) if command == "train" else ("--weights", tmp_path / "w.pt")
        code, _, error = run(capfd, command, *words, "--split", "train", *more, "-o", output)
        assert code == 2 and error == (
            f"error: --output {output} is a folder of the data: choose another, so that the "
            "results do not lie among the data\n")
    assert sorted(data.rglob("*")) == before


def test_train_takes_a_benchmark(ade, tmp_path, capfd):
    code, said, error = run(
        capfd, "train", "--data", f"ade20k={ade}", "--output", tmp_path / "run", *NET,
        "--crop-size", 41, "--batch-size", 2, "--max-iter", 1, "--threads", 1)
    assert code == 0, error
    settings = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert settings["data"] == "ade20k" and len(settings["list_sha256"]) == 64
    assert settings["model"]["classes"] == 150
    assert said.strip().endswith("weights.pt")
    file = read_network(tmp_path / "run" / "weights.pt")
    assert (file.classes, file.base_size, file.crop_size) == (known_classes("ade20k"), 512, 41)


def test_trained_weights_know_their_classes(tmp_path, capfd):
    put(tmp_path / "a.png", GREY)
    put(tmp_path / "b.png", GREY[..., 0])
    (tmp_path / "train.txt").write_text("a.png b.png\n")
    (tmp_path / "classes.txt").write_text("".join(f"{k} 2 3 thing {k}\n" for k in range(254)))
    code, _, error = run(
        capfd, "train", "--data", tmp_path, "--output", tmp_path / "run", *NET, "--crop-size", 41,
        "--batch-size", 1, "--max-iter", 1, "--threads", 1, "--base-size", 64)
    assert code == 0, error
    file = read_network(tmp_path / "run" / "weights.pt")
    assert file.classes == read_classes(tmp_path / "classes.txt") and file.base_size == 64


def _command(*words):
    return subprocess.run([sys.executable, "-m", "pspnet_repro", *map(str, words)], cwd=ROOT,
                          capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_commands_train_and_evaluate(squares, tmp_path):
    done = _command("train", "--data", squares, "--output", tmp_path / "run", "--classes", 4,
                    *SMALL, "--bins", "1,2", "--crop-size", 57, "--batch-size", 2, "--max-iter", 2,
                    "--threads", 1)
    assert done.returncode == 0, done.stderr
    weights = tmp_path / "run" / "weights.pt"
    assert done.stdout.strip() == str(weights)
    done = _command("evaluate", "--weights", weights, "--data", squares, "--base-size", 72,
                    "--crop-size", 57, "--output", tmp_path / "test")
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "test" / "result.json").read_text())
    assert f"mean IoU {100 * figures['mean_iou']:.2f}" in done.stdout
    assert np.sum(figures["confusion"]) == 2 * 72 * 72


@pytest.mark.slow
@pytest.mark.parametrize("words, code, said", [
    ((), 2, "error: the following arguments are required: "),
    (("train",), 2, "are required: -o/--output\nsee pspnet train --help\n"),
    (("train", "--data", "none", "--output", "o", "--classes", "0"), 2, "must be 1 to 254, got 0"),
    (("train", "--data", "", "--output", "o", "--classes", "3"), 2, "must not be empty"),
    (("train", "--data", "none", "--output", "o", "--classes", "3"), 1,
     "error: none: no such data folder"),
    (("evaluate", "--weights", "none.pt", "--data", "none"), 1, "error: none.pt: no such file"),
])
def test_commands_report_mistakes(words, code, said):
    done = _command(*words)
    assert done.returncode == code and said in done.stderr and "Traceback" not in done.stderr
    if code == 1:
        assert len(done.stderr.strip().splitlines()) == 1
