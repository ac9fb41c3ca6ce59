"""Mistakes that commands and files meet: one line that names them, never a traceback."""

import os
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import prototxt_import.__main__ as imports
import pspnet_repro.__main__ as commands
from experiments import run_table
from prototxt_import import load_net, read_caffemodel
from prototxt_import.commands.work.recorded import read_recorded
from pspnet_repro import load_model
from pspnet_repro.commands.options import weights
from pspnet_repro.data.classes import read_classes
from pspnet_repro.data.data_set import open_data
from pspnet_repro.data.pairs import read_list
from pspnet_repro.distributed import ProcessLost, find_device
from pspnet_repro.errors import UsageError, UserError, printable, report
from pspnet_repro.evaluation import ConfusionMatrix
from pspnet_repro.evaluation.figures import confusion_png
from pspnet_repro.files import file_sha256
from pspnet_repro.weights import model_file, plain_file
from pspnet_repro.weights.source import read_weights
from pspnet_repro.words import counted


class Stranger:
    """What a pickle may hold, and a file of weights may not."""


@pytest.mark.parametrize("name", ["x.pt", "x.safetensors"])
@pytest.mark.parametrize("content, words", [
    (b"", "an empty file"), (b"some text\n", "a text"),
    (bytes(range(7, 200)), "a file of no known kind"),
    ("pickle", r"a PyTorch file with objects of test_mistakes\.Stranger: only tensors are read")])
def test_damaged_weights_are_named(tmp_path, name, content, words):
    path = tmp_path / name
    if content == "pickle":
        torch.save({"weights": Stranger()}, tmp_path / "any.pt")
        (tmp_path / "any.pt").rename(path)
    else:
        path.write_bytes(content)
    with pytest.raises(UserError, match=f"{name}: this is {words}") as caught:
        model_file.load_model(path)
    assert "weights_only" not in str(caught.value) and "\n" not in str(caught.value)


def test_weights_of_one_format_may_be_named_as_the_other(tmp_path):
    plain_file.save(tmp_path / "x.pt", {"settings": {}, "weights": {"a": torch.ones(2)}})
    (tmp_path / "x.pt").rename(tmp_path / "x.safetensors")
    content = model_file.read_model_file(tmp_path / "x.safetensors")
    assert content["weights"]["a"].tolist() == [1, 1]


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
    read_caffemodel, load_net, read_recorded], ids=lambda read: read.__name__)
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


def test_numbers_come_with_the_right_words():
    assert [counted(number, "image") for number in (0, 1, 2)] == ["0 images", "1 image", "2 images"]
    assert counted(3, "class") == "3 classes" and counted(1, "class") == "1 class"
    assert counted(1, "image is", "images are") == "1 image is"
    assert counted(2, "image is", "images are") == "2 images are"


@pytest.mark.parametrize("name", ["a\x1b[31m", "\u202ea", "a" * 81])
def test_names_that_cannot_be_printed_are_refused(tmp_path, name):
    path = tmp_path / "classes.txt"
    path.write_text(f"1 2 3 {name}\n", encoding="utf-8")
    with pytest.raises(UserError, match="line 1: a name must be at most 80 printable"):
        read_classes(path)


def test_byte_order_marks_are_skipped(tmp_path):
    (tmp_path / "classes.txt").write_text("\ufeff1 2 3 sea\n", encoding="utf-8")
    assert read_classes(tmp_path / "classes.txt").names == ("sea",)
    (tmp_path / "list.txt").write_text("\ufeffi.png l.png\n", encoding="utf-8")
    assert read_list(tmp_path / "list.txt")[0].image == tmp_path / "i.png"


@pytest.mark.parametrize("words, said", [
    (["train", "--data", "x", "--classes", "3", "--output"], "must be a folder, got the file"),
    (["train", "--data", "x", "--output", "o", "--classes", "3", "--batch-size", "2147483647"],
     "must be 1 to 4096, got 2147483647"),
    (["predict", "--weights", "w", "i", "--batch-size", "2147483647"], "must be 1 to 4096")])
def test_arguments_out_of_range_end_with_2(tmp_path, capsys, words, said):
    if words[-1] == "--output":
        (tmp_path / "file").write_text("")
        words = [*words, str(tmp_path / "file")]
    try:
        code = commands.main(words)
    except SystemExit as end:
        code = end.code
    assert code == 2
    assert said in capsys.readouterr().err


def test_colours_of_many_digits_are_refused(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_text(f"1 2 3 sea\n1 {'9' * 5000} 3 land\n")
    with pytest.raises(UserError, match="classes.txt, line 2: must be RED GREEN BLUE NAME"):
        read_classes(path)


@pytest.mark.parametrize("name", [r"$\frac$", "$$", "a" * 5000, r"\$_^{"])
def test_any_name_of_a_class_can_be_drawn(name):
    matrix = ConfusionMatrix(2)
    matrix.update(np.array([0, 1]), np.array([0, 1]))
    picture = cv2.imdecode(np.frombuffer(confusion_png(matrix, (name, "sea")), np.uint8),
                           cv2.IMREAD_COLOR)
    assert max(picture.shape) < 1000 and picture.min() < 100


@pytest.mark.parametrize("line, wanted", [
    ("../d/i0.png", "%parent/d/i0.png"), ("d/i0.png", "d/i0.png"),
    ("a/../../../i0.jpg", "a/%parent/%parent/%parent/i0.png")])
def test_predictions_stay_in_their_folder(tmp_path, line, wanted):
    (tmp_path / "val.txt").write_text(f"{line}\n")
    data = open_data(str(tmp_path))
    assert data.submission(data.pairs("val")[0], "val").as_posix() == wanted


@pytest.mark.parametrize("words", [
    ["N.prototxt,"], ["W.caffemodel,"], [",W.caffemodel"], ["W.caffemodel,N.prototxt"]])
def test_a_pair_of_weights_has_an_order(capsys, words):
    for command in (["predict", "p.jpg", "-o", "out", "--weights"], ["export", "-o", "a", "b"],
                    ["train", "--output", "out", "--data", "d", "--initial-weights"],
                    ["table", "--backbone"]):
        value = f"50={words[0]}" if command[0] == "table" else words[0]
        with pytest.raises(SystemExit, match="2"):
            commands.build_parser().parse_args([*command, value])
        assert (f"must be a file, or NET.prototxt,W.caffemodel in this order, got {words[0]!r}"
                in capsys.readouterr().err)


def test_a_pair_of_weights_may_hold_commas():
    assert weights("a,b.prototxt,w,x.caffemodel") == (Path("a,b.prototxt"), Path("w,x.caffemodel"))
    assert weights("a,b.pt") == Path("a,b.pt")


def test_a_benchmark_without_its_folder_is_refused():
    with pytest.raises(UsageError, match="ade20k=: must name the folder of the data, ade20k=DIR"):
        open_data("ade20k=")


@pytest.mark.parametrize("wrong", [None, 3, b"x.pt", ("N.prototxt",), ("a", "b", "c"), ("a", None)])
def test_weights_are_a_path_or_a_pair(wrong):
    with pytest.raises(UsageError, match="weights must be a path, or a pair of paths"):
        read_weights(wrong)
    with pytest.raises(UsageError, match="weights must be the path of a file, got "):
        load_model(wrong)


@pytest.mark.parametrize("built, count, said", [
    (False, 0, r"device cuda: this torch \({}\) is built without CUDA: install a torch with CUDA"),
    (True, 0, "device cuda: torch finds no GPU; nvidia-smi says"),
    (True, 2, "needs a GPU for each process of a machine, got 2 for process 3: start at most 2")])
def test_a_missing_gpu_is_told_with_its_reason(monkeypatch, built, count, said):
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: built)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setenv("LOCAL_RANK", "3")
    with pytest.raises(UsageError, match=said.format(re.escape(torch.__version__))):
        find_device("cuda")


def test_another_device_is_refused():
    for wrong in ("tpu", "cuda:1", "", None):
        with pytest.raises(UsageError, match=f"device must be cpu or cuda, got {wrong!r}"):
            find_device(wrong)
