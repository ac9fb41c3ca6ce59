"""Where benchmarks keep their files, what their labels mean, and what their servers take."""

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pspnet_repro.data.augment import Augmentation
from pspnet_repro.data.conventions import IGNORE_INDEX
from pspnet_repro.data.label_map import read_label_map
from pspnet_repro.data.labels import IDENTITY, WRONG, ZERO_IS_VOID
from pspnet_repro.data.pairs import Pair, read_list
from pspnet_repro.errors import UserError


def _table(classes, ignored=()):
    """256 bytes: value classes[k] means class k, ignored ones nothing, others are wrong."""
    meaning = dict.fromkeys(ignored, IGNORE_INDEX) | {value: k for k, value in enumerate(classes)}
    return bytes(meaning.get(value, WRONG) for value in range(256))


def _values(classes):
    """256 bytes: class k becomes the value classes[k]; all others become 0."""
    return bytes((*classes, *[0] * (256 - len(classes))))


# labelIds of the 19 classes in the order of their labelTrainIds; others up to 33 are not tested.
CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
# 255: the licence plate, -1 in 8 bits.
CITYSCAPES_TABLE = _table(CITYSCAPES_IDS, (*range(34), 255))
# In the common copies unlabelled is 11; elsewhere it is 255.
CAMVID_TABLE = _table(range(11), (11, 255))
# The 182 labels less 1, without the 11 that COCO names and never draws.
COCO_STUFF_IDS = tuple(k for k in range(182)
                       if k not in (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90))
COCO_STUFF_TABLE = _table(COCO_STUFF_IDS, (255,))
CONTEXT_TABLE = _table(range(1, 60), (0,))
MAPILLARY_TABLE = _table(range(65), (65,))


@dataclass(frozen=True)
class Recipe:
    """How the authors train and test a benchmark (paper, 5.1; their scripts); ADE20K by default."""

    crop_size: int = 473  # pixels, of training and test
    base_size: int = 512  # pixels, of the test
    max_iter: int = 150_000  # of batch 16
    augmentation: Augmentation = Augmentation()


@dataclass(frozen=True)
class Layout:
    """One benchmark."""

    splits: tuple[str, ...]
    pairs: Callable[[Path, str], list[Pair]]  # of a folder and one of the splits
    submission: Callable[[Pair, str], str]  # a prediction's path in the folder of predictions
    written: bytes = IDENTITY  # what a class becomes in a prediction
    listed: bytes = IDENTITY  # what values of label files mean that a list names, see Pair
    recipe: Recipe = Recipe()


def first_folder(root: Path, names: Sequence[str], what: str, way_on: str = "") -> Path:
    """The first of `names` that is a folder in `root`. Raises UserError: none is."""
    for name in names:
        if (root / name).is_dir():
            return root / name
    raise UserError(f"{root}: no {what} here: lacks {' and '.join(names)}"
                    f"{'; ' * bool(way_on)}{way_on}")


def _images(folder, pattern):
    images = sorted(folder.glob(pattern))
    if not images:
        raise UserError(f"{folder}: holds no images {pattern}")
    return images


def _ade20k(root, split):
    if split == "test":
        folder = first_folder(root, ("images/testing", "release_test/testing", "testing"),
                               "test images of SceneParse150")
        return [Pair(image, None) for image in _images(folder, "*.jpg")]
    part = {"train": "training", "val": "validation"}[split]
    folder = first_folder(root, (f"images/{part}", f"ADEChallengeData2016/images/{part}"),
                           "SceneParse150 data")
    labels = folder.parents[1] / "annotations" / part
    return [Pair(image, labels / f"{image.stem}.png", ZERO_IS_VOID)
            for image in _images(folder, "*.jpg")]


def voc_root(root: Path, year: int, lists: str) -> Path:
    """The folder of VOC's files in `root`, where the folder `lists` of its ImageSets is."""
    inside = f"ImageSets/{lists}"
    return first_folder(root, (inside, f"VOC{year}/{inside}", f"VOCdevkit/VOC{year}/{inside}"),
                         f"VOC {year} data").parents[1]


def _of_voc_list(root, path, labels, table=None):
    """Pairs of a list of names, or of paths from `root`; `labels`: folder of labels, or None."""
    if not path.exists():
        raise UserError(f"{path}: no such list; it comes with the benchmark's files: bring it "
                        "from there")
    pairs = read_list(path, root, unlabelled=True, table=table)
    if pairs[0].label is not None:
        return pairs
    names = [pair.image.relative_to(root) for pair in pairs]
    return [Pair(root / "JPEGImages" / f"{name}.jpg",
                 None if labels is None else root / labels / f"{name}.png", table)
            for name in names]


def _voc2012(root, split):
    root = voc_root(root, 2012, "Segmentation")
    path = root / "ImageSets" / "Segmentation" / f"{split}.txt"
    if split == "train_aug" and not path.exists():
        raise UserError(f"{path}: no such list; put the 10582 names of the augmented annotations "
                        f"there, and their label files into {root / 'SegmentationClassAug'}; or "
                        f"make both of SBD with pspnet make-lists --sbd SBD --voc {root} -o OUT, "
                        "and give --data voc2012=OUT")
    if split == "coco" and not path.exists():
        raise UserError(f"{path}: no such list; make it and its labels of COCO's with pspnet "
                        "make-lists --coco COCO -o OUT, and give --data voc2012=OUT")
    labels = {"test": None, "train_aug": "SegmentationClassAug"}.get(split, "SegmentationClass")
    return _of_voc_list(root, path, labels)


def _pascal_context(root, split):
    root = voc_root(root, 2010, "SegmentationContext")
    return _of_voc_list(root, root / "ImageSets" / "SegmentationContext" / f"{split}.txt",
                        "SegmentationClassContext", CONTEXT_TABLE)


def _cityscapes(root, split):
    if split == "trainval":
        return _cityscapes(root, "train") + _cityscapes(root, "val")
    kind, archive = (("gtCoarse", "leftImg8bit_trainextra.zip") if split == "train_extra" else
                     ("gtFine", "leftImg8bit_trainvaltest.zip"))
    folder = first_folder(root, (f"leftImg8bit/{split}",), "Cityscapes data",
                          f"unpack {archive} there")
    if split != "test":
        labels = first_folder(root, (f"{kind}/{split}",), "Cityscapes labels",
                              f"unpack {kind}{'_trainvaltest' * (kind == 'gtFine')}.zip there")
    pairs = []
    for image in _images(folder, "*/*_leftImg8bit.png"):
        name = image.name.replace("_leftImg8bit.png", f"_{kind}_labelIds.png")
        pairs.append(Pair(image, None if split == "test" else labels / image.parent.name / name,
                          CITYSCAPES_TABLE))
    return pairs


def _camvid(root, split):
    if (root / f"{split}.txt").exists() and not (root / f"{split}annot").is_dir():
        return read_list(root / f"{split}.txt", table=CAMVID_TABLE)
    if (root / _STILLS).is_dir():
        raise UserError(f"{root}: holds CamVid's official files: give the folder as "
                        "--data camvid-official=DIR")
    folder = first_folder(root, (split,), "CamVid data")
    return [Pair(image, root / f"{split}annot" / image.name, CAMVID_TABLE)
            for image in _images(folder, "*.png")]


_STILLS = "701_StillsRaw_full"


def camvid_split(name: str) -> str:
    """The split of an official frame's name, as in SegNet's lists: 367, 101 and 233 of 701. Raises
    UserError for other names."""
    found = re.fullmatch("(0001TP|0006R0|0016E5|Seq05VD)_f?([0-9]+)", name)
    if not found:
        raise UserError(f"{name}: no frame of CamVid's four sequences, such as 0016E5_07959; move "
                        "the file away, or give lists")
    sequence, frame = found[1], int(found[2])
    if sequence == "Seq05VD" or sequence == "0001TP" and frame > 8520:
        return "test"
    return "val" if sequence == "0016E5" and 7959 <= frame <= 8159 else "train"


@functools.cache
def _camvid_colours():
    return read_label_map(Path(__file__).parent / "names" / "camvid-official-labels.txt").colours


def _camvid_official(root, split):
    folder = first_folder(root, (f"{split}_labels", "LabeledApproved_full", "labels"),
                           "CamVid labels in official colours")
    if folder.name == f"{split}_labels":
        images = _images(first_folder(root, (split,), "CamVid images"), "*.png")
    else:
        stills = first_folder(root, (_STILLS, f"images/{_STILLS}", "images"), "CamVid images")
        images = [image for image in _images(stills, "*.png") if camvid_split(image.stem) == split]
    return [Pair(image, folder / f"{image.stem}_L.png", colours=_camvid_colours())
            for image in images]


def _coco_stuff(root, split):
    part = f"{split}2017"
    labels = first_folder(root, tuple(f"{folder}/{part}" for folder in (
        "stuffthingmaps", "annotations", "stuffthingmaps_trainval2017")), "COCO-Stuff label maps")
    folder = first_folder(root, (f"images/{part}", part), "COCO images")
    return [Pair(image, labels / f"{image.stem}.png", COCO_STUFF_TABLE)
            for image in _images(folder, "*.jpg")]


def _mapillary(root, split):
    part = root / {"train": "training", "val": "validation", "test": "testing"}[split]
    folder = first_folder(part, ("images",), "Mapillary Vistas data")
    labels = None if split == "test" else first_folder(
        part, ("v1.2/labels", "labels"), "Mapillary Vistas labels of version 1.2")
    return [Pair(image, labels and labels / f"{image.stem}.png", MAPILLARY_TABLE)
            for image in _images(folder, "*.jpg")]


def _stem(pair, _split):
    return f"{pair.image.stem}.png"


def _voc2012_submission(pair, split):
    return f"results/VOC2012/Segmentation/comp6_{split}_cls/{pair.image.stem}.png"


LAYOUTS = {
    "ade20k": Layout(("train", "val", "test"), _ade20k, _stem,
                     bytes((k + 1) % 256 for k in range(256)), ZERO_IS_VOID),
    "voc2012": Layout(("train", "train_aug", "val", "trainval", "test", "coco"), _voc2012,
                      _voc2012_submission, recipe=Recipe(max_iter=30_000)),
    "cityscapes": Layout(("train", "val", "test", "trainval", "train_extra"), _cityscapes, _stem,
                         _values(CITYSCAPES_IDS),
                         recipe=Recipe(713, 2048, 90_000,
                                       Augmentation(rotation=0.0, blur=False))),
    "camvid": Layout(("train", "val", "test"), _camvid, _stem, listed=CAMVID_TABLE,
                     recipe=Recipe(base_size=480)),
    "camvid-official": Layout(("train", "val", "test"), _camvid_official, _stem,
                              recipe=Recipe(base_size=960)),
    "coco-stuff": Layout(("train", "val"), _coco_stuff, _stem, _values(COCO_STUFF_IDS)),
    "pascal-context": Layout(("train", "val"), _pascal_context, _stem, _values(range(1, 60))),
    "mapillary": Layout(("train", "val", "test"), _mapillary, _stem),
}
