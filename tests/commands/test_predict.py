"""The command predict, from the command line to the files it writes."""

import base64
import io
import re

import cv2
import numpy as np
import pytest
from helpers.commands import SIZES, labels_by_hand, run
from helpers.image_files import photograph, put
from helpers.networks import tiny_net
from PIL import Image

from prototxt_import import export
from pspnet_repro.commands.work.predict import output_names
from pspnet_repro.data.classes import known_classes
from pspnet_repro.weights import model_file


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


def test_what_is_not_said_comes_from_the_training(photos, tmp_path, capfd):
    """The crop, and the names of a benchmark's classes; the words of the command come first."""
    path = tmp_path / "trained.pt"
    model_file.save_model(path, tiny_net(11), training={"crop_size": 89, "data": "camvid"})
    photo = next(photos.glob("0.png"))
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


def test_predict_writes_a_page_of_all_photographs(photos, weights, tmp_path, capfd):
    (photos / "broken.png").write_bytes(b"x")
    names = [photos / f"{k}.png" for k in range(3)]
    code, said, error = run(capfd, "predict", *names, photos / "broken.png", "--weights", weights,
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


def test_predict_compares_two_networks_in_its_page(photos, weights, tmp_path, capfd):
    (tmp_path / "new").mkdir()
    other = tmp_path / "new" / "weights.pt"
    net = tiny_net()
    net.head.score.weight.data.neg_()
    model_file.save_model(other, net)
    call = ("predict", photos / "0.png", "--weights", weights, "-o", tmp_path / "out", *SIZES)
    assert run(capfd, *call, "--html", "--compare-with", other)[0] == 0
    text = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    layers = re.findall(r'<figure data-layer="(\d)".*?<bdi>(.*?)</bdi>', text)
    assert layers == [("0", "Photograph"), ("2", f"{tmp_path.name}/weights"), ("3", "new/weights")]
    assert text.count("data-confidence=") == 2
    maps = re.findall(r'<image class="labels".*?href="data:image/png;base64,(.*?)"', text)
    for file, label in zip((weights, other), maps, strict=True):
        (tmp_path / "alone").mkdir(exist_ok=True)
        assert run(capfd, "predict", photos / "0.png", "--weights", file, "-o", tmp_path / "alone",
                   *SIZES)[0] == 0
        shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(label))))
        alone = cv2.imread(str(tmp_path / "alone" / "0.label.png"), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(shown, alone)


def test_predict_decodes_each_photograph_once(photos, weights, tmp_path, capfd, monkeypatch):
    """Also for the comparison with float32, for the page and for its second network."""
    decoded = []

    def decode(data, flags, imdecode=cv2.imdecode):
        decoded.append(bytes(data))
        return imdecode(data, flags)

    monkeypatch.setattr(cv2, "imdecode", decode)
    names = [photos / f"{k}.png" for k in range(3)]
    put(names[1], np.full((60, 80, 4), 40))
    model_file.save_model(tmp_path / "other.pt", tiny_net())
    code, said, error = run(capfd, "predict", *names, "--weights", weights, "-o", tmp_path / "out",
                            "--html", "--compare-with", tmp_path / "other.pt", "--precision",
                            "bfloat16", *SIZES)
    assert code == 0 and "bfloat16 against float32 on the first image" in said
    assert error.count("its transparency is dropped") == 1
    assert decoded == [name.read_bytes() for name in names]


@pytest.mark.parametrize("words, code, sentence", [
    (("--compare-with", "{other}"), 2, "--compare-with shows a second network in the page: add "),
    (("--compare-with", "{w}", "--html"), 2, "must name other weights than --weights, got "),
    (("--compare-with", "{other}", "--html"), 1, "has 11 classes, must have 4 as the other")])
def test_predict_refuses_networks_that_cannot_be_compared(photos, weights, tmp_path, capfd, words,
                                                          code, sentence):
    other = tmp_path / "other.pt"
    model_file.save_model(other, tiny_net(11))
    words = [word.format(w=weights, other=other) for word in words]
    got, _, error = run(capfd, "predict", photos / "0.png", "--weights", weights, "-o",
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


def test_predict_takes_original_files(photos, tmp_path, capfd):
    net = tiny_net()
    original = tmp_path / "deploy.prototxt", tmp_path / "net.caffemodel"
    export(net, 89, *original)
    for number, words in enumerate((["{},{}".format(*original)], original)):
        code, _, error = run(capfd, "predict", "--weights", *words, photos / "0.png", "-o",
                             tmp_path / f"out{number}", *SIZES)
        assert code == 0, error
        label = cv2.imread(str(tmp_path / f"out{number}" / "0.label.png"), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(label, labels_by_hand(net, photos / "0.png"))
    code, _, error = run(capfd, "evaluate", "--weights", original[0], "--data", photos, *SIZES)
    assert code == 2 and f"--weights must name a caffemodel after {original[0]}" in error
