"""Where benchmarks keep their files, what their labels mean, and what their servers take."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pspnet_repro.data.augment import Augmentation
from pspnet_repro.data.classes import known_classes, read_classes
from pspnet_repro.data.conventions import IGNORE_INDEX
from pspnet_repro.data.labels import WRONG, ZERO_IS_VOID
from pspnet_repro.data.pairs import Pair, list_digest, read_list
from pspnet_repro.errors import UsageError, UserError

# labelIds of the 19 classes in the order of their labelTrainIds; others up to 33 are not tested.
CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
CITYSCAPES_TABLE = bytes(
    CITYSCAPES_IDS.index(k) if k in CITYSCAPES_IDS else
    IGNORE_INDEX if k <= 33 or k == 255 else WRONG  # 255: the licence plate, -1 in 8 bits
    for k in range(256))
# In the common copies unlabelled is 11; elsewhere it is 255.
CAMVID_TABLE = bytes(k if k < 11 else IGNORE_INDEX if k in (11, 255) else WRONG
                     for k in range(256))
IDENTITY = bytes(range(256))


@dataclass(frozen=True)
class Recipe:
    """How the authors train and test a benchmark (paper, 5.1; their scripts); ADE20K by default.

    Attributes:
        crop_size, base_size: pixels, of training and test, and of the test alone.
        max_iter: steps of the training, of batch 16.
        augmentation: what the training draws.
    """

    crop_size: int = 473
    base_size: int = 512
    max_iter: int = 150_000
    augmentation: Augmentation = Augmentation()


@dataclass(frozen=True)
class Layout:
    """One benchmark.

    Attributes:
        splits: names that `pairs` takes.
        pairs: (folder, split) -> list of Pair.
        submission: (Pair, split) -> path of its prediction, relative to the folder of predictions.
        written: what a class becomes in a prediction, 256 bytes.
        listed: what values of label files mean that a list names, 256 bytes, see Pair.
        recipe: how it is trained and tested.
    """

    splits: tuple
    pairs: Callable
    submission: Callable
    written: bytes = IDENTITY
    listed: bytes = IDENTITY
    recipe: Recipe = Recipe()


def _first_folder(root, names, what):
    """The first of `names` that is a folder in `root`."""
    for name in names:
        if (root / name).is_dir():
            return root / name
    raise UserError(f"{root}: no {what} here: lacks {' and '.join(names)}")


def _images(folder, pattern):
    images = sorted(folder.glob(pattern))
    if not images:
        raise UserError(f"{folder}: holds no images {pattern}")
    return images


def _ade20k(root, split):
    if split == "test":
        folder = _first_folder(root, ("images/testing", "release_test/testing", "testing"),
                               "test images of SceneParse150")
        return [Pair(image, None) for image in _images(folder, "*.jpg")]
    part = {"train": "training", "val": "validation"}[split]
    folder = _first_folder(root, (f"images/{part}", f"ADEChallengeData2016/images/{part}"),
                           "SceneParse150 data")
    labels = folder.parents[1] / "annotations" / part
    return [Pair(image, labels / f"{image.stem}.png", ZERO_IS_VOID)
            for image in _images(folder, "*.jpg")]


def _voc2012(root, split):
    lists = _first_folder(root, ("ImageSets/Segmentation", "VOC2012/ImageSets/Segmentation",
                                 "VOCdevkit/VOC2012/ImageSets/Segmentation"), "VOC 2012 data")
    root, path = lists.parents[1], lists / f"{split}.txt"
    if split == "train_aug" and not path.exists():
        raise UserError(f"{path}: no such list; put the 10582 names of the augmented annotations "
                        f"there, and their label files into {root / 'SegmentationClassAug'}")
    pairs = read_list(path, root, unlabelled=True)
    if pairs[0].label is not None:
        return pairs
    names = [pair.image.relative_to(root) for pair in pairs]
    folder = "SegmentationClassAug" if split == "train_aug" else "SegmentationClass"
    return [Pair(root / "JPEGImages" / f"{name}.jpg",
                 None if split == "test" else root / folder / f"{name}.png") for name in names]


def _cityscapes(root, split):
    folder = _first_folder(root, (f"leftImg8bit/{split}",), "Cityscapes data")
    pairs = []
    for image in _images(folder, "*/*_leftImg8bit.png"):
        name = image.name.replace("_leftImg8bit.png", "_gtFine_labelIds.png")
        label = root / "gtFine" / split / image.parent.name / name
        pairs.append(Pair(image, None if split == "test" else label, CITYSCAPES_TABLE))
    return pairs


def _camvid(root, split):
    if (root / f"{split}.txt").exists() and not (root / f"{split}annot").is_dir():
        return read_list(root / f"{split}.txt", table=CAMVID_TABLE)
    folder = _first_folder(root, (split,), "CamVid data")
    return [Pair(image, root / f"{split}annot" / image.name, CAMVID_TABLE)
            for image in _images(folder, "*.png")]


def _stem(pair, _split):
    return f"{pair.image.stem}.png"


def _voc2012_submission(pair, split):
    return f"results/VOC2012/Segmentation/comp6_{split}_cls/{pair.image.stem}.png"


LAYOUTS = {
    "ade20k": Layout(("train", "val", "test"), _ade20k, _stem,
                     bytes((k + 1) % 256 for k in range(256)), ZERO_IS_VOID),
    "voc2012": Layout(("train", "train_aug", "val", "trainval", "test"), _voc2012,
                      _voc2012_submission, recipe=Recipe(max_iter=30_000)),
    "cityscapes": Layout(("train", "val", "test"), _cityscapes, _stem,
                         bytes((*CITYSCAPES_IDS, *[0] * (256 - len(CITYSCAPES_IDS)))),
                         recipe=Recipe(713, 2048, 90_000,
                                       Augmentation(rotation=0.0, blur=False))),
    "camvid": Layout(("train", "val", "test"), _camvid, _stem, listed=CAMVID_TABLE,
                     recipe=Recipe(base_size=480)),
}


@dataclass(frozen=True)
class DataSet:
    """A data set on disk.

    Attributes:
        name: for people and for names of folders.
        root: folder that everything lies in.
        layout: a Layout, or None for list files `<split>.txt`, or for the one file `list`.
        list: the list file that was given in place of a folder, or None.
        table: what values of list files' labels mean, see Pair; None: themselves.
    """

    name: str
    root: Path
    layout: Layout | None = None
    list: Path | None = None
    table: bytes | None = None

    def _list(self, split):
        return self.list or self.root / f"{split}.txt"

    def pairs(self, split):
        """The Pairs of "train", "val", "test" or another split. Raises UserError: no such files."""
        if self.layout is None:
            return read_list(self._list(split), self.root, unlabelled=True,
                             table=self.table)
        if split not in self.layout.splits:
            raise UsageError(f"{self.name} has the splits {', '.join(self.layout.splits)}, not "
                             f"{split!r}")
        return self.layout.pairs(self.root, split)

    def digest(self, split):
        """SHA-256 in hexadecimal of the list file, or of the names of images and labels."""
        if self.layout is None:
            return list_digest(self._list(split))
        names = "".join(f"{pair.image.relative_to(self.root)} "
                        f"{pair.label and pair.label.relative_to(self.root)}\n"
                        for pair in self.pairs(split))
        return hashlib.sha256(names.encode()).hexdigest()

    def classes(self):
        """Classes of the benchmark, or those of classes.txt beside the lists; None without one."""
        if self.layout is not None:
            return known_classes(self.name)
        path = self.root / "classes.txt"
        return read_classes(path) if path.exists() else None

    def submission(self, pair, split):
        """Path of a prediction in the benchmark's form, relative to the predictions' folder."""
        if self.layout is not None:
            return Path(self.layout.submission(pair, split))
        path = pair.image
        inside = path.relative_to(self.root) if path.is_relative_to(self.root) else Path(path.name)
        # A folder above the list's must not meet one of the same name below it.
        parts = ["%parent" if part == ".." else part for part in inside.parts]
        return Path(*parts).with_suffix(".png")

    @property
    def recipe(self):
        """The Recipe of the benchmark, or ADE20K's."""
        return Recipe() if self.layout is None else self.layout.recipe

    @property
    def written(self):
        """What a class becomes in a prediction, 256 bytes."""
        return IDENTITY if self.layout is None else self.layout.written


def open_data(text, zero_is_void=False):
    """The DataSet that a command line names.

    Args:
        text: NAME=DIR with NAME of LAYOUTS; or a folder with train.txt, val.txt and so on; or a
            list file. Beside lists classes.txt may give names and colours, see read_classes.
        zero_is_void: labels of list files are 0 = void, k + 1 = class k; benchmarks know it
            themselves.
    Raises:
        UsageError: an unknown NAME, or zero_is_void with a known one.
        UserError: no such folder.
    """
    name, equals, folder = text.partition("=")
    table = ZERO_IS_VOID if zero_is_void else None
    if equals and name in LAYOUTS:
        if zero_is_void:
            raise UsageError(f"--zero-is-void is for list files: what labels mean in {name} is "
                             f"known")
        data = DataSet(name, Path(folder), LAYOUTS[name])
    elif equals and not Path(text).exists():
        raise UsageError(f"--data: {name!r} is no benchmark; choose {', '.join(LAYOUTS)}, or give "
                         f"a folder with lists")
    elif Path(text).is_file():
        data = DataSet(Path(text).stem, Path(text).parent, None, Path(text), table)
    else:
        data = DataSet(Path(text).resolve().name, Path(text), None, None, table)
    if not data.root.is_dir():
        raise UserError(f"{data.root}: no such data folder")
    return data
