"""Goes over a data set and says what is wrong with it and what to do."""

import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import cv2
import numpy as np
from tqdm import tqdm

from pspnet_repro.data import labels
from pspnet_repro.data.benchmarks import CITYSCAPES_TABLE
from pspnet_repro.data.conventions import IGNORE_INDEX, strips, value_counts
from pspnet_repro.data.images import ImageDepth, read_image
from pspnet_repro.data.pairs import Pair, is_missing, read_label_of, start_of_paths
from pspnet_repro.errors import UserError


@dataclass
class Findings:
    """What was found in one split."""

    # (256,) int64, of each value of the label files: its pixels, and the files that hold it.
    pixels: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))
    occurs: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))
    # By kind: details, one a file, and a sentence on what to do.
    problems: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    advice: dict[tuple[str, str], str] = field(default_factory=dict)

    def add(self, kind: tuple[str, str], detail: str) -> None:
        self.problems.setdefault(kind, []).append(detail)


# Kinds of problems: what is counted, and what is wrong with it.
LINES = "line", "of the list that cannot be used"
MISSING = "file", "that cannot be found"
UNREADABLE = "file", "that cannot be used"
COLOURED = "coloured label file", ""
MEANINGLESS = "label file", "with colours that the label map does not name"
DEPTH = "label file", "of more or less than 8 bits a pixel"
FORMAT = "label file", "of a format that may change indices"
IMAGE_DEPTH = "image", "of no certain brightness"
SIZES = "label", "of another size than the image"
VALUES = "label", "with values outside the classes"
TWICE = "image", "listed more than once"
LESSON = "split", "that teaches nothing"
KINDS = {ImageDepth: IMAGE_DEPTH, labels.LabelFormat: FORMAT, labels.LabelDepth: DEPTH,
         labels.LabelColour: MEANINGLESS}
ADVICE = {
    UNREADABLE: "fetch damaged files anew, or take their lines out of the list",
    MEANINGLESS: "add the colours to the label map: RED GREEN BLUE CLASS, or RED GREEN BLUE ignore",
    DEPTH: "save label files with 8 bits a pixel; no class index needs more",
    FORMAT: "write label files as 8-bit PNGs of one channel, from a source that was never a JPEG "
            "or its like, which change indices",
    IMAGE_DEPTH: "scale these images to 0..255 and save them as 8-bit PNGs or JPEGs",
    SIZES: "labels must be drawn on the pixels as stored: an image turned by EXIF or resized after "
           "labelling must be turned or resized back",
    TWICE: "take all lines of an image but one out of the list"}
READ = 256  # label files that `check_lesson` reads at most


def _colours(path):
    """The colours of a three-channel label file, as of labels.colour_keys."""
    decoded = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if decoded is None:
        return np.zeros(0, np.uint32)
    keys = np.zeros(0, np.uint32)
    for rows in strips(*decoded.shape[:2]):
        keys = np.union1d(keys, labels.colour_keys(decoded[rows, :, ::-1]))
    return keys


def _examine(pair, classes, palette_rgb):
    """What is wrong with a pair, (kind, detail) or None, and (256,) pixels of each value of its
    label file, or None."""
    try:
        size = read_image(pair.image).shape[:2]
        if pair.label is None:
            return None, None
        values = labels.read_label_file(pair.label, pair.colours)
    except labels.ColouredLabel as error:
        plain = labels.colour_keys(np.array([*palette_rgb, (0, 0, 0), (255, 255, 255)]))
        foreign = np.setdiff1d(_colours(pair.label), plain)
        whose = "no class" if foreign.size else "the classes"
        return (COLOURED, f"{error}: colours of {whose}"), None
    except UserError as error:
        kind = MISSING if is_missing(error) else KINDS.get(type(error), UNREADABLE)
        return (kind, str(error)), None
    counts = value_counts(values)
    if values.shape != size:
        return (SIZES, f"{pair.label}: {values.shape[0]}x{values.shape[1]}, the image "
                       f"{size[0]}x{size[1]}"), counts
    wrong = np.flatnonzero(counts * ~labels.allowed_values(classes, pair.table or labels.IDENTITY))
    if wrong.size:
        return (VALUES, f"{pair.label}: {', '.join(map(str, wrong[:8]))}"), counts
    return None, counts


def _advice_on_values(seen, classes, table):
    """What the values of all label files say of their origin; `seen` is sorted."""
    named = [v for v in seen if v != 255]
    first, most = min(named, default=0), max(named, default=0)
    if table == labels.IDENTITY and 255 not in seen and most == classes:
        return _advice_on_one_more(named, classes)
    if table == labels.IDENTITY and classes == 19 and most <= 33:
        return ("these look like Cityscapes labelIds, not labelTrainIds: give the folder as "
                "--data cityscapes=DIR, which makes one of the other")
    if table == labels.ZERO_IS_VOID and 255 in seen and most < classes:
        return (f"labels are {first} to {most}, and 255: these labels start at 0 already: give "
                "list files without --zero-is-void")
    allowed = np.flatnonzero(labels.allowed_values(classes, table))
    return (f"values must be {labels.spans(allowed)}, and are {labels.spans(seen)}: is the number "
            "of classes right, and are unlabelled pixels 255? --label-map says what values mean, "
            "--ignore which are unlabelled")


def _advice_on_one_more(values, classes):
    """What labels may mean whose largest value is the number of classes; the likelier first."""
    lacks = "classes.txt or --classes lacks one"
    zero_is_void = "add --zero-is-void, which takes k + 1 for class k"
    if values[0] > 0:
        ways = [f"if 1 is the first class, {zero_is_void}",
                f"if 0 is a class that these images do not show, {lacks}"]
    elif classes == 150:
        ways = ["if 0 means void, as in SceneParse150, give the folder as --data ade20k=DIR, or "
                + zero_is_void, f"if 0 is a class, {lacks}"]
    elif classes == 11:
        ways = ["if 11 means unlabelled, as in the common copies of CamVid, give the folder as "
                "--data camvid=DIR", f"if 11 is a class, {lacks}",
                f"if 0 means void, {zero_is_void}"]
    else:
        ways = [f"if 0 is a class, {lacks}", f"if 0 means void, {zero_is_void}"]
    there = "is 1 class" if classes == 1 else f"are {classes} classes"
    return f"labels are {values[0]} to {values[-1]}, and there {there}: {'; '.join(ways)}"


def _advice_on_missing(root):
    take = "or take their lines out of the list"
    return (f"{start_of_paths(root)}; or fetch the files, {take}" if root is not None else
            f"fetch the files, {take}")


def _advice_on_colours(details):
    if all(detail.endswith("colours of the classes") for detail in details):
        return ("replace each colour by the index of its class in a PNG of one channel, or name it "
                "in a --label-map file with a line RED GREEN BLUE CLASS; the colours are those of "
                "the classes")
    return ("label files must hold class indices in one channel, not a picture: look for the data "
            "set's index files, or say in a --label-map file with a line RED GREEN BLUE CLASS for "
            "each colour what it means")


def _diagnose(findings, classes, pair):
    """Fill in what all files together tell, and the advice; `pair`: one of them."""
    table = pair.table or labels.IDENTITY
    seen = np.flatnonzero(findings.pixels).tolist()
    meanings = np.bincount(np.frombuffer(table, np.uint8), findings.pixels, 256)
    problem = no_lesson(meanings > 0, classes, table)
    if VALUES in findings.problems:
        findings.advice[VALUES] = _advice_on_values(seen, classes, table)
    elif table == CITYSCAPES_TABLE and 255 in seen and max(seen[:-1], default=0) <= 18:
        findings.add(VALUES, "none above 18, but 255")
        findings.advice[VALUES] = ("these look like labelTrainIds under the name of labelIds: "
                                   "bring the official gtFine files, or give list files")
    elif problem:
        findings.add(LESSON, problem)
    for kind, details in findings.problems.items():
        if kind == COLOURED:
            findings.advice[kind] = _advice_on_colours(details)
        elif kind == MISSING:
            findings.advice[kind] = _advice_on_missing(pair.root)
        elif kind in ADVICE:
            findings.advice[kind] = ADVICE[kind]


def no_lesson(present: np.ndarray, classes: int, table: bytes) -> str | None:
    """Why a network cannot learn from labels, and what to do; None where it may.

    Args:
        present: (256,) bool, the labels that occur, after `table`.
    """
    unlabelled = labels.spans(np.flatnonzero(np.frombuffer(table, np.uint8) == IGNORE_INDEX))
    if not present[IGNORE_INDEX]:
        return None
    if not present[:classes].any():
        return (f"every pixel is unlabelled ({unlabelled}): give pixels the index of their class, "
                f"0 to {classes - 1}")
    if classes > 2 or np.flatnonzero(present[:classes]).tolist() != [0]:
        return None
    return (f"class 0 is the only one, and other pixels are unlabelled ({unlabelled}): "
            + ("where 0 and 1 are the two classes, leave out --zero-is-void"
               if table == labels.ZERO_IS_VOID else
               "in masks of 0 and 255 write 1 in place of 255, for 2 classes; or give a "
               "--label-map with the lines 0 0 and 255 1"
               if table == labels.IDENTITY else "give other values the class 1"))


def check_lesson(pairs: Sequence[Pair], classes: int, say: bool = True) -> None:
    """Refuse training labels that teach nothing, without reading a large data set.

    At most READ label files, spread evenly over the list, are read until two classes are seen:
    usually one. If that never happens `no_lesson` of these files decides: it raises UserError, or
    with `say` a note is printed that they hold one class alone.
    """
    chosen = np.linspace(0, len(pairs) - 1, min(READ, len(pairs))).round().astype(int)
    present = np.zeros(256, bool)
    for number in chosen:
        present[np.unique(read_label_of(pairs[number], classes))] = True
        if present[:classes].sum() > 1:
            return
    others, read = len(pairs) - 1, len(chosen) - 1
    files = str(pairs[0].label) + f" and {read} of the other {others} label files" * (others > 0)
    if problem := no_lesson(present, classes, pairs[0].table or labels.IDENTITY):
        raise UserError(f"{files}: {problem}")
    if say:
        only = np.flatnonzero(present[:classes])[0]
        print(f"note: {files} hold no class but {only}", file=sys.stderr)


def check_split(pairs: Sequence[Pair], classes: int, palette_rgb: Iterable[tuple[int, int, int]],
                threads: int, bad_lines: Iterable[UserError]) -> Findings:
    """Read every file of a split.

    Args:
        palette_rgb: colours of the classes, to tell what coloured label files are.
        bad_lines: of its list, see data.pairs.read_list.
    """
    findings = Findings()
    for error in bad_lines:
        findings.add(LINES, str(error))
    for image, times in Counter(pair.image for pair in pairs).items():
        if times > 1:
            findings.add(TWICE, str(image))
    with ThreadPoolExecutor(threads) as pool:
        files = pool.map(lambda pair: _examine(pair, classes, palette_rgb), pairs)
        for problem, values in tqdm(files, total=len(pairs), desc="check", unit="image"):
            if problem is not None:
                findings.add(*problem)
            if values is not None:
                findings.pixels += values
                findings.occurs += values > 0
    if pairs:
        _diagnose(findings, classes, pairs[0])
    return findings
