"""Errors of commands: one line, never a traceback."""

import os

import pytest
import torch

import prototxt_import.__main__ as imports
import pspnet_repro.__main__ as commands
from experiments import run_table
from prototxt_import import load_net, read_caffemodel
from prototxt_import.commands.work.recorded import read_recorded
from prototxt_import.conversion.written_net import is_caffemodel
from pspnet_repro.data.classes import read_classes
from pspnet_repro.data.pairs import read_list
from pspnet_repro.distributed import ProcessLost
from pspnet_repro.errors import UsageError, UserError, printable, report
from pspnet_repro.files import file_sha256
from pspnet_repro.weights import model_file, plain_file


@pytest.mark.parametrize("main, place, words", [
    (commands.main, "pspnet_repro.commands.work.check_data.run", ["check-data", "--data", "x"]),
    (imports.main, "prototxt_import.commands.work.run.run", ["run", "a", "b"]),
    (run_table.main, "experiments.run_table.run_tables", [])])
@pytest.mark.parametrize("error, code, said", [
    (MemoryError(), 1, "error: not enough memory\n"), (UserError("why"), 1, "error: why\n"),
    (torch.OutOfMemoryError("CUDA out of memory."), 1, "error: not enough memory\n"),
    (UsageError("how"), 2, "error: how\n"),
    (OSError(36, "File name too long", "a"), 1, "error: a: File name too long\n"),
    (BrokenPipeError(), 1, "error: BrokenPipeError\n")])
def test_commands_end_with_one_line(monkeypatch, capsys, main, place, words, error, code, said):
    def fail(*_):
        raise error

    monkeypatch.setattr(place, fail)
    assert main(words) == code
    assert capsys.readouterr().err == said


def test_memory_that_torch_lacks_is_told_and_bugs_keep_their_traceback(capsys):
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2 ** 60, dtype=torch.uint8)
    assert report(caught.value) == 1
    assert report(ProcessLost("process 1 is gone")) == 1  # also a RuntimeError, and no bug
    assert capsys.readouterr().err == "error: not enough memory\nerror: process 1 is gone\n"
    with pytest.raises(RuntimeError, match="sizes differ"):
        report(RuntimeError("sizes differ"))


@pytest.mark.parametrize("read", [
    model_file.load_model, plain_file.load, file_sha256, read_classes, read_list,
    read_caffemodel, load_net, read_recorded, is_caffemodel], ids=lambda read: read.__name__)
def test_pipes_are_refused(tmp_path, read):
    """Nothing would ever come from this one."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(UserError, match="pipe: cannot be read: not a regular file"):
        read(path)


def test_errors_are_printed_without_control_characters(capsys):
    assert report(UserError("a\x1b[31mb\x07\nsecond " + "x" * 5000)) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert first == r"error: a\x1b[31mb\x07"
    assert len(second) < 2100 and second.startswith("second xx") and " ... " in second
    assert printable("Grünfläche, 道路") == "Grünfläche, 道路"
