"""Label maps, ignored values, labels in colours."""

import zlib

import cv2
import numpy as np
import pytest
from helpers.image_files import GREY, put
from PIL import Image

from pspnet_repro.__main__ import main
from pspnet_repro.data.data_set import open_data, open_folders
from pspnet_repro.data.label_map import LabelMap, read_label_map
from pspnet_repro.data.labels import (
    IDENTITY,
    WRONG,
    ZERO_IS_VOID,
    LabelColour,
    LabelDepth,
    LabelFormat,
    read_label,
    read_label_file,
)
from pspnet_repro.data.pairs import read_pair
from pspnet_repro.errors import UsageError, UserError
from pspnet_repro.files import file_sha256

COLOURS = ((0, 0, 0, 255), (128, 0, 0, 0), (0, 128, 0, 1), (255, 255, 255, 1))


def label_map(folder, text, ignored=()):
    (folder / "map.txt").write_text(text)
    return read_label_map(folder / "map.txt", ignored)


def test_values_and_their_classes(tmp_path):
    found = label_map(tmp_path, "\ufeff# heading\n7 0\n\n8,1 # road\n 9, ignore\n10\t255\n"
                                "11 IGNORE\n")
    assert found.values == ((7, 0), (8, 1), (9, 255), (10, 255), (11, 255))
    assert found.colours is None and found.largest == (1, f"{tmp_path}/map.txt, line 4")
    table = found.over()
    assert [table[k] for k in (7, 8, 9, 10, 11, 255)] == [0, 1, 255, 255, 255, 255]
    # Values that it does not name have no meaning, rather than their own.
    assert [table[k] for k in (0, 1, 6, 12, 254)] == [WRONG] * 5


def test_a_map_over_a_table(tmp_path):
    """Named values take the map's meaning, others keep the table's."""
    table = label_map(tmp_path, "1 5\n0 2\n", ignored=(3, 1)).over(ZERO_IS_VOID)
    assert table == bytes([2, 255, 1, 255, *ZERO_IS_VOID[4:]])
    assert LabelMap(ignored=(0, 254)).over() == bytes([255, *IDENTITY[1:254], 255, 255])
    assert LabelMap(ignored=(7,)).over(ZERO_IS_VOID) == bytes([*ZERO_IS_VOID[:7], 255,
                                                              *ZERO_IS_VOID[8:]])


@pytest.mark.parametrize("text, words", [
    ("7\n", "line 1: must be VALUE CLASS or RED GREEN BLUE CLASS, .* got '7'"),
    ("7 0\n7 0 1\n", "line 2: must be VALUE CLASS"),
    ("256 0\n", "got '256 0'"), ("-1 0\n", "got '-1 0'"), ("1.0 0\n", "got '1.0 0'"),
    ("7 254\n", "got '7 254'"), ("7 road\n", "got '7 road'"), ("value class\n", "line 1: must be"),
    ("0 0 256 1\n", "got '0 0 256 1'"), (f"{'9' * 5000} 0\n", "line 1: must be VALUE"),
    ("7 0\n7 1\n", "line 2: 7 is in a line before it already: leave one of them out"),
    ("0 0 7 0\n1 1 1 0\n0 0 7 1\n", "line 3: 0 0 7 is in a line before it already"),
    ("7 0\n0 0 7 0\n", "line 2: must name a value as the lines before it, got '0 0 7 0'"),
    ("0 0 7 0\n7 0\n", "line 2: must name a colour as the lines before it, got '7 0'"),
    ("# nothing\n\n", "map.txt: is empty, and must be a text file with lines VALUE CLASS or RED"),
    ("7 ignore\n8 255\n", "map.txt: gives no value a class; add lines with one")])
def test_maps_with_mistakes_are_refused(tmp_path, text, words):
    with pytest.raises(UserError, match=words) as caught:
        label_map(tmp_path, text)
    assert "\n" not in str(caught.value) and "map.txt" in str(caught.value)


def test_maps_that_are_no_text_are_refused(tmp_path):
    with pytest.raises(UserError, match="none.txt: no such label map file"):
        read_label_map(tmp_path / "none.txt")
    with pytest.raises(UserError, match="is a folder, and must be a text file with lines VALUE"):
        read_label_map(tmp_path)
    with pytest.raises(UserError, match=r"is an image \(PNG\), and must be"):
        read_label_map(put(tmp_path / "a.png", GREY))


def save(path, pixels, mode=None, **options):
    Image.fromarray(np.asarray(pixels, np.uint8), mode).save(path, **options)
    return path


PICTURE = [[[0, 0, 0], [128, 0, 0]], [[0, 128, 0], [255, 255, 255]]]
MEANING = [[255, 0], [1, 1]]


@pytest.mark.parametrize("ending", ["png", "bmp", "tif", "ppm"])
def test_colours_become_classes(tmp_path, ending):
    path = save(tmp_path / f"label.{ending}", PICTURE)
    assert read_label_file(path, COLOURS).tolist() == MEANING
    assert read_label(path, 2, colours=COLOURS).tolist() == MEANING
    with pytest.raises(UserError, match="a picture; .* or say what each colour means with "
                                        "--label-map"):
        read_label(path, 2)


def test_colours_of_a_palette_and_of_grey(tmp_path):
    image = Image.new("P", (2, 2))
    image.putpalette([0, 0, 0, 0, 128, 0, 128, 0, 0, 255, 255, 255])
    image.putdata([0, 2, 1, 3])
    image.save(tmp_path / "palette.png")
    assert read_label_file(tmp_path / "palette.png", COLOURS).tolist() == MEANING
    grey = save(tmp_path / "grey.png", [[0, 255]])
    assert read_label_file(grey, COLOURS).tolist() == [[255, 1]]


def test_transparency_hides_no_colour(tmp_path):
    rgba = np.dstack([np.array(PICTURE, np.uint8), np.full((2, 2), 255, np.uint8)])
    assert read_label_file(save(tmp_path / "a.png", rgba), COLOURS).tolist() == MEANING
    rgba[0, 0, 3] = 254
    with pytest.raises(LabelColour, match="a.png: is transparent in places.*; save it as RGB"):
        read_label_file(save(tmp_path / "a.png", rgba), COLOURS)


def test_colours_without_meaning_are_refused(tmp_path):
    path = save(tmp_path / "a.png", [[[0, 0, 1], [128, 0, 0], [255, 255, 254], [0, 0, 1]]])
    with pytest.raises(LabelColour, match="a.png: holds colours that the label map does not name: "
                                          "0 0 1, 255 255 254; add a line RED GREEN BLUE CLASS"):
        read_label_file(path, COLOURS)
    many = save(tmp_path / "a.png", np.arange(30).reshape(1, 10, 3))
    with pytest.raises(LabelColour, match="0 1 2, 3 4 5, .*, 12 13 14 and others; add") as caught:
        read_label_file(many, COLOURS)
    assert "\n" not in str(caught.value)


def test_colours_in_lossy_or_deep_or_cut_files_are_refused(tmp_path):
    with pytest.raises(LabelFormat, match="JPEG, which changes indices"):
        read_label_file(save(tmp_path / "a.jpg", PICTURE), COLOURS)
    cv2.imwrite(str(tmp_path / "deep.png"), np.zeros((2, 2, 3), np.uint16))
    with pytest.raises(LabelDepth, match="uint16"):
        read_label_file(tmp_path / "deep.png", COLOURS)
    data = save(tmp_path / "whole.png", np.random.default_rng(0).integers(0, 256, (64, 64, 3)),
                ).read_bytes()
    start = data.index(b"IDAT") - 4
    length = int.from_bytes(data[start:start + 4], "big")
    half = length // 2
    part = b"IDAT" + data[start + 8:start + 8 + half]
    (tmp_path / "cut.png").write_bytes(
        data[:start] + half.to_bytes(4, "big") + part + zlib.crc32(part).to_bytes(4, "big")
        + data[start + 12 + length:])
    with pytest.raises(UserError, match="cut.png: not an image that can be read"):
        read_label_file(tmp_path / "cut.png", COLOURS)


@pytest.fixture
def data(tmp_path):
    """Two images and labels of the values 7, 8 and 0, with their list."""
    for name in "ab":
        put(tmp_path / "images" / f"{name}.png", GREY)
        put(tmp_path / "labels" / f"{name}.png", [[7, 8, 0], [255, 7, 7]])
    (tmp_path / "train.txt").write_text("images/a.png labels/a.png\nimages/b.png labels/b.png\n")
    (tmp_path / "map.txt").write_text("7 1\n8 0\n0 ignore\n")
    return tmp_path


def test_data_sets_with_a_map(data):
    for found in (open_data(str(data), label_map=data / "map.txt"),
                  open_folders(data / "images", data / "labels", label_map=data / "map.txt")):
        pair = found.pairs("train")[0]
        assert read_pair(pair, 2)[1].tolist() == [[1, 0, 255], [255, 1, 1]]
    found = open_data(str(data), label_map=data / "map.txt", ignore=(8,))
    assert read_pair(found.pairs("train")[0], 2)[1].tolist() == [[1, 255, 255], [255, 1, 1]]
    found = open_data(str(data), ignore=(7, 8))
    assert read_pair(found.pairs("train")[0], 1)[1].tolist() == [[255, 255, 0], [255] * 3]
    (data / "map.txt").write_text("7 1\n8 0\n")
    with pytest.raises(UserError, match=r"labels must be 7..8 or 255, got 0; --label-map and "
                                        "--ignore give values another meaning"):
        read_pair(open_data(str(data), label_map=data / "map.txt").pairs("train")[0], 2)


def test_data_sets_with_a_map_of_colours(data):
    for name in "ab":
        save(data / "labels" / f"{name}.png", [[*PICTURE[0], [0, 0, 0]], [*PICTURE[1], [0, 0, 0]]])
    (data / "map.txt").write_text("".join(f"{r} {g} {b} {k}\n" for r, g, b, k in COLOURS))
    found = open_data(str(data), label_map=data / "map.txt")
    assert read_pair(found.pairs("train")[0], 2)[1].tolist() == [[255, 0, 255], [1, 1, 255]]
    with pytest.raises(UsageError, match="--ignore is for label values: write RED GREEN BLUE"):
        open_data(str(data), label_map=data / "map.txt", ignore=(0,))
    with pytest.raises(UsageError, match="--zero-is-void is for label values, and .* colours"):
        open_data(str(data), True, label_map=data / "map.txt")


def test_what_a_map_says_is_part_of_the_digest(data):
    def digest(**options):
        return open_data(str(data), **options).digest("train")

    plain, mapped = digest(), digest(label_map=data / "map.txt")
    assert plain == file_sha256(data / "train.txt")  # as before there were maps
    assert len({plain, mapped, digest(ignore=(0,)), digest(ignore=(8,)),
                digest(label_map=data / "map.txt", ignore=(8,))}) == 5
    assert digest(ignore=(8, 0)) == digest(ignore=(0, 8, 8))
    # The same words in another order say the same.
    (data / "map.txt").write_text("# a comment\n0,255\n8 0\n7 1\n")
    assert digest(label_map=data / "map.txt") == mapped
    (data / "map.txt").write_text("0 255\n8 1\n7 0\n")
    assert digest(label_map=data / "map.txt") not in (plain, mapped)


def test_a_benchmark_with_a_map(tmp_path):
    put(tmp_path / "folders" / "val" / "x.png", GREY)
    put(tmp_path / "folders" / "valannot" / "x.png", [[0, 10, 11], [99, 0, 3]])
    (tmp_path / "map.txt").write_text("99 3\n3 4\n")
    found = open_data(f"camvid={tmp_path / 'folders'}", label_map=tmp_path / "map.txt", ignore=(0,))
    assert read_pair(found.pairs("val")[0], 11)[1].tolist() == [[255, 10, 255], [3, 255, 4]]
    # VOC's values mean themselves.
    root = tmp_path / "voc"
    put(root / "JPEGImages" / "a.jpg", GREY)
    put(root / "SegmentationClass" / "a.png", [[0, 1, 20], [99, 0, 255]])
    (root / "ImageSets" / "Segmentation").mkdir(parents=True)
    (root / "ImageSets" / "Segmentation" / "val.txt").write_text("a\n")
    found = open_data(f"voc2012={root}", label_map=tmp_path / "map.txt")
    assert read_pair(found.pairs("val")[0], 21)[1].tolist() == [[0, 1, 20], [3, 0, 255]]


def test_masks_of_0_and_255(data):
    for name in "ab":
        put(data / "labels" / f"{name}.png", [[0, 255, 0], [255, 0, 0]])
    (data / "map.txt").write_text("0 0\n255 1\n")
    found = open_data(str(data), label_map=data / "map.txt")
    assert read_pair(found.pairs("train")[0], 2)[1].tolist() == [[0, 1, 0], [1, 0, 0]]


TINY = ("--crop-size", "41", "--max-iter", "1", "--batch-size", "2", "--blocks", "1,1,1,1",
        "--width", "0.0625", "--bins", "1", "--stem", "classic", "--stem-width", "8", "--no-aux")


def test_another_map_does_not_resume_a_training(data, capsys):
    words = ["train", "--data", str(data), "--output", str(data / "run"), "--classes", "2", *TINY,
             "--label-map", str(data / "map.txt")]
    assert main(words) == 0
    capsys.readouterr()
    assert main([*words, "--ignore", "8"]) == 1
    error = capsys.readouterr().err
    assert "list_sha256 = " in error and "images, --label-map or --ignore were others" in error


def test_classes_of_a_map_must_fit(data, capsys):
    (data / "map.txt").write_text("7 1\n8 0\n0 2\n")
    for command, words in (("check-data", ()), ("train", ("--output", str(data / "run"), *TINY))):
        assert main([command, "--data", str(data), "--label-map", str(data / "map.txt"),
                     "--classes", "2", *words]) == 1
        assert ("map.txt, line 3: a class must be below their number, 2, got 2; give another "
                "--classes, or write ignore") in capsys.readouterr().err
    assert not (data / "run").exists()


@pytest.mark.parametrize("values", ["256", "-1", "a", "1,", "", "1;2"])
def test_ignored_values_must_be_values(data, values, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["check-data", "--data", str(data), "--classes", "2", f"--ignore={values}"])
    assert "must be label values 0 to 255 with commas between" in capsys.readouterr().err


def test_check_data_tells_colours_that_a_map_lacks(data, capsys):
    save(data / "labels" / "a.png", [[*PICTURE[0], [9, 9, 9]], [*PICTURE[1], [0, 0, 0]]])
    save(data / "labels" / "b.png", np.zeros((2, 3, 3)))
    (data / "map.txt").write_text("".join(f"{r} {g} {b} {k}\n" for r, g, b, k in COLOURS))
    assert main(["check-data", "--data", str(data / "train.txt"), "--classes", "2", "--label-map",
                 str(data / "map.txt")]) == 1
    said = capsys.readouterr().out
    assert "wrong: 1 label file with colours that the label map does not name" in said
    assert "9 9 9; add a line" in said and "to fix: add the colours to the label map" in said
