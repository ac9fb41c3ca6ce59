"""Names and colours of classes."""

import pytest

from pspnet_repro.data.benchmarks import LAYOUTS
from pspnet_repro.data.classes import KNOWN, known_classes, numbered_classes, read_classes
from pspnet_repro.data.pairs import read_list
from pspnet_repro.errors import UserError


@pytest.mark.parametrize("name, count, spots", [
    ("ade20k", 150, {0: ("wall", (120, 120, 120)), 12: ("person", (150, 5, 61)),
                     149: ("flag", (92, 0, 255))}),
    ("voc2012", 21, {0: ("background", (0, 0, 0)), 15: ("person", (192, 128, 128)),
                     20: ("tvmonitor", (0, 64, 128))}),
    ("cityscapes", 19, {0: ("road", (128, 64, 128)), 11: ("person", (220, 20, 60)),
                        18: ("bicycle", (119, 11, 32))}),
    ("camvid", 11, {0: ("sky", (128, 128, 128)), 10: ("bicyclist", (0, 128, 192))}),
])
def test_known_classes(name, count, spots):
    classes = known_classes(name)
    assert len(classes.names) == len(set(classes.names)) == len(classes.palette_rgb) == count
    for k, (word, colour) in spots.items():
        assert (classes.names[k], classes.palette_rgb[k]) == (word, colour)
    assert name in KNOWN


def test_numbered_classes_have_their_own_colours():
    classes = numbered_classes(40)
    assert classes.names[3] == "class 3" and len(set(classes.palette_rgb)) == 40


@pytest.mark.parametrize("text, words", [
    ("1 2 3\n", "line 1: must be RED GREEN BLUE NAME"),
    ("1 2 256 sky\n", "each colour 0..255, got '1 2 256 sky'"),
    ("0 0 0 sky\n1 2 -3 road\n", "line 2"),
    ("\n", "names no classes"),
])
def test_read_classes_rejects(tmp_path, text, words):
    (tmp_path / "names.txt").write_text(text)
    with pytest.raises(UserError, match=words):
        read_classes(tmp_path / "names.txt")


def test_names_that_are_not_utf8_name_their_line(tmp_path):
    (tmp_path / "names.txt").write_bytes(b"1 2 3 sky\n4 5 6 caf\xe9\n")
    with pytest.raises(UserError, match="names.txt, line 2: must be text in UTF-8, got the byte "
                                        "0xe9; write a text file"):
        read_classes(tmp_path / "names.txt")


def test_every_benchmark_has_names_and_colours():
    assert KNOWN == tuple(LAYOUTS)
    for name in KNOWN[1:]:  # two classes of ADE20K's share a colour
        classes = known_classes(name)
        assert len(set(classes.names)) == len(set(classes.palette_rgb)) == len(classes.names), name


@pytest.mark.parametrize("name, count, spots", [
    ("coco-stuff", 171, {0: "person", 10: "fire hydrant", 11: "stop sign", 79: "toothbrush",
                         80: "banner", 98: "desk-stuff", 170: "wood"}),
    ("pascal-context", 59, {0: "aeroplane", 1: "bag", 15: "ceiling", 36: "person", 58: "wood"}),
    ("mapillary", 65, {0: "bird", 13: "road", 27: "sky", 55: "car", 64: "ego vehicle"}),
    ("camvid-official", 11, {0: "sky", 10: "bicyclist"})])
def test_classes(name, count, spots):
    names = known_classes(name).names
    assert len(names) == count and {k: names[k] for k in spots} == spots


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


def test_colours_of_many_digits_are_refused(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_text(f"1 2 3 sea\n1 {'9' * 5000} 3 land\n")
    with pytest.raises(UserError, match="classes.txt, line 2: must be RED GREEN BLUE NAME"):
        read_classes(path)
