"""COCO-Stuff, PASCAL Context, Mapillary Vistas, and CamVid in its official colours."""

from collections import Counter

import numpy as np
import pytest
from helpers.image_files import GREY, put
from PIL import Image

from pspnet_repro.data.benchmarks import (
    COCO_STUFF_IDS,
    COCO_STUFF_TABLE,
    CONTEXT_TABLE,
    MAPILLARY_TABLE,
    camvid_split,
)
from pspnet_repro.data.classes import known_classes
from pspnet_repro.data.data_set import open_data
from pspnet_repro.data.pairs import Pair, read_list, read_pair
from pspnet_repro.errors import UsageError, UserError


def test_coco_stuff_layout(tmp_path):
    put(tmp_path / "images" / "val2017" / "000000000139.jpg", GREY)
    put(tmp_path / "annotations" / "val2017" / "000000000139.png", [[0, 10, 12], [181, 255, 91]])
    data = open_data(f"coco-stuff={tmp_path}")
    (pair,) = data.pairs("val")
    assert read_pair(pair, 171)[1].tolist() == [[0, 10, 11], [170, 255, 80]]
    assert [data.written[k] for k in (0, 11, 80, 170)] == [0, 12, 91, 181]
    # As the zip files unpack in one folder.
    (tmp_path / "annotations").rename(tmp_path / "stuffthingmaps")
    (tmp_path / "images" / "val2017").rename(tmp_path / "val2017")
    (pair,) = data.pairs("val")
    assert read_pair(pair, 171)[1][0].tolist() == [0, 10, 11]
    # "street sign" is a name of COCO's that no pixel has.
    put(pair.label, [[0, 11, 12], [181, 182, 91]])
    with pytest.raises(UserError,
                       match=r"labels must be 0..10 or 12..24 or .* or 255, got 11, 182"):
        read_pair(pair, 171)


def test_coco_stuff_ids():
    assert len(COCO_STUFF_IDS) == 171 and COCO_STUFF_IDS[80:] == tuple(range(91, 182))
    assert [COCO_STUFF_TABLE[k] for k in COCO_STUFF_IDS] == list(range(171))
    assert COCO_STUFF_TABLE[255] == 255 and set(COCO_STUFF_TABLE[182:255]) == {254}


@pytest.mark.parametrize("above", ["", "VOC2010", "VOCdevkit/VOC2010"])
def test_pascal_context_layout(tmp_path, above):
    root = tmp_path / above
    put(root / "JPEGImages" / "2008_000002.jpg", GREY)
    put(root / "SegmentationClassContext" / "2008_000002.png", [[0, 1, 59], [2, 0, 0]])
    (root / "ImageSets" / "SegmentationContext").mkdir(parents=True)
    (root / "ImageSets" / "SegmentationContext" / "val.txt").write_text("2008_000002\n")
    data = open_data(f"pascal-context={tmp_path}")
    (pair,) = data.pairs("val")
    assert read_pair(pair, 59)[1].tolist() == [[255, 0, 58], [1, 255, 255]]
    assert data.written[:59] == bytes(range(1, 60))
    assert set(CONTEXT_TABLE[60:]) == {254}
    with pytest.raises(UserError, match="train.txt: no such list; it comes with the benchmark's"):
        data.pairs("train")


@pytest.mark.parametrize("labels", ["v1.2/labels", "labels"])
def test_mapillary_layout(tmp_path, labels):
    put(tmp_path / "validation" / "images" / "x.jpg", GREY)
    (tmp_path / "validation" / labels).mkdir(parents=True)
    image = Image.fromarray(np.array([[0, 64, 65], [13, 13, 13]], np.uint8), "P")
    image.putpalette([128, 64, 128] * 66)
    image.save(tmp_path / "validation" / labels / "x.png")
    put(tmp_path / "testing" / "images" / "y.jpg", GREY)
    data = open_data(f"mapillary={tmp_path}")
    (pair,) = data.pairs("val")
    assert read_pair(pair, 65)[1].tolist() == [[0, 64, 255], [13, 13, 13]]
    assert data.pairs("test") == [Pair(tmp_path / "testing" / "images" / "y.jpg", None,
                                       MAPILLARY_TABLE)]
    (tmp_path / "validation" / labels).rename(tmp_path / "v2.0")
    with pytest.raises(UserError, match="no Mapillary Vistas labels of version 1.2 here: lacks v1"):
        data.pairs("val")


def official(tmp_path, images, labels, names, label):
    for name in names:
        put(tmp_path / images / f"{name}.png", GREY)
        path = tmp_path / labels / f"{name}_L.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.array(label, np.uint8)).save(path)


# Of every class one colour, and others: Void, LaneMkgsNonDriv, Truck_Bus, Child.
LABEL = [[[128, 128, 128], [64, 192, 0], [192, 192, 128], [128, 64, 128], [64, 192, 128]],
         [[192, 192, 0], [0, 64, 64], [64, 64, 128], [64, 0, 128], [64, 64, 0]],
         [[192, 0, 192], [0, 0, 0], [192, 0, 64], [192, 128, 192], [192, 128, 64]]]


@pytest.mark.parametrize("images, labels", [
    ("701_StillsRaw_full", "LabeledApproved_full"), ("images/701_StillsRaw_full", "labels"),
    ("images", "labels")])
def test_camvid_official_layout(tmp_path, images, labels, monkeypatch):
    names = ("0001TP_006690", "0001TP_008550", "0016E5_07959", "0016E5_08160", "Seq05VD_f00000")
    official(tmp_path, images, labels, names, LABEL)
    data = open_data(f"camvid-official={tmp_path}")
    splits = {split: [pair.image.stem for pair in data.pairs(split)]
              for split in ("train", "val", "test")}
    assert splits == {"train": ["0001TP_006690", "0016E5_08160"], "val": ["0016E5_07959"],
                      "test": ["0001TP_008550", "Seq05VD_f00000"]}
    (pair,) = data.pairs("val")
    put(pair.image, np.zeros((3, 5, 3)))
    assert read_pair(pair, 11)[1].tolist() == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 255, 3, 8, 9]]
    assert data.classes() == known_classes("camvid")
    with pytest.raises(UsageError, match="colours of camvid-official mean is known"):
        open_data(f"camvid-official={tmp_path}", ignore=(3,))


def test_camvid_official_in_folders_of_splits(tmp_path):
    official(tmp_path, "val", "val_labels", ("0001TP_006690",), LABEL)
    (pair,) = open_data(f"camvid-official={tmp_path}").pairs("val")
    assert pair.label == tmp_path / "val_labels" / "0001TP_006690_L.png"


def test_camvid_copies_are_told_apart(tmp_path):
    official(tmp_path, "701_StillsRaw_full", "LabeledApproved_full", ("frame",), LABEL)
    with pytest.raises(UserError, match="give the folder as --data camvid-official=DIR"):
        open_data(f"camvid={tmp_path}").pairs("val")
    with pytest.raises(UserError, match="frame: no frame of CamVid's four sequences"):
        open_data(f"camvid-official={tmp_path}").pairs("val")


def test_camvid_splits():
    """The 701 frames: four sequences, of which SegNet's lists take 367, 101 and 233."""
    frames = [*(f"0001TP_{k:06d}" for k in range(6690, 10381, 30)),
              *(f"0006R0_f{k:05d}" for k in range(930, 3931, 30)),
              *(f"Seq05VD_f{k:05d}" for k in range(0, 5101, 30)),
              *(f"0016E5_{k:05d}" for k in range(7959, 8160, 2))]
    assert Counter(map(camvid_split, frames)) == {"train": 62 + 101, "test": 62 + 171, "val": 101}


def test_camvid_splits_of_the_shared_data(shared):
    for split in ("train", "val"):
        assert {camvid_split(pair.image.stem) for pair in
                read_list(shared / "data" / "camvid" / f"{split}.txt")} == {split}
