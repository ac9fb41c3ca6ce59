"""The commands and the Python of README and docs run, on small files of the same names.

A comment `# needs ...` marks a command that needs more than these files, or much time; on a line of
its own it marks the commands below it. They are parsed, see test_docs. `make` only prints what it
would do, trainings are cut down to two steps of a small network, and photographs are made small.
"""

import re
import shlex
import subprocess

import numpy as np
import pytest
import torch
from helpers.doc_files import SIDE, TINY, furnish
from helpers.doc_pages import PAGES, ROOT, command_lines, fences

from pspnet_repro import PSPNet
from pspnet_repro.__main__ import main

TWO_STEPS = ("--max-iter", "2", "--batch-size", "2", "--crop-size", "41")
SMALL = ("--width", "0.125", "--stem-width", "8", "--blocks", "1,1,1,1")
FENCES = [pytest.param(fence, id=f"{page.stem}-{number}")
          for page in PAGES for number, fence in enumerate(fences(page, "sh"))]
PYTHON = [pytest.param("\n".join(fences(page, "python")), id=page.stem)
          for page in PAGES if fences(page, "python")]


def _shortened(words):
    """A command's words, with settings at their end that make little work."""
    if words[0] in ("predict", "evaluate"):
        return [*words, "--base-size", "96", "--crop-size", str(SIDE)]
    if words[0] == "train":
        return [*words, *TWO_STEPS, *(() if "--initial-weights" in words else SMALL)]
    return words


@pytest.mark.parametrize("fence", FENCES)
def test_commands_run(fence, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    for line in command_lines(fence):
        words = shlex.split(line, comments=True)
        if not words and "# needs " in line:
            break
        if not words or "# needs " in line:
            continue
        if words[0] == "make":
            subprocess.run([*words, "--dry-run"], cwd=ROOT, check=True, capture_output=True)
            continue
        assert words[0] == "pspnet", line
        furnish(tmp_path, _inputs(line))
        assert main(_shortened(words[1:])) == 0, (line, capfd.readouterr().err)


def _inputs(line):
    """A command line without the files that it writes."""
    return re.sub(r" (-o|--output) (\S+\.prototxt )?\S+", "", line)


@pytest.mark.parametrize("code", PYTHON)
def test_python_runs(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    furnish(tmp_path, code)
    rng = np.random.default_rng(0)
    names = {"image": rng.integers(0, 256, (50, 70, 3), np.uint8), "rows": 20, "columns": 30,
             "image_rgb": rng.integers(0, 256, (50, 70, 3), np.uint8),
             "label": rng.integers(0, 150, (50, 70), np.uint8),
             "predicted": rng.integers(0, 150, (50, 70), np.uint8),
             "model": PSPNet(3, **TINY), "images": torch.zeros(2, 3, SIDE, SIDE),
             "labels": torch.zeros(2, 1, SIDE, SIDE)}
    exec(compile(code, "documents", "exec"), names)
