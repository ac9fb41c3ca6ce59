"""Lists that make-lists writes."""

import os

import numpy as np
import pytest
from helpers.image_files import GREY, put

from pspnet_repro.__main__ import main
from pspnet_repro.data.data_set import open_data
from pspnet_repro.data.pairs import Pair, list_text, read_list


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
