"""Lists, labels, the sequence of samples, the embedded scenes."""

import json

import cv2
import numpy as np
import pytest
import torch

from pspnet_repro import PSPNet
from pspnet_repro.data import scenes
from pspnet_repro.data.augment import Augmentation
from pspnet_repro.data.check import check_lesson
from pspnet_repro.data.classes import Classes, read_classes
from pspnet_repro.data.images import read_image
from pspnet_repro.data.labels import read_label
from pspnet_repro.data.pairs import Pair, read_list, read_pair
from pspnet_repro.data.training_sequence import TrainingSequence, batches
from pspnet_repro.errors import UserError


@pytest.fixture
def folder(tmp_path):
    """Six images with labels of four classes, and their list."""
    rng = np.random.default_rng(0)
    lines = []
    for k in range(6):
        cv2.imwrite(str(tmp_path / f"{k}.png"), rng.integers(0, 256, (50, 70, 3), np.uint8))
        cv2.imwrite(str(tmp_path / f"{k}_label.png"), rng.integers(0, 4, (50, 70), np.uint8))
        lines.append(f"/{k}.png {k}_label.png\n")
    (tmp_path / "list.txt").write_text("".join(lines) + "\n")
    return tmp_path


def test_read_list(folder):
    pairs = read_list(folder / "list.txt")
    assert pairs[5] == Pair(folder / "5.png", folder / "5_label.png") and len(pairs) == 6
    assert read_pair(pairs[0], 4)[0].shape == (50, 70, 3)


def _expect(words, function, *arguments):
    with pytest.raises(UserError, match=words) as caught:
        function(*arguments)
    assert "\n" not in str(caught.value)


def test_read_list_rejects_paths_of_the_machine(folder):
    (folder / "absolute.txt").write_text(f"\n{folder}/0.png {folder}/0_label.png\n")
    with pytest.raises(UserError, match=r"absolute.txt, line 2: paths start from .* with a leading "
                                        r"slash too.*; got the path .*0.png of this machine"):
        read_list(folder / "absolute.txt")


def test_read_list_rejects(folder, tmp_path):
    bad = tmp_path / "bad.txt"
    _expect("nowhere: no such data folder", read_list, folder / "list.txt", folder / "nowhere")
    _expect("none.txt: no such list file", read_list, folder / "none.txt")
    bad.write_text("a.png b.png\nonly.png\n")
    _expect(r"bad.txt, line 2: must name an image and a label, got 1 name: 'only.png'",
            read_list, bad)
    bad.write_text("a.png b.png c.png\n")
    _expect("line 1: must name an image and a label, got 3 names", read_list, bad)
    bad.write_text("\n\n")
    _expect("bad.txt: lists no images", read_list, bad)
    bad.write_bytes(b"\xff\xfe\x00")
    _expect("bad.txt: cannot be read as text", read_list, bad)


@pytest.mark.parametrize("unlabelled", [False, True])
@pytest.mark.parametrize("text, number, advice", [
    ("0.png,0_label.png\n", 1, "separate names by a space, with no comma"),
    ("0.png;0_label.png\n", 1, "separate names by a space, with no comma"),
    ("0.png, 0_label.png\n", 1, "separate names by a space, with no comma"),
    ("0.png , 0_label.png\n", 1, "separate names by a space, with no comma"),
    ("image,label\n0.png,0_label.png\n", 1, "leave out a line of headings"),
    ("image label\n0.png 0_label.png\n", 1, "leave out a line of headings"),
    ("0.png 0_label.png\n'a photo.png' 0_label.png\n", 2, "leave out quotes, and put a tab"),
    ("0.png 0_label.png\na photo.jpg 0_label.png\n", 2, "put a tab between names that hold"),
    (".\\0.png 0_label.png\n", 1, "write / in place of \\"),
    ("0.png 0_label.png\n0.png .\\0_label.png\n", 2, "write / in place of \\")])
def test_lines_of_another_form_are_refused(folder, text, number, advice, unlabelled):
    (folder / "0.png").rename(folder / "a photo.png")
    (folder / "1.png").rename(folder / "0.png")
    (folder / "x.txt").write_text(text)
    with pytest.raises(UserError) as caught:
        read_list(folder / "x.txt", unlabelled=unlabelled)
    assert f"x.txt, line {number}: must name an image" in str(caught.value)
    assert advice in str(caught.value) and "\n" not in str(caught.value)


def test_names_of_existing_files_may_have_any_marks(folder):
    for name in ("a,b.png", "a;b.png", "a\\b.png", ",a.png"):
        (folder / "0.png").rename(folder / name)
        (folder / "x.txt").write_text(f"{name} 0_label.png\n")
        assert read_list(folder / "x.txt")[0].image == folder / name
        (folder / "x.txt").write_text(f"{name}\n")
        assert read_list(folder / "x.txt", unlabelled=True)[0].image == folder / name
        (folder / name).rename(folder / "0.png")


@pytest.mark.parametrize("encoding, words", [
    ("utf-16", "cannot be read as text: it is UTF-16; save it as UTF-8"),
    ("utf-16-le", "line 1: must be text in UTF-8, got the byte 0x00; save the list as UTF-8"),
    ("latin-1", "line 3: must be text in UTF-8, got the byte 0xfc; save the list as UTF-8")])
def test_lists_of_other_encodings_are_refused(folder, encoding, words):
    name = "ü" if encoding == "latin-1" else "1"
    (folder / "x.txt").write_bytes(
        f"0.png 0_label.png\n\n{name}.png 1_label.png\n".encode(encoding))
    _expect(f"x.txt(: |, ){words}", read_list, folder / "x.txt")


def test_lists_that_are_images_or_folders_are_refused(folder):
    _expect(r"0.png: is an image \(PNG\), and must be a text file with lines of an image and",
            read_list, folder / "0.png")
    (folder / "x.txt").mkdir()
    _expect("x.txt: is a folder, and must be a text file with lines of an image and a label",
            read_list, folder / "x.txt")


def test_readers_reject(folder):
    _expect("gone.png: no such image", read_image, folder / "gone.png")
    _expect("cannot be read", read_image, folder)
    (folder / "text.png").write_text("no image")
    _expect("text.png: not an image that OpenCV can read", read_image, folder / "text.png")
    (folder / "empty.png").write_bytes(b"")
    _expect("empty.png: not an image that OpenCV can read", read_image, folder / "empty.png")
    data = (folder / "0.png").read_bytes()
    for size in (40, len(data) // 2):
        (folder / "cut.png").write_bytes(data[:size])
        _expect("cut.png: not an image that OpenCV can read: its end is missing", read_image,
                folder / "cut.png")
    jpeg = cv2.imencode(".jpg", np.zeros((40, 40, 3), np.uint8))[1].tobytes()
    (folder / "cut.jpg").write_bytes(jpeg[:-20])
    _expect("cut.jpg: not an image that OpenCV can read: its end", read_image, folder / "cut.jpg")
    (folder / "bits.png").write_bytes(cv2.imencode(
        ".png", np.zeros((4, 4), np.uint8), [cv2.IMWRITE_PNG_BILEVEL, 1])[1].tobytes())
    _expect("bits.png: a label must be one channel of 8 bits, got 1 bit of grey", read_label,
            folder / "bits.png", 2)
    _expect(r"0_label.png: labels must be 0..2 or 255, got 3", read_label,
            folder / "0_label.png", 3)
    _expect(r"0.png: a label must be one channel of 8 bits, got shape \(50, 70, 3\)", read_label,
            folder / "0.png", 3)
    cv2.imwrite(str(folder / "small.png"), np.zeros((50, 69), np.uint8))
    _expect("small.png: size 50x69 differs from 50x70 of", read_pair,
            Pair(folder / "0.png", folder / "small.png"), 3)
    (folder / "x.txt").write_text("0.png gone.png\ngone.png 0_label.png\n")
    pairs = read_list(folder / "x.txt")
    for what, read in (("label", lambda: read_pair(pairs[0], 4)),
                       ("label", lambda: check_lesson(pairs, 4)),
                       ("image", lambda: read_pair(pairs[1], 4))):
        _expect(f"gone.png: no such {what}; paths in the list start from {folder}, --data-root DIR "
                "changes that", read)


def test_read_label_with_void_zero(folder):
    cv2.imwrite(str(folder / "ade.png"), np.array([[0, 1, 150]], np.uint8))
    assert read_label(folder / "ade.png", 150, zero_is_void=True).tolist() == [[255, 0, 149]]
    _expect("labels must be 0..149, got 150", read_label, folder / "ade.png", 149, True)


def _sequence(folder, **changes):
    settings = {"classes": 4, "crop_size": 41, "augmentation": Augmentation(), "seed": 3} | changes
    return TrainingSequence(read_list(folder / "list.txt"), **settings)


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_do_not_depend_on_workers(folder, workers):
    wanted = list(batches(_sequence(folder), 4, 1, 5, 0))
    actual = list(batches(_sequence(folder), 4, 1, 5, workers))
    assert len(wanted) == len(actual) == 4
    for (image, label), (image0, label0) in zip(actual, wanted):
        assert torch.equal(image, image0) and torch.equal(label, label0)
    assert image.shape == (4, 3, 41, 41) and image.dtype == torch.float32
    assert label.shape == (4, 41, 41) and label.dtype == torch.uint8


def test_sequence_visits_every_image_once_an_epoch(folder):
    sequence = _sequence(folder)
    for epoch in range(3):
        assert len({sequence.pair(p).image for p in range(6 * epoch, 6 * epoch + 6)}) == 6
    orders = [[sequence.pair(p).image for p in range(6 * e, 6 * e + 6)] for e in range(4)]
    assert len({tuple(order) for order in orders}) > 1


def test_sequence_differs_between_seeds_and_epochs(folder):
    first, other = _sequence(folder), _sequence(folder, seed=4)
    assert not torch.equal(first[0][0], other[0][0])
    again = _sequence(folder)
    assert torch.equal(first[7][0], again[7][0])


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_name_the_bad_file(folder, workers):
    (folder / "3.png").write_text("broken")
    with pytest.raises(UserError, match="3.png: not an image that OpenCV can read"):
        list(batches(_sequence(folder), 6, 0, 1, workers))


@pytest.mark.parametrize("classes, zero_is_void, values, words", [
    (4, False, [255], r"every pixel is unlabelled \(255\): give pixels the index .* 0 to 3"),
    (4, True, [0], r"every pixel is unlabelled \(0\): give pixels the index of their class"),
    (2, False, [0, 255], r"class 0 is the only one, and other pixels are unlabelled \(255\): in "
     "masks of 0 and 255 write 1 in place of 255"),
    (1, False, [0, 255], "class 0 .* in masks of 0 and 255 write 1 in place of 255, for 2 classes"),
    (2, True, [0, 1], r"class 0 .* unlabelled \(0\): where 0 and 1 are the two classes, leave "
     "out --zero-is-void")])
def test_labels_that_teach_nothing_are_refused(folder, classes, zero_is_void, values, words):
    for k in range(6):
        label = np.resize(np.array(values, np.uint8), (50, 70))
        cv2.imwrite(str(folder / f"{k}_label.png"), label)
    sequence = _sequence(folder, classes=classes, zero_is_void=zero_is_void)
    _expect(f"0_label.png and 5 of the other 5 label files: {words}", list,
            batches(sequence, 2, 0, 1, 0))


@pytest.mark.parametrize("classes, values", [(2, [0]), (2, [1]), (2, [1, 255]), (3, [0, 255]),
                                             (254, [7])])
def test_labels_of_one_class_are_noted(folder, capfd, classes, values):
    for k in range(6):
        label = np.resize(np.array(values, np.uint8), (50, 70))
        cv2.imwrite(str(folder / f"{k}_label.png"), label)
    assert len(list(batches(_sequence(folder, classes=classes), 2, 0, 1, 0))) == 1
    assert capfd.readouterr().err == (f"note: {folder}/0_label.png and 5 of the other 5 label "
                                      f"files hold no class but {values[0]}\n")


def test_one_labelled_file_is_enough(folder):
    for k in range(5):
        cv2.imwrite(str(folder / f"{k}_label.png"), np.full((50, 70), 255, np.uint8))
    assert len(list(batches(_sequence(folder), 2, 0, 1, 0))) == 1


def test_few_labels_are_read_before_training(folder, monkeypatch):
    """The first file has two classes: no other is read. Of a long list a part is."""
    seen = []
    monkeypatch.setattr("pspnet_repro.data.pairs.read_label",
                        lambda path, *rest: seen.append(path) or read_label(path, *rest))
    pairs = read_list(folder / "list.txt")
    check_lesson(pairs, 4)
    assert seen == [pairs[0].label]
    seen.clear()
    cv2.imwrite(str(folder / "0_label.png"), np.full((50, 70), 255, np.uint8))
    _expect("0_label.png and 255 of the other 99999 label files: every pixel is unlabelled",
            check_lesson, pairs[:1] * 100_000, 4)
    assert len(seen) == 256
    # Spread over the list: what lies in its middle is met.
    check_lesson(pairs[:1] * 50_000 + pairs[1:2] * 1000 + pairs[:1] * 50_000, 4)


def test_scenes_repeat_bitwise(tmp_path):
    a = scenes.write_scenes(tmp_path / "a", seed=1, train=3, val=2)
    b = scenes.write_scenes(tmp_path / "b", seed=1, train=3, val=2)
    files = sorted(p.relative_to(a) for p in a.rglob("*") if p.is_file())
    assert len(files) == 2 * 5 + 4 + 1  # lists, classes.txt and classes.json, and the lock
    for name in files:
        assert (a / name).read_bytes() == (b / name).read_bytes()
    assert not np.array_equal(scenes.draw_scene(1, 0)[0], scenes.draw_scene(2, 0)[0])


def test_scenes_are_ordinary_files(tmp_path):
    root = scenes.write_scenes(tmp_path, train=3, val=2)
    about = json.loads((root / "classes.json").read_text())
    assert about["classes"] == list(scenes.CLASSES)
    assert read_classes(root / "classes.txt") == Classes(scenes.CLASSES, scenes.PALETTE_RGB)
    assert len(read_list(root / "train.txt")) == 3
    for pair in read_list(root / "val.txt"):
        image, label = read_pair(pair, len(scenes.CLASSES))
        assert image.shape == (scenes.SIZE, scenes.SIZE, 3)
        assert label.max() < len(scenes.CLASSES)
    before = (root / "classes.json").stat().st_mtime_ns
    assert scenes.write_scenes(tmp_path, train=3, val=2) == root
    assert (root / "classes.json").stat().st_mtime_ns == before


def test_scenes_keep_cues_out_of_sight():
    """What depends on context is farther from every cue than the mini net can see."""
    from experiments.profiles import PROFILES
    profile = PROFILES["mini"]
    field = PSPNet(2, bins=(), **profile.model, **profile.depths[50]).receptive_field()
    contextual = np.flatnonzero(scenes.CONTEXTUAL)
    cues = [scenes.CLASSES.index(name) for name in ("sky", "sand", "pavement")]
    for number in range(40):
        label = scenes.draw_scene(0, number)[1]
        lowest_cue = np.flatnonzero(np.isin(label, cues).any(1)).max()
        first = np.flatnonzero(np.isin(label, contextual).any(1)).min()
        assert first - lowest_cue > field // 2


def test_scenes_agree_with_their_context():
    names = dict(enumerate(scenes.CLASSES))
    kinds = set()
    for number in range(60):
        image, label = scenes.draw_scene(0, number)
        present = {names[k] for k in np.unique(label)}
        assert not {"building", "skyscraper"} <= present
        hazy = image[:10].mean((0, 1))[0] < 207  # blue channel: 185 hazy, 230 clear
        assert ("building" in present) <= (not hazy) and ("skyscraper" in present) <= hazy
        for column in (0, scenes.SIZE - 1):
            strip = {names[k] for k in np.unique(label[:, column])}
            if "sand" in strip:
                assert not strip & {"road", "car"}
            if "pavement" in strip:
                assert not strip & {"water", "boat"}
        kinds |= present
    assert kinds == set(scenes.CLASSES)
