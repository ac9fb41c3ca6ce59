"""Goes over a data set and says what is wrong with it and how to mend it."""

import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import cv2
import numpy as np
from tqdm import tqdm

from pspnet_repro.data.benchmarks import CITYSCAPES_TABLE
from pspnet_repro.data.conventions import IGNORE_INDEX
from pspnet_repro.data.images import ImageDepth, read_image
from pspnet_repro.data.labels import (
    IDENTITY,
    ZERO_IS_VOID,
    ColouredLabel,
    LabelColour,
    LabelDepth,
    LabelFormat,
    allowed_values,
    read_label,
    read_label_file,
    spans,
)
from pspnet_repro.errors import UserError


@dataclass
class _File:
    """What one pair holds: the problem that kept it from being counted, or its label's values."""

    problem: tuple | None = None  # (kind, detail)
    values: np.ndarray | None = None  # (256,) pixels of each value of the label file


@dataclass
class Findings:
    """What was found in one split.

    Attributes:
        images: number of pairs.
        pixels: (256,) int64, pixels of each value of the label files.
        occurs: (256,) int64, label files that hold each value.
        problems: {kind: list of details}, one detail a file.
        mends: sentences, what is wrong in all and how to mend it.
    """

    images: int
    pixels: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))
    occurs: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))
    problems: dict = field(default_factory=dict)
    mends: list = field(default_factory=list)

    def add(self, kind, detail):
        self.problems.setdefault(kind, []).append(detail)


UNREADABLE = "files that cannot be used"
COLOURED = "coloured label files"
MEANINGLESS = "label files with colours that the label map does not name"
DEPTH = "label files of more or less than 8 bits a pixel"
FORMAT = "label files whose format does not keep indices for certain"
IMAGE_DEPTH = "images whose values have no certain brightness"
SIZES = "labels of another size than their image"
VALUES = "labels with values outside the classes"
TWICE = "images that are listed twice"
LESSON = "split that teaches nothing"
KINDS = {ImageDepth: IMAGE_DEPTH, LabelFormat: FORMAT, LabelDepth: DEPTH,
         LabelColour: MEANINGLESS}
READ = 256  # label files that `check_lesson` reads at most


def _colours(path):
    """The colours of a three-channel label file, at most some thousands, as a set of RGB."""
    decoded = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if decoded is None:
        return set()
    return set(map(tuple, np.unique(decoded.reshape(-1, 3)[:, ::-1], axis=0).tolist()))


def _examine(pair, classes, palette_rgb):
    """The _File of a pair."""
    try:
        size = read_image(pair.image).shape[:2]
        if pair.label is None:
            return _File()
        values = read_label_file(pair.label, pair.colours)
    except ColouredLabel as error:
        foreign = _colours(pair.label) - set(palette_rgb) - {(0, 0, 0), (255, 255, 255)}
        kind = "colours of the classes" if not foreign else "colours of no class"
        return _File((COLOURED, f"{error}: {kind}"))
    except UserError as error:
        return _File((KINDS.get(type(error), UNREADABLE), str(error)))
    counts = np.bincount(values.ravel(), minlength=256)
    if values.shape != size:
        return _File((SIZES, f"{pair.label}: {values.shape[0]}x{values.shape[1]}, the image "
                             f"{size[0]}x{size[1]}"), counts)
    wrong = np.flatnonzero(counts * ~allowed_values(classes, pair.table or IDENTITY))
    if wrong.size:
        return _File((VALUES, f"{pair.label}: {', '.join(map(str, wrong[:8]))}"), counts)
    return _File(None, counts)


def _mend_values(seen, classes, table):
    """What the values of all label files say of their origin; `seen` is sorted."""
    named = [v for v in seen if v != 255]
    most = max(named, default=0)
    if table == IDENTITY and 255 not in seen and most == classes:
        if classes == 11:
            return ("11 marks unlabelled pixels here, as in the common copies of CamVid: give the "
                    "folder as --data camvid=DIR")
        return (f"0..{classes}, and never 255: 0 = void and k + 1 = class k, as in SceneParse150: "
                "give the folder as --data ade20k=DIR, or add --zero-is-void")
    if table == IDENTITY and classes == 19 and most <= 33:
        return ("these look like Cityscapes labelIds, not labelTrainIds: give the folder as "
                "--data cityscapes=DIR, which makes one of the other")
    if table == ZERO_IS_VOID and 255 in seen and most < classes:
        return (f"0..{most} and 255: these labels start at 0 already: give list files without "
                "--zero-is-void")
    allowed = np.flatnonzero(allowed_values(classes, table))
    return (f"values must be {spans(allowed)}, and are {spans(seen)}: is the number of classes "
            f"right, and are unlabelled pixels 255? --label-map says what values mean, --ignore "
            f"which are unlabelled")


def _diagnose(findings, classes, table):
    seen = np.flatnonzero(findings.pixels).tolist()
    if VALUES in findings.problems:
        findings.mends.append(_mend_values(seen, classes, table))
    elif table == CITYSCAPES_TABLE and 255 in seen and max(seen[:-1], default=0) <= 18:
        findings.add(VALUES, "none above 18, but 255")
        findings.mends.append("these look like labelTrainIds under the name of labelIds: bring "
                              "the official gtFine files, or give list files")
    if COLOURED in findings.problems:
        details = findings.problems[COLOURED]
        if all(detail.endswith("colours of the classes") for detail in details):
            findings.mends.append("replace each colour by the index of its class in a PNG of one "
                                  "channel, or name it in a --label-map file with a line RED GREEN "
                                  "BLUE CLASS; the colours are those of the classes")
        else:
            findings.mends.append("label files must hold class indices in one channel, not a "
                                  "picture: look for the data set's index files, or say in a "
                                  "--label-map file with a line RED GREEN BLUE CLASS for each "
                                  "colour what it means")
    if MEANINGLESS in findings.problems:
        findings.mends.append("add the colours to the label map: RED GREEN BLUE CLASS, or RED "
                              "GREEN BLUE ignore")
    if DEPTH in findings.problems:
        findings.mends.append("save label files with 8 bits a pixel; no class index needs more")
    if FORMAT in findings.problems:
        findings.mends.append("write label files as 8-bit PNGs of one channel, from a source that "
                              "was never a JPEG or its like, which change indices")
    if IMAGE_DEPTH in findings.problems:
        findings.mends.append("scale these images to 0..255 and save them as 8-bit PNGs or JPEGs")
    if SIZES in findings.problems:
        findings.mends.append("labels must be drawn on the pixels as stored: an image turned by "
                              "EXIF or resized after labelling must be turned or resized back")
    if UNREADABLE in findings.problems:
        findings.mends.append("fetch the files anew that are missing or damaged, or take their "
                              "lines out of the list")
    labels = np.bincount(np.frombuffer(table, np.uint8), findings.pixels, 256)
    problem = no_lesson(labels > 0, classes, table)
    if problem and VALUES not in findings.problems:
        findings.add(LESSON, problem)


def no_lesson(present, classes, table):
    """Why a network cannot learn from labels, and what to do; None where it may.

    Args:
        present: (256,) bool, the labels that occur, after `table`.
        classes, table: see data.labels.allowed_values.
    """
    unlabelled = spans(np.flatnonzero(np.frombuffer(table, np.uint8) == IGNORE_INDEX))
    if not present[IGNORE_INDEX]:
        return None
    if not present[:classes].any():
        return (f"every pixel is unlabelled ({unlabelled}): give pixels the index of their class, "
                f"0 to {classes - 1}")
    if classes > 2 or np.flatnonzero(present[:classes]).tolist() != [0]:
        return None
    return (f"class 0 is the only one, and other pixels are unlabelled ({unlabelled}): "
            + ("where 0 and 1 are the two classes, leave out --zero-is-void"
               if table == ZERO_IS_VOID else
               "in masks of 0 and 255 write 1 in place of 255, for 2 classes; or give a "
               "--label-map with the lines 0 0 and 255 1"
               if table == IDENTITY else "give other values the class 1"))


def check_lesson(pairs, classes, zero_is_void=False, say=True):
    """Refuse training labels that teach nothing, without reading a large data set.

    At most READ label files, spread evenly over the list, are read until two classes are seen:
    usually one. If that never happens `no_lesson` of these files decides.

    Args:
        pairs: list of data.pairs.Pair with labels.
        classes, zero_is_void: see data.labels.read_label.
        say: print a note where the files read hold one class alone.
    Raises:
        UserError: nothing can be learnt, or a label file cannot be used.
    """
    chosen = np.linspace(0, len(pairs) - 1, min(READ, len(pairs))).round().astype(int)
    present = np.zeros(256, bool)
    for number in chosen:
        pair = pairs[number]
        label = read_label(pair.label, classes, zero_is_void, pair.table, pair.colours)
        present[np.unique(label)] = True
        if present[:classes].sum() > 1:
            return
    table = pairs[0].table or (ZERO_IS_VOID if zero_is_void else IDENTITY)
    others, read = len(pairs) - 1, len(chosen) - 1
    files = str(pairs[0].label) + f" and {read} of the other {others} label files" * (others > 0)
    problem = no_lesson(present, classes, table)
    if problem:
        raise UserError(f"{files}: {problem}")
    if say:
        only = np.flatnonzero(present[:classes])[0]
        print(f"note: {files} hold no class but {only}", file=sys.stderr)


def check_split(pairs, classes, palette_rgb, workers=2, progress=True):
    """Read every file of a split.

    Args:
        pairs: list of data.pairs.Pair.
        classes: number of classes.
        palette_rgb: colours of the classes, to tell what coloured label files are.
        workers: threads.
        progress: show a progress bar.
    Returns:
        Findings.
    """
    findings = Findings(len(pairs))
    for image, times in Counter(pair.image for pair in pairs).items():
        if times > 1:
            findings.add(TWICE, str(image))
    with ThreadPoolExecutor(workers) as pool:
        files = pool.map(lambda pair: _examine(pair, classes, palette_rgb), pairs)
        for file in tqdm(files, total=len(pairs), desc="check", unit="image",
                         disable=not progress):
            if file.problem is not None:
                findings.add(*file.problem)
            if file.values is not None:
                findings.pixels += file.values
                findings.occurs += file.values > 0
    _diagnose(findings, classes, pairs[0].table or IDENTITY)
    return findings
