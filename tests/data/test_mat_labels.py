"""VOC 2012's train_aug made from SBD, and PASCAL Context's 59 classes, on tiny copies."""

import builtins

import numpy as np
import pytest
from helpers.image_files import GREY, put
from PIL import Image

from pspnet_repro.__main__ import main
from pspnet_repro.data.classes import known_classes
from pspnet_repro.data.data_set import open_data
from pspnet_repro.data.mat_labels import CONTEXT_IDS
from pspnet_repro.data.pairs import read_pair
from pspnet_repro.errors import UserError

io = pytest.importorskip("scipy.io", reason="scipy is not installed: pip install scipy")

OWN = [[1, 1, 255], [0, 0, 1]]
SBD = [[2, 2, 2], [0, 20, 2]]


def lists(folder, **splits):
    folder.mkdir(parents=True, exist_ok=True)
    for split, names in splits.items():
        (folder / f"{split}.txt").write_text("".join(f"{name}\n" for name in names.split()))


def save_sbd(path, label):
    path.parent.mkdir(parents=True, exist_ok=True)
    io.savemat(path, {"GTcls": {"Segmentation": np.array(label, np.uint8),
                                "Boundaries": np.zeros(20), "CategoriesPresent": [2]}})


@pytest.fixture
def folders(tmp_path):
    """VOC has t1, t2 to train and v1 to validate; SBD trains on v1, t2, s1 and validates on s2."""
    voc = tmp_path / "VOCdevkit" / "VOC2012"
    lists(voc / "ImageSets" / "Segmentation", train="t1 t2", val="v1")
    lists(tmp_path / "benchmark_RELEASE" / "dataset", train="v1 t2 s1", val="s2")
    for name in ("t1", "t2", "v1", "s1", "s2"):
        put(voc / "JPEGImages" / f"{name}.jpg", GREY)
    for name in ("t1", "t2", "v1"):
        put(voc / "SegmentationClass" / f"{name}.png", OWN)
    for name in ("v1", "t2", "s1", "s2"):
        save_sbd(tmp_path / "benchmark_RELEASE" / "dataset" / "cls" / f"{name}.mat", SBD)
    return tmp_path


def make(folder, sbd="benchmark_RELEASE", voc="VOCdevkit"):
    return main(["make-lists", "--sbd", str(folder / sbd), "--voc", str(folder / voc), "-o",
                 str(folder / "made")])


@pytest.mark.parametrize("sbd", ["", "benchmark_RELEASE", "benchmark_RELEASE/dataset"])
@pytest.mark.parametrize("voc", ["", "VOCdevkit/VOC2012"])
def test_train_aug_from_sbd(folders, capsys, sbd, voc):
    assert make(folders, sbd, voc) == 0
    said = capsys.readouterr().out
    assert f"4 images of train_aug: pspnet train --data voc2012={folders}/made --split" in said
    assert "note: all of SBD and VOC 2012 have 10582" in said
    data = open_data(f"voc2012={folders / 'made'}")
    pairs = {pair.image.stem: read_pair(pair, 21)[1].tolist() for pair in data.pairs("train_aug")}
    # No image of VOC's val is trained on, and VOC's own labels stay.
    assert pairs == {"t1": OWN, "t2": OWN, "s1": SBD, "s2": SBD}
    (val,) = data.pairs("val")
    assert val.image.stem == "v1" and read_pair(val, 21)[1].tolist() == OWN
    assert data.recipe.max_iter == 30_000 and data.digest("train_aug") != data.digest("val")
    assert main(["check-data", "--data", f"voc2012={folders / 'made'}", "--split",
                 "train_aug"]) == 0


def test_labels_that_are_made_are_not_made_again(folders):
    assert make(folders) == 0
    label = folders / "made" / "SegmentationClassAug" / "s1.png"
    before = label.stat().st_mtime_ns
    save_sbd(folders / "benchmark_RELEASE" / "dataset" / "cls" / "s1.mat", OWN)
    assert make(folders) == 0
    assert label.stat().st_mtime_ns == before
    label.unlink()
    (folders / "benchmark_RELEASE" / "dataset" / "cls" / "s1.mat").unlink()
    save_sbd(folders / "benchmark_RELEASE" / "dataset" / "cls" / "s1.mat", SBD)
    assert make(folders) == 0 and label.exists()


def test_nothing_of_others_is_overwritten(folders, capsys):
    mine = put(folders / "made" / "SegmentationClassAug" / "s2.png", GREY)
    before = mine.read_bytes()
    assert make(folders) == 1
    assert "s2.png: is there already, and this command did not make it" in capsys.readouterr().err
    assert mine.read_bytes() == before
    assert [path.name for path in mine.parent.iterdir()] == ["s2.png"]
    # VOC's own folder has lists of its own.
    assert main(["make-lists", "--sbd", str(folders), "--voc", str(folders), "-o",
                 str(folders / "VOCdevkit" / "VOC2012")]) == 1
    assert "val.txt: is there already" in capsys.readouterr().err
    assert not (folders / "VOCdevkit" / "VOC2012" / "SegmentationClassAug").exists()


@pytest.mark.parametrize("content, words", [
    (b"not a .mat file at all" * 10, "holds no label map that can be read: "),
    (b"", "holds no label map that can be read: "),
    ({"Other": np.zeros(3)}, "holds no label map that can be read: "),
    ({"GTcls": np.zeros((2, 3))}, "holds no label map that can be read: "),
    ({"GTcls": {"Segmentation": np.zeros((2, 3))}}, "two dimensions and whole numbers, got shape "),
    ({"GTcls": {"Segmentation": np.zeros((0, 0), np.uint8)}}, "got shape "),
    ({"GTcls": {"Segmentation": np.full((2, 3), 21, np.uint8)}}, "labels must be 0..20, got 21"),
    (None, "no such file; unpack the whole archive there")])
def test_bad_mat_files_are_refused(folders, capsys, content, words):
    path = folders / "benchmark_RELEASE" / "dataset" / "cls" / "s2.mat"
    path.unlink()
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        io.savemat(path, content)
    assert make(folders) == 1
    error = capsys.readouterr().err
    assert f"error: {path}: " in error and words in error and "Traceback" not in error
    assert not list((folders / "made").glob("ImageSets/*/*.txt"))
    save_sbd(path, SBD)
    assert make(folders) == 0


def test_missing_files_are_named(folders, capsys):
    (folders / "VOCdevkit" / "VOC2012" / "JPEGImages" / "s1.jpg").unlink()
    assert make(folders) == 1
    assert "JPEGImages/s1.jpg: no such file; unpack the whole" in capsys.readouterr().err
    (folders / "benchmark_RELEASE" / "dataset" / "val.txt").unlink()
    assert make(folders) == 1
    assert "dataset/val.txt: no such list file" in capsys.readouterr().err
    assert not (folders / "made").exists()


def test_scipy_is_named_where_it_is_missing(folders, capsys, monkeypatch):
    real = builtins.__import__

    def refuse(name, *rest):
        if name.startswith("scipy"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    assert make(folders) == 1
    assert "read by scipy, which is not installed: pip install scipy" in capsys.readouterr().err


def test_voc2012_says_how_to_make_train_aug(folders):
    with pytest.raises(UserError, match="train_aug.txt: no such list; put the 10582 names .* or "
                                        "make both of SBD with pspnet make-lists --sbd SBD --voc"):
        open_data(f"voc2012={folders}").pairs("train_aug")


def test_pascal_context_from_its_labels(tmp_path, capsys):
    voc = tmp_path / "VOC2010"
    lists(voc / "ImageSets" / "Main", train="a", val="b c")
    (tmp_path / "trainval").mkdir()
    label = [[2, 9, 458], [0, 431, 284]]  # aeroplane, bag, wood; nothing, unknown, person
    for name in "abc":
        put(voc / "JPEGImages" / f"{name}.jpg", GREY)
        io.savemat(tmp_path / "trainval" / f"{name}.mat", {"LabelMap": np.array(label, np.uint16)})
    words = ["make-lists", "--pascal-context", str(tmp_path), "--voc", str(tmp_path), "-o",
             str(tmp_path / "made")]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "1 image of train and 2 of val: pspnet train --data pascal-co" in printed
    data = open_data(f"pascal-context={tmp_path / 'made'}")
    assert [pair.image.stem for pair in data.pairs("val")] == ["b", "c"]
    names = known_classes("pascal-context").names
    found = read_pair(data.pairs("train")[0], 59)[1]
    assert [names[k] for k in found[0]] == ["aeroplane", "bag", "wood"]
    assert found[1, :2].tolist() == [255, 255] and names[found[1, 2]] == "person"
    assert Image.open(data.pairs("train")[0].label).getextrema() == (0, 59)
    io.savemat(tmp_path / "trainval" / "a.mat", {"LabelMap": np.full((2, 3), 460, np.uint16)})
    data.pairs("train")[0].label.unlink()
    assert main(words) == 1
    assert "a.mat: labels must be 0..459, got 460" in capsys.readouterr().err


def test_ids_of_pascal_context():
    """Ids of the 459 labels, which are in the order of their names, as the 59 classes are."""
    assert len(CONTEXT_IDS) == 59 and list(CONTEXT_IDS) == sorted(set(CONTEXT_IDS))
    names = known_classes("pascal-context").names
    assert list(names) == sorted(names)
