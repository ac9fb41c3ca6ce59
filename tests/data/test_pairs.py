"""Lists of images and labels, and what they name."""

import cv2
import numpy as np
import pytest
from helpers.image_files import GREY, put
from helpers.refusals import refused

from pspnet_repro.data import pairs
from pspnet_repro.data.check import check_lesson
from pspnet_repro.data.data_set import open_data
from pspnet_repro.data.images import read_image
from pspnet_repro.data.labels import read_label
from pspnet_repro.data.pairs import Pair, read_list, read_pair
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


def test_read_list(listed):
    pairs = read_list(listed / "list.txt")
    assert pairs[5] == Pair(listed / "5.png", listed / "5_label.png") and len(pairs) == 6
    assert read_pair(pairs[0], 4)[0].shape == (50, 70, 3)


def test_read_list_rejects_paths_of_the_machine(listed):
    (listed / "absolute.txt").write_text(f"\n{listed}/0.png {listed}/0_label.png\n")
    with pytest.raises(UserError, match=r"absolute.txt, line 2: paths start from .* with a leading "
                                        r"slash too.*; got the path .*0.png of this machine"):
        read_list(listed / "absolute.txt")


def test_read_list_rejects(listed, tmp_path):
    bad = tmp_path / "bad.txt"
    refused("nowhere: no such data folder", read_list, listed / "list.txt", listed / "nowhere")
    refused("none.txt: no such list file", read_list, listed / "none.txt")
    bad.write_text("a.png b.png\nonly.png\n")
    refused(r"bad.txt, line 2: must name an image and a label, got 1 name: 'only.png'",
            read_list, bad)
    bad.write_text("a.png b.png c.png\n")
    refused("line 1: must name an image and a label, got 3 names", read_list, bad)
    bad.write_text("\n\n")
    refused("bad.txt: lists no images", read_list, bad)
    bad.write_bytes(b"\xff\xfe\x00")
    refused("bad.txt: cannot be read as text", read_list, bad)


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
def test_lines_of_another_form_are_refused(listed, text, number, advice, unlabelled):
    (listed / "0.png").rename(listed / "a photo.png")
    (listed / "1.png").rename(listed / "0.png")
    (listed / "x.txt").write_text(text)
    with pytest.raises(UserError) as caught:
        read_list(listed / "x.txt", unlabelled=unlabelled)
    assert f"x.txt, line {number}: must name an image" in str(caught.value)
    assert advice in str(caught.value) and "\n" not in str(caught.value)


def test_names_of_existing_files_may_have_any_marks(listed):
    for name in ("a,b.png", "a;b.png", "a\\b.png", ",a.png"):
        (listed / "0.png").rename(listed / name)
        (listed / "x.txt").write_text(f"{name} 0_label.png\n")
        assert read_list(listed / "x.txt")[0].image == listed / name
        (listed / "x.txt").write_text(f"{name}\n")
        assert read_list(listed / "x.txt", unlabelled=True)[0].image == listed / name
        (listed / name).rename(listed / "0.png")


@pytest.mark.parametrize("encoding, words", [
    ("utf-16", "cannot be read as text: it is UTF-16; save it as UTF-8"),
    ("utf-16-le", "line 1: must be text in UTF-8, got the byte 0x00; save the list as UTF-8"),
    ("latin-1", "line 3: must be text in UTF-8, got the byte 0xfc; save the list as UTF-8")])
def test_lists_of_other_encodings_are_refused(listed, encoding, words):
    name = "ü" if encoding == "latin-1" else "1"
    (listed / "x.txt").write_bytes(
        f"0.png 0_label.png\n\n{name}.png 1_label.png\n".encode(encoding))
    refused(f"x.txt(: |, ){words}", read_list, listed / "x.txt")


def test_lists_that_are_images_or_folders_are_refused(listed):
    refused(r"0.png: is an image \(PNG\), and must be a text file with lines of an image and",
            read_list, listed / "0.png")
    (listed / "x.txt").mkdir()
    refused("x.txt: is a folder, and must be a text file with lines of an image and a label",
            read_list, listed / "x.txt")


def test_readers_reject(listed):
    refused("gone.png: no such image", read_image, listed / "gone.png")
    refused("cannot be read", read_image, listed)
    (listed / "text.png").write_text("no image")
    refused("text.png: not an image that OpenCV can read", read_image, listed / "text.png")
    (listed / "empty.png").write_bytes(b"")
    refused("empty.png: not an image that OpenCV can read", read_image, listed / "empty.png")
    data = (listed / "0.png").read_bytes()
    for size in (40, len(data) // 2):
        (listed / "cut.png").write_bytes(data[:size])
        refused("cut.png: not an image that OpenCV can read: its end is missing", read_image,
                listed / "cut.png")
    jpeg = cv2.imencode(".jpg", np.zeros((40, 40, 3), np.uint8))[1].tobytes()
    (listed / "cut.jpg").write_bytes(jpeg[:-20])
    refused("cut.jpg: not an image that OpenCV can read: its end", read_image, listed / "cut.jpg")
    (listed / "bits.png").write_bytes(cv2.imencode(
        ".png", np.zeros((4, 4), np.uint8), [cv2.IMWRITE_PNG_BILEVEL, 1])[1].tobytes())
    refused("bits.png: a label must be one channel of 8 bits, got 1 bit of grey", read_label,
            listed / "bits.png", 2)
    refused(r"0_label.png: labels must be 0..2 or 255, got 3", read_label,
            listed / "0_label.png", 3)
    refused(r"0.png: a label must be one channel of 8 bits, got shape \(50, 70, 3\)", read_label,
            listed / "0.png", 3)
    cv2.imwrite(str(listed / "small.png"), np.zeros((50, 69), np.uint8))
    refused("small.png: size 50x69 differs from 50x70 of", read_pair,
            Pair(listed / "0.png", listed / "small.png"), 3)
    (listed / "x.txt").write_text("0.png gone.png\ngone.png 0_label.png\n")
    pairs = read_list(listed / "x.txt")
    for what, read in (("label", lambda: read_pair(pairs[0], 4)),
                       ("label", lambda: check_lesson(pairs, 4)),
                       ("image", lambda: read_pair(pairs[1], 4))):
        refused(f"gone.png: no such {what}; paths in the list start from {listed}, --data-root DIR "
                "changes that", read)


def test_read_list_without_labels(tmp_path):
    (tmp_path / "list.txt").write_text("a.jpg\nb.jpg c.png\n")
    with pytest.raises(UserError, match="line 2: must name an image, as the lines before it, "
                                         "got 2"):
        read_list(tmp_path / "list.txt", unlabelled=True)
    with pytest.raises(UserError, match="line 1: must name an image and a label, got 1"):
        read_list(tmp_path / "list.txt")
