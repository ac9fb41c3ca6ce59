"""Layouts of benchmarks, meanings of label values, submissions."""

import numpy as np
import pytest
from helpers.image_files import GREY, put

from pspnet_repro.data.benchmarks import CITYSCAPES_TABLE, LAYOUTS
from pspnet_repro.data.data_set import open_data
from pspnet_repro.data.pairs import Pair, read_pair
from pspnet_repro.errors import UsageError, UserError


def test_ade20k_layout(ade):
    data = open_data(f"ade20k={ade}")
    assert [p.image.name for p in data.pairs("train")] == ["ADE_train_00000001.jpg",
                                                           "ADE_train_00000002.jpg"]
    (pair,) = data.pairs("val")
    assert read_pair(pair, 150)[1].tolist() == [[255, 0, 149], [1, 2, 3]]
    assert open_data(f"ade20k={ade / 'ADEChallengeData2016'}").pairs("val") == [pair]
    (test,) = data.pairs("test")
    assert test.label is None
    assert str(data.submission(test, "test")) == "ADE_test_00000007.png"
    assert data.written[0] == 1 and data.written[149] == 150


def test_voc2012_layout(voc):
    data = open_data(f"voc2012={voc}")
    wanted = [[0, 1, 20], [255, 0, 0]]
    # The published labels are indices into a palette; all colours of this one are the same.
    assert read_pair(data.pairs("val")[0], 21)[1].tolist() == wanted
    augmented = data.pairs("train_aug")
    assert [p.label.parent.name for p in augmented] == ["SegmentationClassAug"] * 2
    assert read_pair(augmented[1], 21)[1].tolist() == wanted
    (test,) = data.pairs("test")
    assert test.label is None and test.image.exists()
    assert (str(data.submission(test, "test"))
            == "results/VOC2012/Segmentation/comp6_test_cls/t.png")
    assert data.written == bytes(range(256))


def test_voc2012_takes_a_list_of_paths(voc):
    root = voc / "VOCdevkit" / "VOC2012"
    (root / "ImageSets" / "Segmentation" / "train_aug.txt").write_text(
        "/JPEGImages/c.jpg /SegmentationClassAug/c.png\n")
    assert open_data(f"voc2012={root}").pairs("train_aug") == [
        Pair(root / "JPEGImages" / "c.jpg", root / "SegmentationClassAug" / "c.png")]


def test_voc2012_without_the_augmented_list(voc):
    (voc / "VOCdevkit" / "VOC2012" / "ImageSets" / "Segmentation" / "train_aug.txt").unlink()
    with pytest.raises(UserError, match="train_aug.txt: no such list; put the 10582 names"):
        open_data(f"voc2012={voc}").pairs("train_aug")


def test_cityscapes_layout(tmp_path):
    name = "bonn_000001_000019"
    put(tmp_path / "leftImg8bit" / "val" / "bonn" / f"{name}_leftImg8bit.png", GREY)
    put(tmp_path / "gtFine" / "val" / "bonn" / f"{name}_gtFine_labelIds.png",
        [[7, 8, 33], [0, 255, 29]])
    put(tmp_path / "leftImg8bit" / "test" / "bonn" / f"{name}_leftImg8bit.png", GREY)
    data = open_data(f"cityscapes={tmp_path}")
    (pair,) = data.pairs("val")
    assert read_pair(pair, 19)[1].tolist() == [[0, 1, 18], [255, 255, 255]]
    (test,) = data.pairs("test")
    assert test.label is None
    assert str(data.submission(test, "test")) == f"{name}_leftImg8bit.png"
    ids = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
    assert list(data.written[:19]) == ids
    assert [CITYSCAPES_TABLE[k] for k in ids] == list(range(19))
    put(pair.label, [[34, 7, 7], [7, 7, 7]])
    with pytest.raises(UserError, match=r"labels must be 0..33 or 255, got 34"):
        read_pair(pair, 19)


def test_cityscapes_splits_of_fine_and_coarse_labels(tmp_path):
    for split, kind, city in (("train", "gtFine", "aachen"), ("val", "gtFine", "bonn"),
                              ("train_extra", "gtCoarse", "augsburg"),
                              ("train", "gtCoarse", "aachen")):
        name = f"{city}_000000_000000"
        put(tmp_path / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png", GREY)
        put(tmp_path / kind / split / city / f"{name}_{kind}_labelIds.png",
            np.full((2, 3), 7 if kind == "gtFine" else 8))
    data = open_data(f"cityscapes={tmp_path}")
    both = data.pairs("trainval")
    assert both == data.pairs("train") + data.pairs("val") and len(both) == 2
    (extra,) = data.pairs("train_extra")
    assert extra.label.name == "augsburg_000000_000000_gtCoarse_labelIds.png"
    assert (read_pair(extra, 19)[1] == 1).all() and (read_pair(both[0], 19)[1] == 0).all()
    assert len({data.digest(split) for split in ("train", "trainval", "train_extra")}) == 3
    (tmp_path / "gtCoarse" / "train_extra").rename(tmp_path / "gtCoarse" / "extra")
    with pytest.raises(UserError, match="no Cityscapes labels here: lacks gtCoarse/train_extra; "
                                        "unpack gtCoarse.zip there"):
        data.pairs("train_extra")
    (tmp_path / "leftImg8bit" / "train_extra").rename(tmp_path / "leftImg8bit" / "extra")
    with pytest.raises(UserError, match="lacks leftImg8bit/train_extra; unpack leftImg8bit_train"):
        data.pairs("train_extra")


def test_camvid_layouts(tmp_path):
    put(tmp_path / "folders" / "val" / "x.png", GREY)
    put(tmp_path / "folders" / "valannot" / "x.png", [[0, 10, 11], [11, 0, 0]])
    (pair,) = open_data(f"camvid={tmp_path / 'folders'}").pairs("val")
    assert read_pair(pair, 11)[1].tolist() == [[0, 10, 255], [255, 0, 0]]
    put(tmp_path / "lists" / "x.png", GREY)
    put(tmp_path / "lists" / "y.png", [[0, 10, 255], [11, 0, 0]])
    (tmp_path / "lists" / "val.txt").write_text("x.png y.png\n")
    (pair,) = open_data(f"camvid={tmp_path / 'lists'}").pairs("val")
    assert read_pair(pair, 11)[1].tolist() == [[0, 10, 255], [255, 0, 0]]


def test_camvid_of_the_shared_data(shared):
    data = open_data(f"camvid={shared / 'data' / 'camvid'}")
    assert len(data.pairs("train")) == 367 and len(data.pairs("val")) == 101
    assert read_pair(data.pairs("val")[0], 11)[1].shape == (360, 480)


def test_list_data(tmp_path):
    (tmp_path / "val.txt").write_text("a.png b.png\n")
    (tmp_path / "test.txt").write_text("sub/a.jpg\nsub/b.jpg\n")
    data = open_data(str(tmp_path))
    assert data.pairs("val") == [Pair(tmp_path / "a.png", tmp_path / "b.png")]
    assert data.classes() is None
    pair = data.pairs("test")[1]
    assert pair == Pair(tmp_path / "sub" / "b.jpg", None)
    assert str(data.submission(pair, "test")) == "sub/b.png"
    (tmp_path / "classes.txt").write_text("0 10 255 old road\n\n1 2 3 sky\n")
    assert data.classes().names == ("old road", "sky")
    assert data.classes().palette_rgb == ((0, 10, 255), (1, 2, 3))
    one = open_data(str(tmp_path / "val.txt"), zero_is_void=True)
    assert one.pairs("anything") == [Pair(tmp_path / "a.png", tmp_path / "b.png",
                                          bytes([255, *range(255)]))]


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_say_what_they_miss(tmp_path, name):
    with pytest.raises(UserError, match=r"here: lacks .+"):
        open_data(f"{name}={tmp_path}").pairs("val")
    with pytest.raises(UsageError, match=f"{name} has the splits train, .*, not 'dev'"):
        open_data(f"{name}={tmp_path}").pairs("dev")


def test_open_data_rejects(tmp_path):
    with pytest.raises(UserError, match="nowhere: no such data folder"):
        open_data(f"ade20k={tmp_path / 'nowhere'}")
    with pytest.raises(UsageError, match="'coco' is no benchmark; choose ade20k, voc2012"):
        open_data(f"coco={tmp_path}")


def test_digest_follows_the_names(ade):
    data = open_data(f"ade20k={ade}")
    before = data.digest("train")
    assert before != data.digest("val") and before == open_data(f"ade20k={ade}").digest("train")
    put(ade / "ADEChallengeData2016" / "images" / "training" / "ADE_train_00000003.jpg", GREY)
    assert data.digest("train") != before


def test_zero_is_void_is_for_lists(ade):
    with pytest.raises(UsageError, match="--zero-is-void is for list files"):
        open_data(f"ade20k={ade}", zero_is_void=True)


@pytest.mark.parametrize("line, wanted", [
    ("../d/i0.png", "%parent/d/i0.png"), ("d/i0.png", "d/i0.png"),
    ("a/../../../i0.jpg", "a/%parent/%parent/%parent/i0.png")])
def test_predictions_stay_in_their_folder(tmp_path, line, wanted):
    (tmp_path / "val.txt").write_text(f"{line}\n")
    data = open_data(str(tmp_path))
    assert data.submission(data.pairs("val")[0], "val").as_posix() == wanted


def test_a_benchmark_without_its_folder_is_refused():
    with pytest.raises(UsageError, match="ade20k=: must name the folder of the data, ade20k=DIR"):
        open_data("ade20k=")
