"""pspnet train with tests along the way."""

import shlex

import pytest
from helpers.commands import SMALL, run

from pspnet_repro.__main__ import build_parser

NET = ("--classes", 4, *SMALL, "--bins", "1,2", "--crop-size", 57)


def _words(output, *words):
    return ("train", "--output", output, *NET, "--batch-size", 2, "--max-iter", 2, "--threads", 1,
            *words)


def _commands(folder):
    """The commands that a training's log ends with."""
    lines = (folder / "log.txt").read_text().splitlines()
    return [shlex.split(line.partition("pspnet ")[2]) for line in lines if " test it" in line]


def test_the_command_validates_and_names_commands_that_test(squares, tmp_path, capfd):
    output = tmp_path / "a run's"
    code, said, error = run(capfd, *_words(output, "--data", squares, "--val-interval", 1))
    assert code == 0 and said.strip() == str(output / "weights.pt"), error
    weights, best = _commands(output)
    assert f"test it: pspnet {shlex.join(best)}" in error
    assert weights[2] == str(output / "weights.pt") and best[2] == str(output / "best.pt")
    for words in (weights, best):
        assert build_parser().parse_args(words).split == "val"
        code, said, error = run(capfd, *words, "--base-size", 71)
        assert code == 0 and "mean IoU" in said, error


def test_the_command_tests_what_it_can(squares, tmp_path, capfd):
    listed = squares / "train.txt"
    assert run(capfd, *_words(tmp_path / "run", "--data", listed, "--ignore", "9,254"))[0] == 0
    line, = _commands(tmp_path / "run")
    assert line[-8:] == ["--data", str(listed), "--ignore", "9,254", "--split", "train",
                         "--threads", "1"]
    assert "test it on the images that it learned from, or name others" in (
        tmp_path / "run" / "log.txt").read_text()
    code, _, error = run(capfd, *_words(
        tmp_path / "other", "--data", listed, "--val-interval", 2, "--val-data",
        squares / "val.txt", "--padding", "centre"))
    assert code == 0, error
    assert f"2 images of {squares / 'val.txt'}, val" in (tmp_path / "other" / "log.txt").read_text()
    assert _commands(tmp_path / "other")[0][3:] == [
        "--data", str(squares / "val.txt"), "--split", "val", "--centre-padding", "--threads", "1"]


@pytest.mark.parametrize("words, said", [
    (("--data", "{data}/train.txt", "--val-interval", 1),
     "--val-data must name the images of the validation"),
    (("--data", "{data}", "--val-interval", 1, "--val-split", "dev"),
     "dev.txt: no such list file; the splits in this folder are train, val"),
    (("--data", "{data}", "--val-interval", 1, "--val-data", "none"),
     "none: no such data folder; or train without a validation, --val-interval 0"),
    (("--data", "{data}", "--val-data", "x"), "--val-data and --val-split need --val-interval"),
    (("--data", "{data}", "--val-interval", -1), "must be 0 to 2147483647, got -1")])
def test_validation_data_that_are_not_there_are_refused(squares, tmp_path, capfd, words, said):
    words = [word.format(data=squares) if isinstance(word, str) else word for word in words]
    code, _, error = run(capfd, *_words(tmp_path / "run", *words))
    assert code == 2 and said in error and not (tmp_path / "run").exists()
