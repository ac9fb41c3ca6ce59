"""The command pspnet: its help and its refusals."""

import argparse
import subprocess
import sys

import pytest
from helpers.paths import ROOT

from experiments import profiles, rows
from pspnet_repro import __version__
from pspnet_repro.__main__ import build_parser, main
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
        assert text.partition("examples:\n")[2].count("\n") == 2, name
        for action in parser._actions:
            if action.option_strings and action.nargs != 0 and action.default not in (
                    None, argparse.SUPPRESS):
                assert "default: " in parser._get_formatter()._get_help_string(action), (
                    name, action.dest)


@pytest.mark.parametrize("words, said", [
    (["predct"], "invalid choice: 'predct'"), (["predct"], "; did you mean predict?"),
    (["predict", "a", "--weights", "w", "-o", "o", "--bach-size", "4"],
     "unrecognized arguments: --bach-size 4; did you mean --batch-size?"),
    (["train", "--data", "d", "--output", "o", "--pool", "max-pool"], "invalid choice: 'max-pool'"),
    (["train", "--data", "d", "--output", "o", "--max-itr=3"], "did you mean --max-iter?"),
    (["evaluate", "--weights", "w", "--data", "d", "--multi"], "did you mean --multi-scale?")])
def test_misspelt_words_come_with_the_nearest(capsys, words, said):
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    assert said in capsys.readouterr().err


def test_what_the_options_name_is_what_there_is():
    assert set(KNOWN) == set(LAYOUTS)
    assert set(AUGMENTATIONS) == set(train.AUGMENTATIONS)
    assert set(TABLES) == set(rows.TABLES) and set(PROFILES) == set(profiles.PROFILES)
