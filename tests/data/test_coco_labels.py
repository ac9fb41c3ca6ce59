"""VOC's labels of COCO's instances, on a tiny copy in COCO's form."""

import json

import numpy as np
import pytest
from helpers.image_files import put

from pspnet_repro.__main__ import main
from pspnet_repro.data.coco_labels import NAMES, segmentation_mask
from pspnet_repro.data.data_set import open_data
from pspnet_repro.data.pairs import read_pair
from pspnet_repro.errors import UserError

HEIGHT, WIDTH = 48, 64
CATEGORIES = [{"id": 10 + k, "name": name} for k, name in enumerate(("zebra", *NAMES))]
PERSON, DOG, CAT, ZEBRA = (next(c["id"] for c in CATEGORIES if c["name"] == name)
                           for name in ("person", "dog", "cat", "zebra"))


def box(x0, y0, x1, y1):
    return [x0, y0, x1, y0, x1, y1, x0, y1]


def runs(mask):
    """COCO's run lengths, column by column."""
    flat = np.concatenate([[False], np.asarray(mask, bool).T.ravel(), [False]])
    ends = np.flatnonzero(flat[1:] != flat[:-1])
    counts = np.diff([0, *ends, mask.size]).tolist()
    return {"size": list(mask.shape), "counts": counts[:-1] if counts[-1] == 0 else counts}


def letters(counts):
    """COCO's text of run lengths, as its own library writes it."""
    text = ""
    for k, value in enumerate(counts):
        value -= counts[k - 2] if k > 2 else 0
        more = True
        while more:
            bits, value = value & 31, value >> 5
            more = value != (-1 if bits & 16 else 0)
            text += chr((bits | 32 * more) + 48)
    return text


def annotation(number, image, category, segmentation, area=2000.0):
    return {"id": number, "image_id": image, "category_id": category, "area": area,
            "segmentation": segmentation, "iscrowd": int(isinstance(segmentation, dict))}


CROWD = np.zeros((HEIGHT, WIDTH), bool)
CROWD[40:48, 10:64] = True
INSTANCES = [annotation(1, 7, PERSON, [box(0, 0, 32, 40), box(40, 0, 44, 4)]),
             annotation(2, 7, DOG, [box(16, 20, 64, 40)]),
             annotation(3, 7, ZEBRA, [box(0, 0, 64, 48)]),
             annotation(4, 7, PERSON, runs(CROWD)),
             annotation(5, 8, CAT, [box(0, 0, 10, 10)], 100.0)]


def write(root, annotations=INSTANCES, year="2017", split="train", ids=(7, 8), **others):
    """A tree of COCO; returns the path of its instances."""
    images = [{"id": k, "file_name": f"{split}{k:012d}.jpg", "height": HEIGHT, "width": WIDTH}
              for k in ids]
    for image in images:
        put(root / f"{split}{year}" / image["file_name"], np.zeros((HEIGHT, WIDTH, 3)))
    path = root / "annotations" / f"instances_{split}{year}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": images, "annotations": annotations,
                                "categories": CATEGORIES, **others}))
    return path


def make(root):
    return main(["make-lists", "--coco", str(root / "coco"), "-o", str(root / "made")])


@pytest.mark.parametrize("year", ["2017", "2014"])
def test_labels_are_vocs(tmp_path, capsys, year):
    write(tmp_path / "coco", year=year)
    write(tmp_path / "coco", [annotation(6, 9, CAT, [box(0, 0, 64, 48)])], year, "val", (9,))
    assert make(tmp_path) == 0
    said = capsys.readouterr().out
    assert f"instances_train{year}.json: 1 image with more than 1000 pixels" in said
    assert (f"2 images of coco, 1 others left out: pspnet train --data voc2012={tmp_path}/made "
            "--split coco") in said
    data = open_data(f"voc2012={tmp_path / 'made'}")
    first, second = (read_pair(pair, 21)[1] for pair in data.pairs("coco"))
    person, dog = 1 + NAMES.index("person"), 1 + NAMES.index("dog")
    wanted = np.zeros((HEIGHT, WIDTH), np.uint8)
    wanted[20:40, 16:] = dog
    wanted[:40, :32] = person
    wanted[20:40, 16:32] = 255  # both
    wanted[:4, 40:44] = person
    wanted[40:, 10:] = person
    assert (first == wanted).all() and (second == 8).all()
    assert [data.classes().names[k] for k in (8, 12, 15)] == ["cat", "dog", "person"]
    assert data.recipe.crop_size == 473
    # The same command makes nothing again.
    before = (tmp_path / "made/SegmentationClassCoco/train000000000007.png").stat().st_mtime_ns
    assert make(tmp_path) == 0
    assert (tmp_path / "made/SegmentationClassCoco/train000000000007.png"
            ).stat().st_mtime_ns == before


def test_names_are_in_vocs_order():
    voc = open_data("voc2012=.").classes().names[1:]
    theirs = dict(airplane="aeroplane", motorcycle="motorbike", couch="sofa", tv="tvmonitor")
    assert tuple(theirs.get(name, name).replace(" ", "") for name in NAMES) == voc


def test_a_training_on_coco_precedes_one_on_voc(tmp_path, capsys):
    write(tmp_path / "coco")
    assert make(tmp_path) == 0
    made = f"voc2012={tmp_path / 'made'}"
    small = ("--crop-size", "41", "--batch-size", "2", "--max-iter", "1", "--width", "0.0625",
             "--blocks", "1,1,1,1", "--stem-width", "4", "--threads", "1", "--bins", "1")
    (tmp_path / "made/ImageSets/Segmentation/train_aug.txt").write_text(
        (tmp_path / "made/ImageSets/Segmentation/coco.txt").read_text())
    assert main(["train", "--data", made, "--split", "coco", "--output", str(tmp_path / "first"),
                 *small]) == 0
    assert main(["train", "--data", made, "--split", "train_aug", "--output",
                 str(tmp_path / "second"), "--initial-weights", str(tmp_path / "first/weights.pt"),
                 *small]) == 0
    log = (tmp_path / "second" / "log.txt").read_text()
    assert "random" not in log and "head.score" not in log


@pytest.mark.parametrize("seed", range(4))
def test_polygons_cover_the_centres_they_enclose(seed):
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.uniform(0, 2 * np.pi, 9))
    points = np.stack([32 + 30 * rng.uniform(0.4, 1, 9) * np.cos(angles),
                       24 + 22 * rng.uniform(0.4, 1, 9) * np.sin(angles)], 1)
    mask = segmentation_mask([points.ravel().tolist()], HEIGHT, WIDTH, "x")
    # Winding numbers of the centres, in complex numbers.
    row, column = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    spokes = points @ [1, 1j] - (column + 1j * row)[..., None]
    turns = np.angle(np.roll(spokes, -1, 2) / spokes).sum(2) / (2 * np.pi)
    assert (mask == (np.abs(turns) > 0.5)).all() and mask.any()


def test_polygons_beyond_the_border_are_cut():
    mask = segmentation_mask([box(-3, -2.5, 70, 2.5)], HEIGHT, WIDTH, "x")
    assert mask[:3].sum() == 2 * WIDTH and mask.sum() == 2 * WIDTH


@pytest.mark.parametrize("seed", range(3))
def test_run_lengths_are_read_as_numbers_and_as_text(seed):
    mask = np.random.default_rng(seed).random((HEIGHT, WIDTH)) < (0.5, 0.01, 0.99)[seed]
    numbers = runs(mask)
    text = {**numbers, "counts": letters(numbers["counts"])}
    for each in (numbers, text):
        assert (segmentation_mask(each, HEIGHT, WIDTH, "x") == mask).all()


# As pycocotools writes a 4 x 5 mask whose third column and last pixel are set, and one of 300
# empty pixels, 100 set and 200 empty.
@pytest.mark.parametrize("text, counts", [("847M", [8, 4, 7, 1]), ("\\9T3X6", [300, 100, 200])])
def test_the_text_is_cocos(text, counts):
    assert letters(counts) == text
    height = 4 if sum(counts) == 20 else 6
    mask = segmentation_mask({"size": [height, sum(counts) // height], "counts": text}, height,
                             sum(counts) // height, "x")
    assert runs(mask)["counts"] == counts


@pytest.mark.parametrize("segmentation, words", [
    ([], r"segmentation must be polygons or run lengths, got '\[\]'"),
    (None, "segmentation must be polygons or run lengths, got 'None'"),
    ([[1, 2, 3, 4]], "a polygon must be at least three pairs of numbers, got"),
    ([[1, 2, 3, 4, 5, 6, 7]], "a polygon must be at least three pairs of numbers"),
    ([[1, 2, 3, 4, 5, "6"]], "a polygon must be at least three pairs of numbers"),
    ([[1, 2, 3, 4, 5, float("nan")]], "a polygon must be at least three pairs of numbers"),
    ([[1, 2, 3, 4, 5, 10 ** 400]], "a polygon must be at least three pairs of numbers"),
    ([[1, 2, 3, 4, 500, 6]], "a polygon must be near its image of 48x64 pixels"),
    ({"size": [64, 48], "counts": [3072]}, r"size must be that of its image, \[48, 64\], got"),
    ({"counts": [3072]}, "size must be that of its image"),
    ({"size": [48, 64], "counts": [3071]}, "counts must be run lengths of 3072 pixels, got"),
    ({"size": [48, 64], "counts": [-1, 3073]}, "counts must be run lengths of 3072 pixels"),
    ({"size": [48, 64], "counts": "PPP"}, "counts must be run lengths of 3072 pixels, got 'PPP'"),
    ({"size": [48, 64], "counts": "\n"}, "counts must be run lengths of 3072 pixels"),
    ({"size": [48, 64]}, "counts must be run lengths of 3072 pixels, got 'None'")])
def test_bad_segmentations_are_refused(segmentation, words):
    with pytest.raises(UserError, match=f"^f.json, annotation 3: {words}.*; unpack COCO's anno"):
        segmentation_mask(segmentation, HEIGHT, WIDTH, "f.json, annotation 3")


@pytest.mark.parametrize("content, words", [
    ("{", "must be JSON: "), ("[]", "must be an object with the field images, got '[]'"),
    ({"images": 3}, "images must be a list, got '3'"),
    ({"images": [3]}, "images, number 0: must be an object with the field id, got '3'"),
    ({"images": [{"id": "3"}]}, "images, number 0: id must be a whole number, got '3'"),
    ({"categories": []}, "categories must hold airplane, "),
    ({"categories": [c for c in CATEGORIES if c["name"] != "tv"]}, "lacks tv; unpack"),
    ({"categories": [{"id": 1}]}, "category 1: name must be text, got 'None'"),
    ({"annotations": [INSTANCES[0], INSTANCES[0]]},
     "annotations: each id must occur once, got 1 different ids of 2"),
    ({"annotations": [annotation(1, 99, DOG, [])]},
     "annotation 1: image_id must be that of an image of the file, got 99"),
    ({"annotations": [annotation(1, 7, DOG, [], None)]},
     "annotation 1: area must be a number of pixels, got 'None'"),
    ({"annotations": [annotation(1, 7, DOG, [[1, 2, 3]])]},
     "annotation 1: a polygon must be at least three pairs of numbers, got '[1, 2, 3]'"),
    ({"images": [{"id": 7, "file_name": "../x.jpg", "height": 48, "width": 64}],
      "annotations": INSTANCES[:1]},
     "image 7: file_name must be a name without a folder, got '../x.jpg'"),
    ({"images": [{"id": 7, "file_name": "x.jpg", "height": 0, "width": 64}],
      "annotations": INSTANCES[:1]}, "image 7: height and width must be 1 to "),
    ({"annotations": []}, "must have images of different names, with more than 1000 pixels")])
def test_damaged_files_are_named(tmp_path, capsys, content, words):
    path = write(tmp_path / "coco", **(content if isinstance(content, dict) else {}))
    if isinstance(content, str):
        path.write_text(content)
    assert make(tmp_path) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert words in error and "unpack COCO's annotations" in error
    assert error.startswith(f"error: {path if 'different names' not in words else ''}")
    assert not list(tmp_path.glob("made/ImageSets/*/*.txt"))


def test_missing_files_are_named(tmp_path, capsys):
    path = write(tmp_path / "coco")
    (tmp_path / "coco" / "train2017" / "train000000000007.jpg").unlink()
    assert make(tmp_path) == 1
    assert "train000000000007.jpg: no such file; unpack the whole" in capsys.readouterr().err
    (tmp_path / "coco" / "train2017").rename(tmp_path / "coco" / "images")
    assert make(tmp_path) == 1
    assert ("no COCO images here: lacks train2017 and images/train2017; unpack train2017.zip there"
            in capsys.readouterr().err)
    path.unlink()
    assert make(tmp_path) == 1
    assert "no COCO data here: lacks annotations/instances_train" in capsys.readouterr().err
    with pytest.raises(UserError, match="no VOC 2012 data here"):
        open_data(f"voc2012={tmp_path}").pairs("coco")
    (tmp_path / "ImageSets" / "Segmentation").mkdir(parents=True)
    with pytest.raises(UserError, match="coco.txt: no such list; make it and its labels of COCO's "
                                        "with pspnet make-lists --coco COCO -o OUT, and give"):
        open_data(f"voc2012={tmp_path}").pairs("coco")


def test_one_source_of_labels_is_named(capsys):
    assert main(["make-lists", "a", "b", "--coco", "c", "-o", "out"]) == 2
    assert "give one of IMAGES LABELS, --sbd, --pascal-context and --coco" in (
        capsys.readouterr().err)
