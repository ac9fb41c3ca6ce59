"""Labels in .mat files: VOC 2012's train_aug from SBD, and PASCAL Context's 59 classes."""

import shlex
import struct
import zlib
from pathlib import Path

import numpy as np

from pspnet_repro.data.benchmarks import voc_root
from pspnet_repro.data.make_lists import write_labels
from pspnet_repro.data.pairs import Pair
from pspnet_repro.data.text import read_text
from pspnet_repro.errors import UserError, first_line, printable
from pspnet_repro.words import counted

TRAIN_AUG = 10_582
# Of the 459 labels of PASCAL Context those of the 59 classes, in the order of their names.
CONTEXT_IDS = (2, 9, 18, 19, 22, 23, 25, 31, 33, 34, 44, 45, 46, 59, 65, 68, 72, 80, 85, 98, 104,
               105, 113, 115, 144, 158, 159, 162, 187, 189, 207, 220, 232, 258, 259, 260, 284, 295,
               296, 308, 324, 326, 347, 349, 354, 355, 360, 366, 368, 397, 415, 416, 420, 424, 427,
               440, 445, 454, 458)
_CONTEXT_VALUES = np.zeros(460, np.uint8)
_CONTEXT_VALUES[list(CONTEXT_IDS)] = np.arange(1, 60)


def make_train_aug(sbd: Path, voc: Path, output: Path) -> None:
    """Write VOC 2012's train_aug for --data voc2012=OUTPUT: lists, and the labels of SBD as PNGs.

    Its images are those of SBD's train.txt and val.txt and of VOC's train.txt, without those of
    VOC's val.txt: 10,582. Images of VOC's train.txt keep VOC's own labels.

    Args:
        sbd: folder benchmark_RELEASE, or the one in or above it that holds dataset/ or it.
        voc: folder VOC2012, or VOCdevkit above it.
        output: folder; labels that an earlier call made there are not made again.
    Raises:
        UserError: scipy or a file is missing, a file is damaged, or something is in its place.
    """
    sbd = _folder_with(sbd, "cls", ("", "dataset", "benchmark_RELEASE/dataset"), "SBD data")
    voc = voc_root(voc, 2012, "Segmentation")
    lists = voc / "ImageSets" / "Segmentation"
    train, val = _names(lists / "train.txt"), _names(lists / "val.txt")
    added = sorted({*_names(sbd / "train.txt"), *_names(sbd / "val.txt")} - {*train, *val})
    own = {name: voc / "SegmentationClass" / f"{name}.png" for name in (*train, *val)}
    made = {name: output / "SegmentationClassAug" / f"{name}.png" for name in added}
    labels = own | made
    lists = {"train_aug": sorted({*added, *train}), "val": val}
    write_labels(output, "Segmentation", _pairs(voc, lists, labels),
                 {made[name]: _file(sbd / "cls" / f"{name}.mat") for name in added}, _sbd_label)
    count = len(lists["train_aug"])
    print(f"{counted(count, 'image')} of train_aug: pspnet train --data "
          f"{shlex.quote(f'voc2012={output}')} --split train_aug --output RUN")
    if count != TRAIN_AUG:
        print(f"note: all of SBD and VOC 2012 have {TRAIN_AUG}")


def make_pascal_context(context: Path, voc: Path, output: Path) -> None:
    """Write PASCAL Context's 59 classes for --data pascal-context=OUTPUT: lists, labels as PNGs.

    A label holds 0 for pixels without a class and k + 1 for class k, as in the common copies.

    Args:
        context: folder that holds trainval/*.mat, or that folder.
        voc: folder VOC2010, or VOCdevkit above it.
        output, Raises: see make_train_aug.
    """
    mats = _folder_with(context, "", ("trainval", ""), "PASCAL Context labels")
    voc = voc_root(voc, 2010, "Main")
    lists = {split: _names(voc / "ImageSets" / "Main" / f"{split}.txt")
             for split in ("train", "val")}
    labels = {name: output / "SegmentationClassContext" / f"{name}.png"
              for names in lists.values() for name in names}
    write_labels(output, "SegmentationContext", _pairs(voc, lists, labels),
                 {path: _file(mats / f"{name}.mat") for name, path in labels.items()},
                 _context_label)
    print(f"{counted(len(lists['train']), 'image')} of train and {len(lists['val'])} of val: "
          f"pspnet train --data {shlex.quote(f'pascal-context={output}')} --output RUN")


def _folder_with(root, inside, places, what):
    for place in places:
        if (root / place / inside).is_dir():
            return root / place
    raise UserError(f"{root}: no {what} here: lacks the folder {inside or places[0]}")


def _names(path):
    """The names in one of VOC's or SBD's lists."""
    return read_text(path, "list", "a text file with a name a line").split()


def _file(path):
    if not path.exists():
        raise UserError(f"{path}: no such file; unpack the whole archive there")
    return path


def _pairs(voc, lists, labels):
    """{split: Pairs} of {split: names}; `voc`: folder of JPEGImages, labels: {name: path}."""
    return {split: [Pair(voc / "JPEGImages" / f"{name}.jpg", labels[name]) for name in names]
            for split, names in lists.items()}


def _load(path, read):
    """read(content of a .mat file) -> (H, W) array, with errors in words."""
    try:
        from scipy.io import loadmat
        from scipy.io.matlab import MatReadError
    except ImportError as error:
        raise UserError(f"{path}: .mat files are read by scipy, which is not installed: pip "
                        "install scipy") from error
    try:
        label = np.asarray(read(loadmat(path)))
    except (OSError, ValueError, TypeError, LookupError, NotImplementedError, EOFError, MemoryError,
            struct.error, zlib.error, MatReadError) as error:
        raise UserError(f"{path}: holds no label map that can be read: "
                        f"{printable(first_line(error), 200)}; fetch the file anew") from error
    if label.ndim != 2 or not label.size or label.dtype.kind != "u":
        raise UserError(f"{path}: a label map must have two dimensions and whole numbers, got "
                        f"shape {label.shape} of {label.dtype}")
    return label


def _sbd_label(path):
    label = _load(path, lambda content: content["GTcls"]["Segmentation"][0, 0])
    if label.max() > 20:
        raise UserError(f"{path}: labels must be 0..20, got {label.max()}")
    return label.astype(np.uint8)


def _context_label(path):
    label = _load(path, lambda content: content["LabelMap"])
    if label.max() > 459:
        raise UserError(f"{path}: labels must be 0..459, got {label.max()}")
    return _CONTEXT_VALUES[label]
