"""Images and labels of two folders, paired by name."""

import json
import time

import pytest
from helpers.image_files import GREY, put

from pspnet_repro.__main__ import main
from pspnet_repro.data.data_set import open_folders
from pspnet_repro.data.folders import pair_folders
from pspnet_repro.data.labels import ZERO_IS_VOID
from pspnet_repro.data.pairs import Pair
from pspnet_repro.errors import UsageError, UserError

LABEL = [[0, 1, 2], [2, 1, 0]]


def fill(folder, images, labels):
    """Empty files, which are enough to pair names."""
    for part, names in (("images", images), ("labels", labels)):
        (folder / part).mkdir(exist_ok=True)
        for name in names:
            path = folder / part / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    return folder / "images", folder / "labels"


def paired(folder, images, labels):
    """{image: label} as names in their folders."""
    roots = fill(folder, images, labels)
    return {pair.image.relative_to(roots[0]).as_posix(): pair.label.relative_to(roots[1]).as_posix()
            for pair in pair_folders(*roots)}


@pytest.mark.parametrize("images, labels", [
    (["a.jpg", "b.JPG", "c.png"], ["a.png", "b.png", "c.PNG"]),
    (["x/a.jpg", "y/a.jpg"], ["x/a.png", "y/a.png"]),
    (["IMG 1.jpg", "IMG 2.jpg"], ["IMG 1.png", "IMG 2.tif"]),
    (["a.jpg", "a_L.jpg"], ["a.png", "a_L.png"]),
    (["1.jpg", "10.jpg", "101.jpg"], ["1_L.png", "10_L.png", "101_L.png"]),
    (["1.jpg", "10.jpg"], ["mask_1.png", "mask_10.png"]),
    (["1.jpg", "10.jpg"], ["mask1.png", "mask10.png"]),
    (["x/1.jpg", "y/2.jpg"], ["x/a-1-b.png", "y/a-2-b.png"]),
    (["0001TP_006690.png", "Seq05VD_f00030.png"], ["0001TP_006690_L.png", "Seq05VD_f00030_L.png"]),
    (["b/b_000001_000019_leftImg8bit.png", "u/u_000002_000019_leftImg8bit.png"],
     ["b/b_000001_000019_gtFine_labelIds.png", "u/u_000002_000019_gtFine_labelIds.png"]),
    (["a_leftImg8bit.png"], ["a_gtFine_labelIds.png"]),
    (["image_1.jpg", "image_2.jpg", "image_11.jpg"],
     ["label_1.png", "label_2.png", "label_11.png"]),
    (["image1.jpg", "image2.jpg"], ["label1.png", "label2.png"]),
    (["i_1_x.jpg", "i_2_x.jpg"], ["l_1_y.png", "l_2_y.png"])])
def test_pairs_by_name(tmp_path, images, labels):
    assert paired(tmp_path, images, labels) == dict(zip(images, labels))


def test_other_files_are_left_out(tmp_path):
    assert paired(tmp_path, ["a.jpg", ".hidden.jpg", "notes.txt", ".git/b.jpg", "Thumbs.db"],
                  ["a.png", "a.json", "classes.txt", "._a.png"]) == {"a.jpg": "a.png"}


def test_labels_inside_the_folder_of_images(tmp_path):
    fill(tmp_path, ["a.jpg"], [])
    (tmp_path / "images" / "masks").mkdir()
    (tmp_path / "images" / "masks" / "a.png").touch()
    images, labels = tmp_path / "images", tmp_path / "images" / "masks"
    assert pair_folders(images, labels) == [Pair(images / "a.jpg", labels / "a.png")]


def test_links_are_followed_once(tmp_path):
    images, labels = fill(tmp_path, ["x/a.jpg"], ["x/a.png"])
    (images / "x" / "circle").symlink_to(images)
    (tmp_path / "other").symlink_to(labels)
    assert pair_folders(images, tmp_path / "other") == [
        Pair(images / "x" / "a.jpg", tmp_path / "other" / "x" / "a.png")]


@pytest.mark.parametrize("images, labels, words", [
    (["a.jpg", "b.jpg"], ["a.png"], r"1 image without a label: .*b.jpg; a label must have its"),
    (["a.jpg"], ["a.png", "b.png"], r"1 label without an image: .*b.png; a label must have its"),
    (["a.jpg", "b.jpg"], ["a.png", "c.png"], r"1 image without .*b.jpg; 1 label without .*c.png"),
    (["x/a.jpg"], ["y/a.png"], "1 image without a label: .*x/a.jpg; 1 label without an image"),
    (["1.jpg"], ["10.png"], "1 image without a label"),  # 0 is no word that a label adds
    (["a.jpg"], ["ab.png"], "1 image without a label"),
    (["a.jpg", "b.jpg"], ["a_L.png"], "1 image without a label: .*b.jpg"),
    (["1.jpg", "2.jpg"], ["1_2.png", "2_1.png"], "several kinds of labels fit the images as well"),
    (["a.jpg"], ["a_color.png", "a_ids.png"],
     "several kinds of labels fit .* such as a_color.png, a_ids.png of a: move all but one kind"),
    ([f"{k}.jpg" for k in range(9)], ["0.png"],
     r"8 images without .*1.jpg, .*3.jpg \.\.\.;"),
    (["a.jpg", "a.png"], ["a.png"], "images/a.png and a.jpg: two images of one name"),
    (["a.jpg"], ["a.png", "a.tif"], "labels/a.tif and a.png: two labels of one name"),
    ([], ["a.png"], r"images: holds no images \(.jpg .jpeg .png"),
    (["a.jpg"], [], r"labels: holds no labels \(.png .bmp .tif .tiff .pgm\)$"),
    (["a.jpg"], ["a.npy", "b.jpg"], r"labels: holds no labels \(.*\), but files .jpg .npy: save")])
def test_what_does_not_pair_is_refused(tmp_path, images, labels, words):
    with pytest.raises(UserError, match=words) as caught:
        pair_folders(*fill(tmp_path, images, labels))
    assert "\n" not in str(caught.value)
    if "holds no" not in words:
        assert "write a list with a line IMAGE LABEL" in str(caught.value)


def test_one_folder_for_both_is_refused(tmp_path):
    fill(tmp_path, ["a.jpg", "a.png"], [])
    (tmp_path / "same").symlink_to(tmp_path / "images")
    for other in ("images", "same"):
        with pytest.raises(UsageError, match="must be two folders, got"):
            pair_folders(tmp_path / "images", tmp_path / other)
    with pytest.raises(UserError, match="nowhere: no such folder"):
        pair_folders(tmp_path / "images", tmp_path / "nowhere")


def test_large_folders_pair_quickly(tmp_path):
    """No image is compared with all labels but for a few."""
    count = 1000
    images, labels = fill(tmp_path, [f"{k}.jpg" for k in range(count)],
                          [f"{k}_x.png" for k in range(count)])
    start = time.process_time()
    assert len(pair_folders(images, labels)) == count
    assert time.process_time() - start < 2  # all with all would be a million comparisons


@pytest.fixture
def data(tmp_path):
    """Three images with labels in two folders, and names of their classes beside."""
    for k in range(3):
        put(tmp_path / "images" / "s" / f"{k}.jpg", GREY)
        put(tmp_path / "labels" / "s" / f"{k}_L.png", LABEL)
    (tmp_path / "classes.txt").write_text("0 0 0 a\n1 1 1 b\n2 2 2 c\n")
    return tmp_path


def test_folders_are_a_data_set(data, tmp_path_factory):
    found = open_folders(data / "images", data / "labels")
    pairs = found.pairs("anything")
    assert [pair.image.name for pair in pairs] == ["0.jpg", "1.jpg", "2.jpg"]
    assert found.name == "images" and found.classes().names == ("a", "b", "c")
    assert str(found.submission(pairs[1], "x")) == "s/1.png"
    assert open_folders(data / "images", data / "labels", True).pairs("x")[0].table == ZERO_IS_VOID
    before = found.digest("train")
    assert before == open_folders(data / "images", data / "labels").digest("val")
    moved = tmp_path_factory.mktemp("moved")
    (data / "images").rename(moved / "photographs")
    (data / "labels").rename(moved / "masks")
    found = open_folders(moved / "photographs", moved / "masks")
    assert found.digest("x") == before
    (moved / "photographs" / "s" / "0.jpg").rename(moved / "photographs" / "s" / "9.jpg")
    (moved / "masks" / "s" / "0_L.png").rename(moved / "masks" / "s" / "9_L.png")
    assert found.digest("x") != before


def test_commands_take_folders(data, tmp_path, capsys):
    folders = ["--images", str(data / "images"), "--labels", str(data / "labels")]
    assert main(["check-data", *folders]) == 0
    assert "images: 3 images\n" in capsys.readouterr().out
    run = tmp_path / "run"
    assert main(["train", *folders, "--output", str(run), "--crop-size", "41", "--max-iter", "1",
                 "--batch-size", "2", "--blocks", "1,1,1,1", "--width", "0.0625", "--bins", "1",
                 "--stem", "classic", "--stem-width", "8", "--no-aux"]) == 0
    assert main(["evaluate", *folders, "--weights", str(run / "weights.pt"), "--base-size", "8",
                 "--no-flip"]) == 0
    (result,) = run.glob("*/result.json")
    assert json.loads(result.read_text())["images"] == 3


@pytest.mark.parametrize("words, part", [
    ((), "--data must name a data set; or give --images DIR and --labels DIR"),
    (("--images", "x"), "--images and --labels go together"),
    (("--labels", "x"), "--images and --labels go together"),
    (("--data", "x", "--labels", "x"), "give either --data, or --images and --labels"),
    (("--images", "x", "--labels", "y", "--data-root", "z"), "--data-root is for list files")])
def test_options_that_exclude_each_other(words, part, capsys):
    assert main(["check-data", "--classes", "2", *words]) == 2
    assert part in capsys.readouterr().err
