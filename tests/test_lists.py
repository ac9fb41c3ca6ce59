"""Lists whose names hold spaces, and lists that make-lists writes."""

import os

import numpy as np
import pytest
from test_datasets import GREY, put

from pspnet_repro.__main__ import main
from pspnet_repro.data import pairs
from pspnet_repro.data.data_set import open_data
from pspnet_repro.data.pairs import Pair, list_text, read_list
from pspnet_repro.errors import UserError


@pytest.fixture
def folder(tmp_path):
    """Images and labels, of which some have spaces in their names."""
    for name in ("a photo.png", "a.png", "b  two.png", "a label.png", "b.png", "l.png"):
        put(tmp_path / name, GREY)
    return tmp_path


def names(folder, text, **options):
    """What read_list finds in a text, as names."""
    (folder / "list.txt").write_text(text)
    return [tuple(path and path.relative_to(folder).as_posix() for path in (pair.image, pair.label))
            for pair in read_list(folder / "list.txt", **options)]


@pytest.mark.parametrize("line, pair", [
    ("a photo.png\tl.png", ("a photo.png", "l.png")),
    ("a photo.png\ta label.png", ("a photo.png", "a label.png")),
    ("/a photo.png \t\t /a label.png\r", ("a photo.png", "a label.png")),
    ("not there.png\tnor there.png", ("not there.png", "nor there.png")),
    ("a photo.png l.png", ("a photo.png", "l.png")),
    ("a.png a label.png", ("a.png", "a label.png")),
    ("  /a photo.png   a label.png  ", ("a photo.png", "a label.png")),
    ("b  two.png l.png", ("b  two.png", "l.png"))])
@pytest.mark.parametrize("before", ["", "a.png l.png\n"])
@pytest.mark.parametrize("unlabelled", [False, True])
def test_names_may_hold_spaces(folder, line, pair, before, unlabelled):
    assert names(folder, f"{before}{line}\n", unlabelled=unlabelled)[-1] == pair


def test_images_alone_may_hold_spaces(folder):
    text = "a photo.png\na.png\nb  two.png\n"
    assert names(folder, text, unlabelled=True) == [(name, None) for name in text.split("\n")[:3]]
    assert names(folder, "a.png\na photo.png\n", unlabelled=True)[1] == ("a photo.png", None)


@pytest.mark.parametrize("line", ["x.png y.png", "x.png\ty.png", "x.png  \t y.png",
                                  "\tx.png y.png "])
def test_two_words_are_two_names_without_a_look(folder, line, monkeypatch):
    """Old lists mean what they did, whatever lies in the folder, and cost no look at each file."""
    put(folder / "x.png y.png", GREY)
    looks, look = [], pairs._are_files
    monkeypatch.setattr(pairs, "_are_files", lambda *names: looks.append(names) or look(*names))
    assert names(folder, f"a.png l.png\n{line}\n")[1] == ("x.png", "y.png")
    assert len(looks) == 1  # at the first line


@pytest.mark.parametrize("line, unlabelled", [
    ("a b c.png", False),  # "a" and "b c.png", or "a b" and "c.png"
    ("a b", True)])  # an image alone, or both
def test_lines_that_can_be_read_in_two_ways_are_refused(folder, line, unlabelled):
    for name in ("a", "b c.png", "a b", "c.png", "b"):
        put(folder / "made.png", GREY).rename(folder / name)
    with pytest.raises(UserError,
                       match="line 1: must name .* in several ways: put a tab") as caught:
        names(folder, f"{line}\n", unlabelled=unlabelled)
    assert "\n" not in str(caught.value)
    assert names(folder, "a\tb c.png\n") == [("a", "b c.png")]


def test_one_name_with_a_space_is_no_pair(folder):
    with pytest.raises(UserError, match="this is the name of one file: put its label behind it"):
        names(folder, "a photo.png\n")
    with pytest.raises(UserError, match=r"line 2: .* got 3 names: .*; leave out quotes, and put a "
                                        "tab between names that hold spaces"):
        names(folder, "a.png l.png\n'a photo.png' l.png\n")
    with pytest.raises(UserError, match="line 1: must name an image and a label, got 3 names"):
        names(folder, "a.png\tb.png\tl.png\n")


def test_very_long_lines_are_refused_in_words(folder):
    with pytest.raises(UserError, match="line 1: must name an image and a label, got 3 names"):
        names(folder, f"{'x' * 5000} y z\n")


def test_data_root(folder, tmp_path_factory):
    lists = tmp_path_factory.mktemp("lists")
    (lists / "val.txt").write_text("a.png l.png\n")
    (lists / "classes.txt").write_text("0 0 0 ground\n")
    for text in (lists, lists / "val.txt"):
        data = open_data(str(text), data_root=folder)
        assert data.pairs("val") == [Pair(folder / "a.png", folder / "l.png")]
        assert data.classes().names == ("ground",)
        assert data.digest("val") == open_data(str(lists)).digest("val")
        assert str(data.submission(data.pairs("val")[0], "val")) == "a.png"
    with pytest.raises(UserError, match="nowhere: no such data folder"):
        open_data(str(lists), data_root=folder / "nowhere")
    with pytest.raises(UserError, match="--data-root is for list files: of ade20k give its folder"):
        open_data(f"ade20k={folder}", data_root=folder)
    (lists / "val.txt").write_text(f"{folder}/a.png {folder}/l.png\n")
    with pytest.raises(UserError, match="of this machine: give --data-root / for such paths"):
        open_data(str(lists)).pairs("val")
    whole = open_data(str(lists), data_root=folder.__class__("/"))
    assert whole.pairs("val")[0].image.samefile(folder / "a.png")


@pytest.mark.parametrize("text", ["", "/none.txt"])
def test_no_list_says_how_to_make_one(tmp_path, text):
    with pytest.raises(UserError, match=r"(train|none).txt: no such list file; make one of two "
                                        "folders with pspnet make-lists IMAGES LABELS -o"):
        open_data(f"{tmp_path}{text}").pairs("train")


def test_a_missing_list_names_the_others(tmp_path):
    for name in ("train.txt", "classes.txt", "extra.txt"):
        (tmp_path / name).write_text("a.png\n")
    with pytest.raises(UserError, match="val.txt: no such list file; the splits in this folder are "
                                        "extra, train$"):
        open_data(str(tmp_path)).pairs("val")


@pytest.fixture
def photographs(tmp_path):
    """12 images in two folders and their labels."""
    for k in range(12):
        put(tmp_path / "images" / "ab"[k % 2] / f"{k:02d}.jpg", GREY)
        put(tmp_path / "labels" / "ab"[k % 2] / f"{k:02d}.png", np.full((2, 3), k % 3))
    return tmp_path


def make(folder, *words):
    return main(["make-lists", str(folder / "images"), str(folder / "labels"), "-o",
                 str(folder / "lists"), *words])


def test_make_lists(photographs, capsys):
    lists = photographs / "lists"
    assert make(photographs, "--val", "0.25") == 0
    said = capsys.readouterr().out
    assert f"{lists}/train.txt: 9 pairs\n" in said and f"{lists}/val.txt: 3 pairs\n" in said
    data = open_data(str(lists))
    found = {split: [pair.image.resolve() for pair in data.pairs(split)]
             for split in ("train", "val")}
    assert sorted(found["train"] + found["val"]) == sorted(photographs.glob("images/*/*.jpg"))
    for pair in data.pairs("train"):
        assert pair.label.resolve() == (photographs / "labels" / pair.image.parent.name
                                        / f"{pair.image.stem}.png")
    assert (lists / "val.txt").read_text().count("../images/") == 3
    assert "\t" not in (lists / "val.txt").read_text()
    assert main(["check-data", "--data", str(lists), "--classes", "3"]) == 0


def test_make_lists_repeats_and_follows_the_seed(photographs):
    texts = []
    for words in ((), ("--seed", "0"), ("--seed", "1")):
        assert make(photographs, *words) == 0
        texts.append((photographs / "lists" / "val.txt").read_text())
    assert texts[0] == texts[1] != texts[2]
    # The draw of an image depends on its name alone: of one more, at most one place changes.
    put(photographs / "images" / "new.jpg", GREY)
    put(photographs / "labels" / "new.png", GREY[..., 0])
    assert make(photographs) == 0
    assert (photographs / "lists" / "val.txt").read_text() in (
        texts[0], "../images/new.jpg ../labels/new.png\n")


@pytest.mark.parametrize("share, val", [("0.001", 1), ("0.999", 11), ("0.5", 6)])
def test_make_lists_leaves_no_list_empty(photographs, share, val):
    assert make(photographs, "--val", share) == 0
    assert len((photographs / "lists" / "val.txt").read_text().splitlines()) == val


def test_make_lists_without_validation(photographs):
    assert make(photographs, "--val", "0") == 0
    assert sorted(path.name for path in (photographs / "lists").glob("*.txt")) == ["train.txt"]


def test_make_lists_through_links(photographs, tmp_path_factory):
    """Paths hold where OUT or a folder of data is a link to somewhere else."""
    far = tmp_path_factory.mktemp("far") / "deep" / "er"
    far.mkdir(parents=True)
    (photographs / "lists").symlink_to(far)
    (photographs / "images").rename(far.parent / "pictures")
    (photographs / "images").symlink_to(far.parent / "pictures")
    assert make(photographs) == 0
    for pair in open_data(str(photographs / "lists")).pairs("train"):
        assert pair.image.exists() and pair.label.exists()


def test_make_lists_overwrites_nothing(photographs, capsys):
    lists = photographs / "lists"
    lists.mkdir()
    (lists / "val.txt").write_text("mine\n")
    assert make(photographs) == 1
    assert "val.txt: is there already, and this command did not make it" in capsys.readouterr().err
    assert (lists / "val.txt").read_text() == "mine\n" and not (lists / "train.txt").exists()


@pytest.mark.parametrize("name", ["a\tb.jpg", "a\nb.jpg", "a\x85b.jpg", b"\xff.jpg"])
def test_make_lists_refuses_names_that_no_list_can_hold(tmp_path, name, capsys):
    name = os.fsdecode(name) if isinstance(name, bytes) else name
    for folder, ending in (("images", ".jpg"), ("labels", ".png")):
        put(tmp_path / folder / f"x{ending}", GREY)
        (tmp_path / folder / f"x{ending}").rename(tmp_path / folder / name.replace(".jpg", ending))
    assert make(tmp_path, "--val", "0") == 1
    error = capsys.readouterr().err
    assert "a list cannot name this file: rename it" in error and error.count("\n") == 1


def test_list_text_is_what_read_list_reads(tmp_path):
    written = [Pair(tmp_path / "i" / name, tmp_path / "l" / name)
               for name in ("a.png", "b c.png", "d  e f.png", "g,h.png", "ü.png")]
    (tmp_path / "list.txt").write_text(list_text(written, tmp_path))
    assert read_list(tmp_path / "list.txt") == written


@pytest.mark.parametrize("words, code, part", [
    (("{i}",), 2, "two folders must be named, IMAGES and LABELS"),
    (("{i}", "{i}"), 2, "must be two folders"),
    (("{i}", "{i}/none"), 1, "none: no such folder"),
    (("{i}", "{l}", "--voc", "{i}"), 2, "--voc goes with --sbd or --pascal-context"),
    (("--sbd", "{i}"), 2, "--sbd needs --voc"),
    (("{i}", "{l}", "--sbd", "{i}", "--voc", "{i}"), 2, "give one of IMAGES LABELS, --sbd"),
    (("--sbd", "{i}", "--voc", "{i}"), 1, "no SBD data here: lacks the folder cls")])
def test_make_lists_mistakes(photographs, capsys, words, code, part):
    words = [word.format(i=photographs / "images", l=photographs / "labels") for word in words]
    assert main(["make-lists", *words, "-o", str(photographs / "lists")]) == code
    error = capsys.readouterr().err
    assert part in error and error.count("\n") == 1
    assert not (photographs / "lists").exists()


def test_make_lists_of_one_image(tmp_path, capsys):
    put(tmp_path / "images" / "a.jpg", GREY)
    put(tmp_path / "labels" / "a.png", GREY)
    assert make(tmp_path) == 1
    assert "add images, or give --val 0" in capsys.readouterr().err
    assert make(tmp_path, "--val", "0") == 0
