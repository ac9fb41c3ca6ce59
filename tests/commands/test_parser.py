"""The command pspnet: its help and its refusals."""

import argparse
import subprocess
import sys

import pytest
from helpers.paths import ROOT

from experiments import profiles, rows
from pspnet_repro import __version__
from pspnet_repro.__main__ import build_parser, main
from pspnet_repro.commands.parser import _metavar
from pspnet_repro.commands.train import AUGMENTATIONS
from pspnet_repro.commands.work import train
from pspnet_repro.data.benchmarks import LAYOUTS
from pspnet_repro.data.classes import KNOWN
from pspnet_repro.defaults import PROFILES, TABLES


def _commands():
    action, = (action for action in build_parser()._actions
               if isinstance(action, argparse._SubParsersAction))
    return action.choices


@pytest.mark.parametrize("words", [["--help"], ["predict", "--help"], ["train", "--help"],
                                   ["convert", "--help"], ["table", "--help"], ["demo", "--help"],
                                   ["--version"]])
def test_help_imports_nothing_slow(words):
    code = ("import sys\nfrom pspnet_repro.__main__ import main\n"
            f"try:\n    main({words})\nexcept SystemExit as end:\n    assert end.code == 0\n"
            "print(*sorted({'torch', 'numpy', 'cv2', 'PIL'} & set(sys.modules)), file=sys.stderr)")
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                           cwd=ROOT)
    assert ended.stderr == "\n"
    assert ended.stdout.strip().endswith(__version__) if words == ["--version"] else (
        "examples:\n  pspnet " in ended.stdout)


def test_every_command_shows_defaults_and_two_examples():
    commands = _commands()
    assert set(commands) >= {"predict", "evaluate", "train", "check-data", "convert", "export",
                             "inspect", "run", "table", "demo"}
    for name, parser in commands.items():
        text = parser.format_help()
        assert text.partition("examples:\n")[2].count("\n") >= 2, name
        for action in parser._actions:
            if action.option_strings and action.nargs != 0 and action.default not in (
                    None, argparse.SUPPRESS):
                assert "default: " in parser._get_formatter()._get_help_string(action), (
                    name, action.dest)


@pytest.mark.parametrize("words, said", [
    (["predct"], "invalid choice: 'predct'"), (["predct"], "; did you mean predict?"),
    (["predict", "a", "--weights", "w", "-o", "o", "--bach-size", "4"],
     "error: unknown option --bach-size: did you mean --batch-size?\nsee pspnet predict --help\n"),
    (["predict", "photos", "-o", "x1", "--weigths", "W"],
     "error: unknown option --weigths: did you mean --weights?\n"),
    (["predict", "a", "--weights", "w", "-output", "o"], "option -output: did you mean --output?"),
    (["train", "--log", "3", "--nonsense"],
     "unknown option --log: did you mean --log-interval?; unknown option --nonsense\n"),
    (["help"], "did you mean --help?\nsee pspnet --help\n"), (["-help"], "did you mean --help?"),
    (["train", "--data", "d", "--output", "o", "--pool", "max-pool"], "invalid choice: 'max-pool'"),
    (["train", "--data", "d", "--output", "o", "--max-itr=3"], "did you mean --max-iter?"),
    (["evaluate", "--weights", "w", "--data", "d", "--multi"], "did you mean --multi-scale?")])
def test_misspelt_words_come_with_the_nearest(capsys, words, said):
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert said in error and error.startswith("error: ") and error.count("\n") == 2


@pytest.mark.parametrize("words, said", [
    (["train", "--data", "d", "-o", "o", "--bins", "1", "2", "3"],
     "2 3; separate the values of --bins by commas, without spaces: --bins 1,2,3\n"),
    (["train", "--data", "d", "-o", "o", "--blocks=1", "1", "1", "1", "--no-aux"],
     "--blocks 1,1,1,1\n"),
    (["train", "--data", "d", "-o", "o", "--bins", "1,", "2"], "with commas between and no spaces"),
    (["check-data", "--data", "d", "--ignore", "0", "254"], "--ignore 0,254\n"),
    (["table", "--rows", "a", "b"], "--rows a,b\n"),
    (["run", "N", "W", "--blobs", "conv1,", "conv2"], "--blobs conv1,conv2\n"),
    (["train", "d", "-o", "o"], "unrecognized arguments: d\n")])
def test_lists_that_are_split_by_spaces_come_with_commas(capsys, words, said):
    with pytest.raises(SystemExit, match="2"):
        main(words)
    assert said in capsys.readouterr().err


def test_every_value_has_a_name_in_the_help():
    """Not the option's own in capitals, as argparse has it."""
    for name, parser in _commands().items():
        for action in parser._actions:
            if action.nargs != 0 and action.choices is None:
                assert _metavar(action), (name, action.dest)
            assert action.dest != "output" or action.option_strings == ["-o", "--output"], name


def test_what_the_options_name_is_what_there_is():
    assert set(KNOWN) == set(LAYOUTS)
    assert set(AUGMENTATIONS) == set(train.AUGMENTATIONS)
    assert set(TABLES) == set(rows.TABLES) and set(PROFILES) == set(profiles.PROFILES)
