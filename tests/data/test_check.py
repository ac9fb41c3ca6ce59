"""Data sets that are in order, and every mistake that check-data knows."""

import cv2
import numpy as np
import pytest
from helpers.image_files import GREY, put
from helpers.refusals import refused
from PIL import Image

from pspnet_repro.__main__ import main
from pspnet_repro.data.check import check_lesson
from pspnet_repro.data.classes import known_classes
from pspnet_repro.data.labels import read_label
from pspnet_repro.data.pairs import read_list


def lists(folder, labels, split="val", image=GREY):
    """Image and label files with their list; `labels` are arrays. Returns the folder."""
    lines = []
    for k, label in enumerate(labels):
        put(folder / f"{split}{k}.png", image)
        put(folder / f"{split}{k}_label.png", label)
        lines.append(f"{split}{k}.png {split}{k}_label.png\n")
    (folder / f"{split}.txt").write_text("".join(lines))
    return folder


def check(capsys, *words):
    """(exit code, what was printed)."""
    code = main(["check-data", *map(str, words)])
    return code, capsys.readouterr().out


def test_check_data_in_order(tmp_path, capsys):
    lists(tmp_path, [[[0, 1, 2], [255, 0, 0]], [[1, 1, 1], [1, 1, 1]]])
    lists(tmp_path, [[[0, 1, 1], [1, 1, 1]]], "train")
    code, said = check(capsys, "--data", tmp_path, "--classes", 4)
    assert code == 0 and said.endswith("nothing wrong was found\n")
    assert "val: 2 images" in said and "train: 1 image\n" in said
    # Of 11 labelled pixels of val, 3, 7 and 1.
    assert "class 0   27.27% of the labelled pixels, in 1 image\n" in said
    assert "class 1   63.64% of the labelled pixels, in 2 images" in said
    assert "unlabelled: 8.33% of all pixels" in said
    assert "2 classes never occur: class 2, class 3" in said  # of train
    assert "1 class never occurs: class 3" in said  # of val


def test_check_data_of_a_benchmark(ade, capsys):
    code, said = check(capsys, "--data", f"ade20k={ade}")
    assert code == 0
    assert "    0  wall" in said and "16.67% of all pixels" in said and "149  flag" in said
    code, said = check(capsys, "--data", f"ade20k={ade}", "--split", "test")
    assert code == 0 and "test: 1 image without labels" in said


def _expect_wrong(capsys, words, *sentences):
    code, said = check(capsys, *words)
    assert code == 1 and "something is wrong" in said
    for sentence in sentences:
        assert sentence in said, said


def test_check_data_finds_ade_labels_with_void_zero(tmp_path, capsys):
    lists(tmp_path, [[[0, 1, 2], [3, 4, 150]]])
    _expect_wrong(capsys, ("--data", tmp_path, "--split", "val", "--classes", 150),
                  "wrong: 1 label with values outside the classes", "val0_label.png: 150",
                  "to fix: labels are 0 to 150, and there are 150 classes: if 0 means void, as in "
                  "SceneParse150, give the folder as --data ade20k=DIR, or add --zero-is-void",
                  "; if 0 is a class, classes.txt or --classes lacks one\n")
    assert check(capsys, "--data", tmp_path, "--split", "val", "--classes", 150,
                 "--zero-is-void")[0] == 0


def test_check_data_finds_labels_that_start_at_zero_already(tmp_path, capsys):
    lists(tmp_path, [[[0, 1, 2], [3, 255, 149]]])
    _expect_wrong(capsys, ("--data", tmp_path, "--split", "val", "--classes", 150,
                           "--zero-is-void"),
                  "to fix: labels are 0 to 149, and 255: these labels start at 0 already")


def test_check_data_finds_cityscapes_label_ids(tmp_path, capsys):
    lists(tmp_path, [[[7, 8, 11], [0, 26, 33]]])
    _expect_wrong(capsys, ("--data", tmp_path, "--split", "val", "--names", "cityscapes"),
                  "to fix: these look like Cityscapes labelIds, not labelTrainIds",
                  "--data cityscapes=DIR")


def test_check_data_finds_train_ids_under_the_name_of_label_ids(tmp_path, capsys):
    put(tmp_path / "leftImg8bit" / "val" / "bonn" / "bonn_1_2_leftImg8bit.png", GREY)
    label = tmp_path / "gtFine" / "val" / "bonn" / "bonn_1_2_gtFine_labelIds.png"
    put(label, [[0, 10, 18], [255, 1, 1]])
    words = ("--data", f"cityscapes={tmp_path}", "--split", "val")
    _expect_wrong(capsys, words, "to fix: these look like labelTrainIds under the name of labelIds")
    put(label, [[7, 8, 26], [255, 1, 1]])
    assert check(capsys, *words)[0] == 0


def test_check_data_finds_camvids_eleven(tmp_path, capsys):
    lists(tmp_path, [[[0, 10, 11], [1, 1, 1]]])
    _expect_wrong(capsys, ("--data", tmp_path, "--split", "val", "--classes", 11),
                  "to fix: labels are 0 to 11, and there are 11 classes: if 11 means unlabelled, ",
                  "--data camvid=DIR; if 11 is a class, classes.txt or --classes lacks one")


@pytest.mark.parametrize("label, classes, said", [
    ([0, 1, 2], 2, "labels are 0 to 2, and there are 2 classes: if 0 is a class, classes.txt or "
                   "--classes lacks one; if 0 means void, add --zero-is-void, which takes k + 1 "
                   "for class k"),
    ([0, 1, 1], 1, "labels are 0 to 1, and there is 1 class: if 0 is a class, classes.txt or "),
    ([1, 2, 3], 3, "labels are 1 to 3, and there are 3 classes: if 1 is the first class, add "
                   "--zero-is-void, which takes k + 1 for class k; if 0 is a class that these "
                   "images do not show, classes.txt or --classes lacks one"),
    ([2, 3, 3], 3, "labels are 2 to 3, and there are 3 classes: if 1 is the first class"),
    ([0, 3, 3], 3, "labels are 0 to 3, and there are 3 classes: if 0 is a class")])
def test_check_data_names_both_meanings_of_one_value_more(tmp_path, capsys, label, classes, said):
    lists(tmp_path, [[label] * 2])
    _expect_wrong(capsys, ("--data", tmp_path, "--split", "val", "--classes", classes),
                  f"  to fix: {said}")


def test_check_data_finds_other_values(tmp_path, capsys):
    lists(tmp_path, [[[0, 1, 2], [3, 7, 255]]])
    _expect_wrong(capsys, ("--data", tmp_path, "--split", "val", "--classes", 5),
                  "to fix: values must be 0..4 or 255, and are 0..3 or 7 or 255: is the number of")


def test_check_data_finds_coloured_labels(tmp_path, capsys):
    palette = np.array(known_classes("camvid").palette_rgb, np.uint8)
    lists(tmp_path, [palette[[[0, 3, 5], [8, 8, 8]]][..., ::-1]])
    words = ("--data", tmp_path, "--split", "val", "--names", "camvid")
    _expect_wrong(capsys, words, "wrong: 1 coloured label file\n",
                  "to fix: replace each colour by the index of its class")
    lists(tmp_path, [np.full((2, 3, 3), (9, 9, 200), np.uint8)])
    _expect_wrong(capsys, words, "to fix: label files must hold class indices in one channel")


def test_check_data_finds_sizes_missing_files_and_repeats(tmp_path, capsys):
    labels = [np.zeros((2, 3)), np.zeros((3, 2)), np.zeros((2, 3))]
    lists(tmp_path, labels)
    with open(tmp_path / "val.txt", "a", encoding="utf-8") as file:
        file.write("val0.png gone.png\n")
    (tmp_path / "val2.png").write_text("no image")
    _expect_wrong(capsys, ("--data", tmp_path / "val.txt", "--classes", 2),
                  f"wrong: 1 label of another size than the image\n    {tmp_path}/val1_label.png: "
                  "3x2, the image 2x3\n  to fix: labels must be drawn on the pixels",
                  f"wrong: 1 file that cannot be found\n    {tmp_path}/gone.png: no such label\n"
                  f"  to fix: paths in the list start from {tmp_path}, unless --data-root of ",
                  "wrong: 1 file that cannot be used\n", "val2.png: not an image",
                  "  to fix: fetch damaged files anew",
                  "wrong: 1 image listed more than once\n")


def test_check_data_says_where_paths_start(tmp_path, capsys):
    lists(tmp_path / "files", [np.zeros((2, 3))] * 2)
    (tmp_path / "files" / "val.txt").rename(tmp_path / "val.txt")
    words = ("--data", tmp_path / "val.txt", "--classes", 1)
    _expect_wrong(capsys, words, "wrong: 2 files that cannot be found\n"
                  f"    {tmp_path}/val0.png: no such image\n"
                  f"    {tmp_path}/val1.png: no such image\n  to fix: paths in the list start from "
                  f"{tmp_path}, unless --data-root of train, evaluate or check-data names another "
                  "folder; or fetch the files")
    assert check(capsys, *words, "--data-root", tmp_path / "files")[0] == 0


def test_check_data_lists_every_bad_line(tmp_path, capsys):
    """And checks what the other lines name."""
    lists(tmp_path, [np.zeros((2, 3))] * 2)
    good = (tmp_path / "val.txt").read_text()
    (tmp_path / "val.txt").write_text(f"a,b\n{good}a b c\nc\n\nd e f\n")
    words = ("--data", tmp_path, "--split", "val", "--classes", 2)
    _expect_wrong(capsys, words, "val: 2 images\n", "100.00% of the labelled pixels, in 2 images",
                  "wrong: 4 lines of the list that cannot be used\n", "val.txt, line 1: must name",
                  "val.txt, line 4: must name an image and a label, got 3 names: 'a b c'; ",
                  "val.txt, line 5: must name an image and a label, got 1 name: 'c'\n",
                  "val.txt, line 7: must name")
    (tmp_path / "val.txt").write_text("a b c\n" * 9)
    for more in ((), ("--ignore", "7")):
        _expect_wrong(capsys, (*words, *more), "val: 0 images\nwrong: 9 lines of the list",
                      "line 5: must name", "    and 4 more\n")


def test_check_data_checks_the_lists_that_are_there(tmp_path, capsys):
    lists(tmp_path, [np.zeros((2, 3))], "train")
    words = ("--data", tmp_path, "--classes", 1)
    code, said = check(capsys, *words)
    assert code == 0 and f"{tmp_path.name}, train: 1 image\n" in said
    assert "note: val is not checked: there is no val.txt\n" in said
    (tmp_path / "train.txt").rename(tmp_path / "all.txt")
    assert main(["check-data", *map(str, words)]) == 1
    assert (f"error: {tmp_path}: has neither train.txt nor val.txt; --split NAME checks another "
            "list: all\n" == capsys.readouterr().err)
    (tmp_path / "all.txt").unlink()
    assert main(["check-data", *map(str, words)]) == 1
    assert "nor val.txt; make lists of two folders with pspnet make" in capsys.readouterr().err


def test_check_data_of_a_part_of_a_benchmark(ade, capsys):
    folder = ade / "ADEChallengeData2016" / "images"
    (folder / "training").rename(folder / "away")
    code, said = check(capsys, "--data", f"ade20k={ade}")
    assert code == 0 and "val: 1 image\n" in said
    assert "note: train is not checked: " in said and "no SceneParse150 data here" in said
    (folder / "validation").rename(folder / "gone")
    assert main(["check-data", "--data", f"ade20k={ade}"]) == 1
    assert "no SceneParse150 data here" in capsys.readouterr().err


def test_check_data_finds_images_in_both_lists(tmp_path, capsys):
    lists(tmp_path, [np.zeros((2, 3))])
    (tmp_path / "train.txt").write_text((tmp_path / "val.txt").read_text())
    _expect_wrong(capsys, ("--data", tmp_path, "--classes", 1),
                  "wrong: 1 image is in train and in val, for one")


def test_check_data_names_few_of_many(tmp_path, capsys):
    lists(tmp_path, [np.full((2, 3), 9)] * 7)
    _expect_wrong(capsys, ("--data", tmp_path, "--split", "val", "--classes", 1),
                  "wrong: 7 labels", "    and 2 more")


def test_check_data_asks_for_the_number_of_classes(tmp_path, capsys):
    lists(tmp_path, [np.zeros((2, 3))])
    assert main(["check-data", "--data", str(tmp_path)]) == 2
    assert "--classes or --names must say how many" in capsys.readouterr().err
    (tmp_path / "classes.txt").write_text("1 2 3 sky\n")
    assert check(capsys, "--data", tmp_path, "--split", "val")[0] == 0


@pytest.mark.parametrize("size", [(1, 1), (300, 7)])
def test_check_data_of_sixteen_bit_labels(tmp_path, capsys, size):
    lists(tmp_path, [np.zeros(size)], image=np.zeros((*size, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "val0_label.png"), np.zeros(size, np.uint16))
    _expect_wrong(capsys, ("--data", tmp_path, "--split", "val", "--classes", 2),
                  "wrong: 1 label file of more or less than 8 bits a pixel",
                  "must be one channel of 8 bits, got uint16; save class indices as an 8-bit PNG",
                  "to fix: save label files with 8 bits")


def test_check_data_of_labels_in_every_container(tmp_path, capsys):
    lists(tmp_path, [[[0, 1, 2], [0, 1, 2]]])
    path = tmp_path / "val0_label.png"
    label = Image.fromarray(np.array([[0, 1, 2], [0, 1, 2]], np.uint8))
    words = ("--data", tmp_path, "--split", "val", "--classes", 3)
    for kind in ("BMP", "TIFF", "PPM"):
        label.save(path, kind)
        assert check(capsys, *words)[0] == 0
    for kind in ("GIF", "JPEG", "WEBP"):
        label.save(path, kind)
        _expect_wrong(capsys, words, "wrong: 1 label file of a format that may change indices\n"
                      f"    {path}: a label must be one channel of 8 bits, got {kind}",
                      "to fix: write label files as 8-bit PNGs of one channel, from a source")
    put(path, np.dstack([np.eye(2, 3)] * 3))
    _expect_wrong(capsys, words, "wrong: 1 label file of more or less than 8 bits a pixel",
                  "(2, 3, 3) without colours: keep one channel, PIL.Image.open(FILE).getchannel(0)")


def test_check_data_of_images_without_a_certain_brightness(tmp_path, capsys):
    lists(tmp_path, [[[0, 1, 2], [0, 1, 2]]] * 2)
    (tmp_path / "val0.png").write_bytes(
        cv2.imencode(".pfm", np.ones((2, 3), np.float32))[1].tobytes())
    cv2.imwrite(str(tmp_path / "val1.png"), np.full((2, 3), 4095, np.uint16))
    _expect_wrong(capsys, ("--data", tmp_path, "--split", "val", "--classes", 3),
                  "wrong: 2 images of no certain brightness",
                  "val0.png: must have 8 or 16 unsigned bits a channel, got float32",
                  "val1.png: has 16 bits a channel but no value above 4095",
                  "to fix: scale these images to 0..255 and save them as 8-bit PNGs or JPEGs")


@pytest.mark.parametrize("words, values, problem", [
    (("--classes", 3), [255, 255], "every pixel is unlabelled (255): give pixels the index of"),
    (("--classes", 3, "--zero-is-void"), [0, 0], "every pixel is unlabelled (0)"),
    (("--classes", 2), [0, 255], "in masks of 0 and 255 write 1 in place of 255"),
    (("--classes", 2, "--zero-is-void"), [0, 1], "leave out --zero-is-void"),
    (("--classes", 3), [0, 255], None), (("--classes", 2), [0, 1], None),
    (("--classes", 2), [1, 255], None), (("--classes", 2), [0, 0], None)])
def test_check_data_finds_labels_that_teach_nothing(tmp_path, capsys, words, values, problem):
    lists(tmp_path, [[[0, 0, 0], [0, 0, 0]], [values[:1] * 3, values[1:] * 3]] if 0 in values else
          [[values[:1] * 3, values[1:] * 3]])
    words = ("--data", tmp_path, "--split", "val", *words)
    if problem is None:
        assert check(capsys, *words)[0] == 0
    else:
        _expect_wrong(capsys, words, "wrong: 1 split that teaches nothing", problem)


def test_few_labels_are_read_before_training(listed, monkeypatch):
    """The first file has two classes: no other is read. Of a long list a part is."""
    seen = []
    monkeypatch.setattr("pspnet_repro.data.pairs.read_label",
                        lambda path, *rest: seen.append(path) or read_label(path, *rest))
    pairs = read_list(listed / "list.txt")
    check_lesson(pairs, 4)
    assert seen == [pairs[0].label]
    seen.clear()
    cv2.imwrite(str(listed / "0_label.png"), np.full((50, 70), 255, np.uint8))
    refused("0_label.png and 255 of the other 99999 label files: every pixel is unlabelled",
            check_lesson, pairs[:1] * 100_000, 4)
    assert len(seen) == 256
    # Spread over the list: what lies in its middle is met.
    check_lesson(pairs[:1] * 50_000 + pairs[1:2] * 1000 + pairs[:1] * 50_000, 4)
