"""The commands evaluate and predict, from the command line to the files they write."""

import base64
import io
import json
import re

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from test_datasets import ade, put  # noqa: F401 (ade is a fixture)
from test_sliding import photograph, tiny_net

from prototxt_import import export
from pspnet_repro.__main__ import main
from pspnet_repro.commands.work.predict import output_names
from pspnet_repro.commands.work.testing import say_protocol
from pspnet_repro.data.classes import known_classes
from pspnet_repro.data.images import read_image
from pspnet_repro.data.pairs import read_pair
from pspnet_repro.evaluation import ConfusionMatrix, Protocol, predict_probabilities
from pspnet_repro.files import lock_folder
from pspnet_repro.weights import model_file

SIZES = ("--base-size", "96", "--crop-size", "89", "--threads", "1")


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "weights.pt"
    model_file.save_model(path, tiny_net())
    return path


@pytest.fixture
def data(tmp_path):
    """Five images with labels of four classes, their list, and names."""
    folder = tmp_path / "scenes"
    rng = np.random.default_rng(0)
    lines = []
    for k in range(5):
        size = (60 + 3 * k, 80)
        put(folder / f"{k}.png", photograph(*size, seed=k)[..., ::-1])
        label = rng.integers(0, 4, size)
        label[:9] = 255
        put(folder / f"{k}_label.png", label)
        lines.append(f"{k}.png {k}_label.png\n")
    (folder / "val.txt").write_text("".join(lines))
    (folder / "classes.txt").write_text("9 9 9 dust\n1 2 3 sea\n4 5 6 wide land\n7 8 9 sky\n")
    return folder


def run(capfd, *words):
    """(exit code, standard output, standard error) of a command."""
    try:
        code = main([str(word) for word in words])
    except SystemExit as stop:
        code = stop.code
    return code, *capfd.readouterr()


def labels_by_hand(net, path, **changes):
    settings = {"classes": 4, "base_size": 96, "crop_size": 89} | changes
    return predict_probabilities(net, read_image(path)[..., ::-1], **settings).argmax(2)


def counted_by_hand(data, net, **changes):
    matrix = ConfusionMatrix(4)
    for k in range(5):
        matrix.update(labels_by_hand(net, data / f"{k}.png", **changes),
                      cv2.imread(str(data / f"{k}_label.png"), cv2.IMREAD_UNCHANGED))
    return matrix


def _close(counts, wanted):
    """Whether counts agree but for the few pixels that other batches of a convolution may turn."""
    return (np.sum(counts) == wanted.counts.sum()
            and np.abs(np.array(counts) - wanted.counts).sum() <= 2e-3 * wanted.counts.sum())


def test_evaluate_writes_figures(data, weights, tmp_path, capfd):
    code, said, _ = run(capfd, "evaluate", "--weights", weights, "--data", data, *SIZES,
                        "--batch-size", 3)
    assert code == 0
    out = tmp_path / "evaluation-scenes-val"  # beside the weights
    figures = json.loads((out / "result.json").read_text())
    wanted = counted_by_hand(data, tiny_net())
    assert _close(figures["confusion"], wanted)
    assert figures["mean_iou"] == pytest.approx(wanted.mean_iou, abs=2e-3)
    assert figures["classes"] == ["dust", "sea", "wide land", "sky"] and figures["failed"] == 0
    assert figures["protocol"]["crop_size"] == 89 and figures["images"] == 5
    assert f"mean IoU {100 * figures['mean_iou']:.2f}  pixel accuracy " in said
    for name, words in (("mean_accuracy", "mean class accuracy"), ("score", "score"),
                        ("frequency_weighted_iou", "frequency-weighted IoU")):
        assert figures[name] == pytest.approx(getattr(wanted, name), abs=2e-3)
        assert f"{words} {100 * figures[name]:.2f} " in said
    assert f"class   2  wide land  IoU {100 * figures['iou'][2]:6.2f}" in said
    assert cv2.imread(str(out / "confusion.png")).shape[2] == 3
    assert not (out / "predictions").exists()


@pytest.mark.parametrize("words, changes", [
    (("--multi-scale",), {"scales": (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)}),
    (("--no-flip",), {"flip": False}), (("--no-antialias",), {"antialias": False}),
    (("--no-plus-one",), {"plus_one": False}), (("--centre-padding",), {"padding": "centre"}),
    (("--whole-image",), {"whole_image": True}), (("--window-stride", "4"), {"stride": 4}),
    (("--average-probabilities",), {"merge": "probabilities"}),
    (("--half-pixel-logits",), {"align_corners": False})])
def test_evaluate_switches(data, weights, tmp_path, capfd, words, changes):
    code, _, _ = run(capfd, "evaluate", "--weights", weights, "--data", data, *SIZES, *words,
                     "--output", tmp_path / "out")
    assert code == 0
    figures = json.loads((tmp_path / "out" / "result.json").read_text())
    for name, value in changes.items():
        assert figures["protocol"][name] == (list(value) if isinstance(value, tuple) else value)
    assert _close(figures["confusion"], counted_by_hand(data, tiny_net(), **changes))
    assert not np.array_equal(figures["confusion"], counted_by_hand(data, tiny_net()).counts)


def test_evaluate_goes_on_where_it_stopped(data, weights, tmp_path, capfd, monkeypatch):
    command = ("evaluate", "--weights", weights, "--data", data, *SIZES, "--batch-size", 1,
               "--output", tmp_path / "out")
    assert run(capfd, *command)[0] == 0
    whole = (tmp_path / "out" / "result.json").read_text()
    counts = tmp_path / "out" / "counts.jsonl"
    lines = counts.read_text().splitlines(keepends=True)
    assert len(lines) == 6
    # As if killed while the fourth image's line was written.
    counts.write_text("".join(lines[:4]) + lines[4][:20])
    (tmp_path / "out" / "result.json").unlink()
    read = []
    monkeypatch.setattr("pspnet_repro.evaluation.evaluate.read_pair",
                        lambda pair, *rest: read.append(pair.image.name) or read_pair(pair, *rest))
    assert run(capfd, *command)[0] == 0
    assert read == ["3.png", "4.png"]
    assert (tmp_path / "out" / "result.json").read_text() == whole
    assert counts.read_text() == "".join(lines)


def test_evaluate_guards_its_folder(data, weights, tmp_path, capfd):
    with lock_folder(tmp_path / "out"):
        code, _, error = run(capfd, "evaluate", "--weights", weights, "--data", data, *SIZES,
                             "--output", tmp_path / "out")
    assert code == 1 and "out: another process is at work in this folder" in error


def test_evaluate_refuses_counts_of_another_test(data, weights, tmp_path, capfd):
    command = ("evaluate", "--weights", weights, "--data", data, "--output", tmp_path / "out")
    assert run(capfd, *command, *SIZES)[0] == 0
    code, _, error = run(capfd, *command, *SIZES, "--no-flip")
    assert code == 1
    assert error.endswith("counts.jsonl: holds a test with protocol.flip = True, not False; it is "
                          "finished: choose another --output\n")
    # Images that are done would go without.
    code, _, error = run(capfd, *command, *SIZES, "--save-predictions")
    assert code == 1 and "holds a test with predictions = False, not True" in error
    net = tiny_net()
    with torch.no_grad():
        net.head.score.bias += 1
    model_file.save_model(weights, net)
    code, _, error = run(capfd, *command, *SIZES)
    assert code == 1 and "holds a test with weights_sha256 = " in error
    (tmp_path / "out" / "counts.jsonl").write_text("nonsense\n")
    code, _, error = run(capfd, *command, *SIZES)
    assert code == 1 and "counts.jsonl, line 1: not a record of a test" in error


def test_evaluate_reports_bad_images_and_goes_on(data, weights, tmp_path, capfd):
    (data / "1.png").write_text("no image")
    put(data / "3_label.png", np.full((69, 80), 9))
    code, said, error = run(capfd, "evaluate", "--weights", weights, "--data", data, *SIZES,
                            "--output", tmp_path / "out")
    assert code == 1 and "mean IoU" in said and "2 of 5 images could not be used" in error
    assert "1.png: not an image" in error and "3_label.png: labels must be 0..3 or 255" in error
    figures = json.loads((tmp_path / "out" / "result.json").read_text())
    assert figures["images"] == 3 and figures["failed"] == 2
    assert np.sum(figures["confusion"]) == (60 + 66 + 72 - 27) * 80
    # Mended, the same command tests what is missing.
    put(data / "1.png", photograph(63, 80, seed=1)[..., ::-1])
    put(data / "3_label.png", np.zeros((69, 80)))
    assert run(capfd, "evaluate", "--weights", weights, "--data", data, *SIZES, "--output",
               tmp_path / "out")[0] == 0


def test_evaluate_says_what_was_counted(data, weights, tmp_path, capfd):
    for k in range(5):
        label = np.full((60 + 3 * k, 80), 255)
        label[0, :7] = 1
        label[1, 0] = 3 * (k == 2)
        put(data / f"{k}_label.png", label)
    code, said, _ = run(capfd, "evaluate", "--weights", weights, "--data", data, *SIZES,
                        "--output", tmp_path / "out")
    assert code == 0 and "40 labelled pixels of 5 images counted\n" in said
    assert "classes that never occur in the labels and count as IoU 0: 1 of 4, wide land\n" in said
    figures = json.loads((tmp_path / "out" / "result.json").read_text())
    assert figures["labelled_pixels"] == 40 == np.sum(figures["confusion"])
    assert figures["classes_without_labels"] == ["wide land"]


def test_commands_refuse_images_without_a_certain_brightness(data, weights, tmp_path, capfd):
    pfm = cv2.imencode(".pfm", np.ones((60, 80), np.float32))[1].tobytes()
    for name in ("0.png", "in/0.png"):
        (data / name).parent.mkdir(exist_ok=True)
        (data / name).write_bytes(pfm)
    for words in (("evaluate", "--weights", weights, "--data", data, *SIZES),
                  ("predict", "--weights", weights, data / "in", "-o", tmp_path / "out", *SIZES),
                  ("check-data", "--data", data, "--split", "val"),
                  ("train", "--data", data / "val.txt", "--output", tmp_path / "run",
                   "--crop-size", 41, "--batch-size", 5, "--max-iter", 1, "--width", 0.125,
                   "--stem-width", 8, "--blocks", "1,1,1,1")):
        code, said, error = run(capfd, *words)
        assert code == 1 and "Traceback" not in error
        assert "0.png: must have 8 or 16 unsigned bits a channel, got float32; " in said + error


def test_evaluate_writes_no_figures_of_no_images(data, weights, tmp_path, capfd):
    for k in range(5):
        (data / f"{k}.png").write_text("no image")
    code, said, error = run(capfd, "evaluate", "--weights", weights, "--data", data, *SIZES,
                            "--output", tmp_path / "out")
    assert code == 1 and said == "" and error.endswith("none of the 5 images could be used\n")
    assert not (tmp_path / "out" / "result.json").exists()


def test_evaluate_tells_no_accuracy_without_labels(data, weights, tmp_path, capfd):
    for file in data.glob("*_label.png"):
        put(file, np.full(cv2.imread(str(file), cv2.IMREAD_GRAYSCALE).shape, 255))
    code, out, err = run(capfd, "evaluate", "--weights", weights, "--data", data, "--output",
                         tmp_path / "out", *SIZES)
    assert code == 1 and "accuracy" not in out
    assert "no pixel of the 5 images is labelled, so no accuracy is defined" in err
    assert not (tmp_path / "out" / "result.json").exists()


def test_evaluate_writes_submissions(ade, weights, tmp_path, capfd):  # noqa: F811
    model_file.save_model(weights, tiny_net(150))
    image = photograph(50, 70)
    put(ade / "release_test" / "testing" / "ADE_test_00000007.jpg", image)
    code, said, _ = run(capfd, "evaluate", "--weights", weights, "--data", f"ade20k={ade}",
                        "--split", "test", *SIZES, "--output", tmp_path / "out")
    assert code == 0 and "1 prediction is in" in said
    (file,) = (tmp_path / "out" / "predictions").rglob("*.png")
    assert file.name == "ADE_test_00000007.png"
    written = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
    wanted = labels_by_hand(tiny_net(150), ade / "release_test" / "testing" /
                            "ADE_test_00000007.jpg", classes=150) + 1
    assert written.dtype == np.uint8 and written.shape == (50, 70)
    assert (written == wanted).mean() > 0.998
    assert not (tmp_path / "out" / "result.json").exists()


def test_evaluate_saves_predictions_when_asked(data, weights, tmp_path, capfd):
    assert run(capfd, "evaluate", "--weights", weights, "--data", data, *SIZES, "--output",
               tmp_path / "out", "--save-predictions")[0] == 0
    files = sorted((tmp_path / "out" / "predictions").iterdir())
    assert [file.name for file in files] == [f"{k}.png" for k in range(5)]


def test_predict_writes_three_pictures(weights, tmp_path, capfd):
    image = photograph(60, 300)
    put(tmp_path / "in" / "photo.png", image[..., ::-1])
    (tmp_path / "names.txt").write_text("255 0 0 dust\n0 255 0 sea\n0 0 255 land\n9 9 9 sky\n")
    code, _, _ = run(capfd, "predict", "--weights", weights, tmp_path / "in" / "photo.png", "-o",
                     tmp_path / "out", *SIZES, "--names", tmp_path / "names.txt")
    assert code == 0
    label, colour, page = (cv2.imread(str(tmp_path / "out" / f"photo.{kind}.png"),
                                      cv2.IMREAD_UNCHANGED)
                           for kind in ("label", "colour", "overlay"))
    wanted = labels_by_hand(tiny_net(), tmp_path / "in" / "photo.png")
    assert label.shape == (60, 300) and (label == wanted).mean() > 0.998
    assert len(np.unique(label)) > 1
    palette = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 9, 9]])
    assert np.array_equal(colour[..., ::-1], palette[label])
    # Half of the photograph, half of the colour, rounded; below it a legend.
    mixed = (image.astype(int) + palette[label]) / 2
    assert np.abs(page[:60, ..., ::-1] - mixed).max() <= 0.5
    assert page.shape[1] == 300 and page.shape[0] > 75


def test_predict_takes_every_kind_of_file(weights, tmp_path, capfd):
    folder = tmp_path / "in"
    put(folder / "tiny.png", np.zeros((1, 1, 3)))
    put(folder / "long.png", np.zeros((4000, 20)))
    put(folder / "clear.png", np.zeros((30, 40, 4)))
    (folder / "notes.txt").write_text("no image")
    code, _, error = run(capfd, "predict", folder, "--weights", weights, "-o", tmp_path / "out",
                         *SIZES)
    assert code == 1 and "1 of 4 files could not be used" in error
    assert "notes.txt: not an image that OpenCV can read" in error
    assert "clear.png: its transparency is dropped" in error and "Traceback" not in error
    shapes = {file.name: cv2.imread(str(file), cv2.IMREAD_UNCHANGED).shape
              for file in (tmp_path / "out").glob("*.label.png")}
    assert shapes == {"tiny.label.png": (1, 1), "long.label.png": (4000, 20),
                      "clear.label.png": (30, 40)}


def test_what_is_not_said_comes_from_the_training(data, tmp_path, capfd):
    """The crop, and the names of a benchmark's classes; the words of the command come first."""
    path = tmp_path / "trained.pt"
    model_file.save_model(path, tiny_net(11), training={"crop_size": 89, "data": "camvid"})
    photo = next(data.glob("0.png"))
    words = ("predict", "--weights", path, photo, "--base-size", 96, "--threads", 1)
    code, said, error = run(capfd, *words, "-o", tmp_path / "out")
    assert code == 0 and error.startswith(
        "resized to a long side of 97 (96 x 1 + 1); windows of 89 pixels overlap by a third; "
        "averaged with the mirror image\n")
    assert said.strip() == f"3 pictures of 1 photograph are in {tmp_path / 'out'}"
    label = cv2.imread(str(tmp_path / "out" / "0.label.png"), cv2.IMREAD_UNCHANGED)
    colours = cv2.imread(str(tmp_path / "out" / "0.colour.png"))[..., ::-1]
    palette = np.array(known_classes("camvid").palette_rgb)
    assert np.array_equal(colours, palette[label])
    _, _, error = run(capfd, *words, "-o", tmp_path / "other", "--crop-size", 97)
    assert "windows of 97" in error


def test_output_names_never_meet(tmp_path):
    assert output_names([tmp_path / "a.png", tmp_path / "b.png"]) == ["a", "b"]
    assert output_names([tmp_path / "a.png", tmp_path / "a.jpg"]) == ["a.png", "a.jpg"]
    assert output_names([tmp_path / "a.png", tmp_path / "x" / "a.png", tmp_path / "b.png"]) == [
        "00000-a.png", "00001-a.png", "b"]
    assert output_names([tmp_path / "a.png", tmp_path / "a.jpg", tmp_path / "a.png.png"]) == [
        "00000-a.png", "a.jpg", "00002-a.png.png"]
    numbered = [tmp_path / "a.png", tmp_path / "x" / "a.png", tmp_path / "00000-a.png.jpg"]
    assert len(set(output_names(numbered))) == 3


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
     "scenes: cannot be read as names of classes: Is a directory; write a text file"),
    (("check-data", "--data", "{d}", "--names", "{w}"), 1, "weights.pt: must be text in UTF-8, "),
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
def test_commands_report_mistakes(data, weights, capfd, words, code, sentence):
    words = [word.format(w=weights, d=data) for word in words]
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


def test_predict_writes_a_page_of_all_photographs(data, weights, tmp_path, capfd):
    (data / "broken.png").write_bytes(b"x")
    names = [data / f"{k}.png" for k in range(3)]
    code, said, error = run(capfd, "predict", *names, data / "broken.png", "--weights", weights,
                            "-o", tmp_path / "out", "--html", *SIZES)
    assert code == 1 and "1 of 4 files could not be used" in error
    page = tmp_path / "out" / "index.html"
    assert f"the page is {page}" in said and "9 pictures of 3 photographs are in" in said
    text = page.read_text(encoding="utf-8")
    assert all(name.name in text for name in names) and "broken" not in text
    assert len(list((tmp_path / "out").glob("*.overlay.png"))) == 3
    page.write_text("mine")
    code, _, error = run(capfd, "predict", names[0], "--weights", weights, "-o", tmp_path / "out",
                         "--html", *SIZES)
    assert code == 1 and f"{page}: was changed after this program wrote it" in error
    assert page.read_text() == "mine"


def test_predict_compares_two_networks_in_its_page(data, weights, tmp_path, capfd):
    (tmp_path / "new").mkdir()
    other = tmp_path / "new" / "weights.pt"
    net = tiny_net()
    net.head.score.weight.data.neg_()
    model_file.save_model(other, net)
    call = ("predict", data / "0.png", "--weights", weights, "-o", tmp_path / "out", *SIZES)
    assert run(capfd, *call, "--html", "--compare-with", other)[0] == 0
    text = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    layers = re.findall(r'<figure data-layer="(\d)".*?<bdi>(.*?)</bdi>', text)
    assert layers == [("0", "Photograph"), ("2", f"{tmp_path.name}/weights"), ("3", "new/weights")]
    assert text.count("data-confidence=") == 2
    maps = re.findall(r'<image class="labels".*?href="data:image/png;base64,(.*?)"', text)
    for file, label in zip((weights, other), maps, strict=True):
        (tmp_path / "alone").mkdir(exist_ok=True)
        assert run(capfd, "predict", data / "0.png", "--weights", file, "-o", tmp_path / "alone",
                   *SIZES)[0] == 0
        shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(label))))
        alone = cv2.imread(str(tmp_path / "alone" / "0.label.png"), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(shown, alone)


@pytest.mark.parametrize("words, code, sentence", [
    (("--compare-with", "{other}"), 2, "--compare-with shows a second network in the page: add "),
    (("--compare-with", "{w}", "--html"), 2, "must name other weights than --weights, got "),
    (("--compare-with", "{other}", "--html"), 1, "has 11 classes, must have 4 as the other")])
def test_predict_refuses_networks_that_cannot_be_compared(data, weights, tmp_path, capfd, words,
                                                          code, sentence):
    other = tmp_path / "other.pt"
    model_file.save_model(other, tiny_net(11))
    words = [word.format(w=weights, other=other) for word in words]
    got, _, error = run(capfd, "predict", data / "0.png", "--weights", weights, "-o",
                        tmp_path / "out", *words, *SIZES)
    assert got == code and sentence in error and "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_names_of_benchmarks_are_at_hand(weights, tmp_path, capfd):
    model_file.save_model(weights, tiny_net(11))
    put(tmp_path / "a.png", photograph(40, 40))
    assert run(capfd, "predict", "--weights", weights, tmp_path / "a.png", "-o", tmp_path / "o",
               *SIZES, "--names", "camvid")[0] == 0
    label, colour = (cv2.imread(str(tmp_path / "o" / f"a.{kind}.png"), cv2.IMREAD_UNCHANGED)
                     for kind in ("label", "colour"))
    palette = np.array(known_classes("camvid").palette_rgb)
    assert np.array_equal(colour[..., ::-1], palette[label])


def test_predict_takes_original_files(data, tmp_path, capfd):
    net = tiny_net()
    original = tmp_path / "deploy.prototxt", tmp_path / "net.caffemodel"
    export(net, 89, *original)
    for number, words in enumerate((["{},{}".format(*original)], original)):
        code, _, error = run(capfd, "predict", "--weights", *words, data / "0.png", "-o",
                             tmp_path / f"out{number}", *SIZES)
        assert code == 0, error
        label = cv2.imread(str(tmp_path / f"out{number}" / "0.label.png"), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(label, labels_by_hand(net, data / "0.png"))
    code, _, error = run(capfd, "evaluate", "--weights", original[0], "--data", data, *SIZES)
    assert code == 2 and f"--weights must name a caffemodel after {original[0]}" in error
