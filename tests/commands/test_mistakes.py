"""Mistakes that commands meet: one line that names them, never a traceback."""

import cv2
import numpy as np
import pytest
from helpers.commands import SIZES, run

import pspnet_repro.__main__ as commands
from pspnet_repro.commands.work.testing import say_protocol
from pspnet_repro.evaluation import Protocol


def test_commands_refuse_images_without_a_certain_brightness(photos, weights, tmp_path, capfd):
    pfm = cv2.imencode(".pfm", np.ones((60, 80), np.float32))[1].tobytes()
    for name in ("0.png", "in/0.png"):
        (photos / name).parent.mkdir(exist_ok=True)
        (photos / name).write_bytes(pfm)
    for words in (("evaluate", "--weights", weights, "--data", photos, *SIZES),
                  ("predict", "--weights", weights, photos / "in", "-o", tmp_path / "out", *SIZES),
                  ("check-data", "--data", photos, "--split", "val"),
                  ("train", "--data", photos / "val.txt", "--output", tmp_path / "run",
                   "--crop-size", 41, "--batch-size", 5, "--max-iter", 1, "--width", 0.125,
                   "--stem-width", 8, "--blocks", "1,1,1,1")):
        code, said, error = run(capfd, *words)
        assert code == 1 and "Traceback" not in error
        assert "0.png: must have 8 or 16 unsigned bits a channel, got float32; " in said + error


@pytest.mark.parametrize("words, code, sentence", [
    (("predict", "--weights", "{w}", "-o", "out"), 2, "name an image or a folder of images"),
    (("predict", "--weights", "{w}", "{d}/none.png", "-o", "{d}/o", *SIZES), 1, "no such image"),
    (("predict", "--weights", "{w}", "{d}/0.png", "-o", "{w}"), 2, "--output must be a folder"),
    (("predict", "--weights", "{w}", "{d}", "-o", "{d}/o", "--names", "ade20k"), 1,
     "ade20k: names 150 classes, but the network has 4"),
    (("predict", "--weights", "{w}", "{d}", "-o", "{d}/o", "--names", "ade"), 1,
     "ade: no such file; write a text file with a line RED GREEN BLUE NAME for each class, or "
     "give --names one of ade20k, voc2012, "),
    (("predict", "--weights", "{w}", "{d}", "-o", "{d}/o", "--names", "{d}"), 1,
     "cannot be read as names of classes: Is a directory; write a text file"),
    (("check-data", "--data", "{d}", "--names", "{w}"), 1,
     "weights.pt, line 1: must be text in UTF-8, got the byte 0x80; "),
    (("predict", "--weights", "none.pt", "{d}", "-o", "{d}/o"), 1, "none.pt: no such file"),
    (("evaluate", "--weights", "{w}", "--data", "{d}", "--crop-size", "90"), 2,
     "--crop-size: crop sizes must be 8 * k + 1"),
    (("evaluate", "--weights", "{w}", "--data", "{d}", *SIZES, "--window-stride", "90"), 2,
     "stride must be 1 to crop_size 89, got 90"),
    (("evaluate", "--weights", "{w}", "--data", "{d}", *SIZES, "--window-stride", "1"), 2,
     "--window-stride must be at least a 32nd of the crop, 2, got 1"),
    (("evaluate", "--weights", "{w}", "{d}", "--data", "{d}"), 2, "names more than weights"),
    (("evaluate", "--weights", "{w}", "--data", "{d}", "--output", "{w}"), 2, "must be a folder"),
    (("evaluate", "--weights", "{w}", "--data", "ade20k={d}"), 1, "no SceneParse150 data here"),
    (("evaluate", "--weights", "{w}", "--data", "{d}", "--split", "dev"), 1, "no such list file"),
])
def test_commands_report_mistakes(photos, weights, capfd, words, code, sentence):
    words = [word.format(w=weights, d=photos) for word in words]
    got, _, error = run(capfd, *words)
    assert got == code and sentence in error and "Traceback" not in error
    assert "Errno" not in error


@pytest.mark.parametrize("changes, said", [
    ({"scales": (0.5, 1, 1.75), "stride": 100, "flip": False},
     "resized to long sides of 257, 513, 897 (512 x 0.5, 1, 1.75 + 1); windows of 473 pixels every "
     "100 pixels; without the mirror image\n"),
    ({"plus_one": False, "whole_image": True},
     "resized to a long side of 512 (512 x 1); whole, without windows; averaged with the mirror "
     "image\n")])
def test_the_protocol_is_said_in_words(capsys, changes, said):
    say_protocol(Protocol(512, 473, **changes))
    assert capsys.readouterr().err == said


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
