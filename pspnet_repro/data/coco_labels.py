"""Labels of VOC 2012's classes from COCO's instances, for a training before that on VOC."""

import json
import shlex
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pspnet_repro.data.benchmarks import first_folder
from pspnet_repro.data.conventions import IGNORE_INDEX
from pspnet_repro.data.images import MAX_PIXELS
from pspnet_repro.data.make_lists import write_labels
from pspnet_repro.data.pairs import Pair
from pspnet_repro.data.text import read_text
from pspnet_repro.errors import UserError, first_line
from pspnet_repro.words import counted

# COCO's names of VOC's classes 1 to 20.
NAMES = ("airplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
         "dining table", "dog", "horse", "motorcycle", "person", "potted plant", "sheep", "couch",
         "train", "tv")
MORE_PIXELS = 1000  # of the classes; images with fewer teach little, and are left out
YEARS = ("2017", "2014")
_WAY_ON = "unpack COCO's annotations there anew"
_WORDS = {list: "a list", str: "text", int: "a whole number"}


@dataclass(frozen=True)
class _Image:
    """An image of COCO and its annotations of VOC's classes."""

    path: Path
    height: int
    width: int
    annotations: list  # [(place in its file, class, segmentation)]


def make_coco(coco: Path, output: Path) -> None:
    """Write VOC 2012's labels of COCO's images, and their list, for --data voc2012=OUTPUT.

    Instances of COCO's other classes are background. A pixel that instances of different classes
    share is unlabelled. Images whose instances of VOC's classes have at most MORE_PIXELS pixels
    are left out. The paper does not say how its labels were made.

    Args:
        coco: folder of annotations/instances_train2017.json or ..._train2014.json, of the file of
            val, and of their images.
        output: folder; labels that an earlier call made there are not made again.
    Raises:
        UserError: a file is missing or damaged, or something is in a file's place.
    """
    images, dropped = [], 0
    for path, folder in _files(coco):
        read, few = _read(path, folder)
        images += read
        dropped += few
        print(f"{path}: {counted(len(read), 'image')} with more than {MORE_PIXELS} pixels of VOC's "
              "classes", flush=True)
    labels = {output / "SegmentationClassCoco" / f"{image.path.stem}.png": image
              for image in images}
    if len(labels) < len(images) or not labels:
        raise UserError(f"{coco}: must have images of different names, with more than "
                        f"{MORE_PIXELS} pixels of VOC's classes, got {len(labels)} of "
                        f"{len(images)}; {_WAY_ON}")
    pairs = [Pair(image.path, label) for label, image in labels.items()]
    write_labels(output, "Segmentation", {"coco": pairs}, labels, _label)
    print(f"{counted(len(pairs), 'image')} of coco, {dropped} others left out: pspnet train --data "
          f"{shlex.quote(f'voc2012={output}')} --split coco --output RUN")


def _files(coco):
    """(file of instances, folder of its images) of train and val, of one year."""
    for year in YEARS:
        paths = [coco / "annotations" / f"instances_{split}{year}.json" for split in
                 ("train", "val")]
        there = [path for path in paths if path.exists()]
        if there:
            return [(path, first_folder(coco, (path.stem[10:], f"images/{path.stem[10:]}"),
                                        "COCO images", f"unpack {path.stem[10:]}.zip there"))
                    for path in there]
    raise UserError(f"{coco}: no COCO data here: lacks annotations/instances_train2017.json and "
                    "annotations/instances_train2014.json; unpack COCO's annotations and images "
                    "there")


def _read(path, folder):
    """([_Image with enough pixels], number of other images) of a file of instances."""
    try:
        content = json.loads(read_text(path, "instances", "COCO's instances as JSON"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: must be JSON: {first_line(error)}; {_WAY_ON}") from error
    images = _by_id(path, content, "images")
    classes = {}
    for key, category in _by_id(path, content, "categories").items():
        name = _field(f"{path}, category {key}", category, "name", str)
        if name in NAMES:
            classes[key] = 1 + NAMES.index(name)
    missing = [name for k, name in enumerate(NAMES, 1) if k not in classes.values()]
    if missing:
        raise UserError(f"{path}: categories must hold {', '.join(NAMES)}, lacks "
                        f"{', '.join(missing)}; {_WAY_ON}")
    annotations, areas = defaultdict(list), defaultdict(float)
    for key, annotation in _by_id(path, content, "annotations").items():
        place = f"{path}, annotation {key}"
        image = _field(place, annotation, "image_id", int)
        if image not in images:
            raise UserError(f"{place}: image_id must be that of an image of the file, got {image}; "
                            f"{_WAY_ON}")
        label = classes.get(_field(place, annotation, "category_id", int))
        if label is not None:
            area = annotation.get("area")
            if type(area) not in (int, float) or not 0 <= area < MAX_PIXELS:
                raise _wrong(place, "area", "a number of pixels", area)
            areas[image] += area
            annotations[image].append((place, label, annotation.get("segmentation")))
    kept = [_image(f"{path}, image {key}", folder, image, annotations[key])
            for key, image in images.items() if areas[key] > MORE_PIXELS]
    return kept, len(images) - len(kept)


def _image(place, folder, record, annotations):
    name = _field(place, record, "file_name", str)
    if name != Path(name).name or not Path(name).stem:
        raise _wrong(place, "file_name", "a name without a folder", name)
    sides = [_field(place, record, side, int) for side in ("height", "width")]
    if min(sides) < 1 or sides[0] * sides[1] > MAX_PIXELS:
        raise _wrong(place, "height and width", f"1 to {MAX_PIXELS} pixels in all", sides)
    return _Image(folder / name, *sides, annotations)


def _by_id(path, content, key):
    """{id: record} of a list in a file's content."""
    records = _field(path, content, key, list)
    found = {_field(f"{path}, {key}, number {k}", record, "id", int): record
             for k, record in enumerate(records)}
    if len(found) < len(records):
        raise UserError(f"{path}, {key}: each id must occur once, got {len(found)} different ids "
                        f"of {len(records)}; {_WAY_ON}")
    return found


def _wrong(place, name, rule, value):
    return UserError(f"{place}: {name} must be {rule}, got {' '.join(str(value).split())[:60]!r}; "
                     f"{_WAY_ON}")


def _field(place, record, name, kind):
    """A field of a JSON object; UserError unless it is of the type `kind`."""
    if not isinstance(record, dict):
        raise UserError(f"{place}: must be an object with the field {name}, got "
                        f"{str(record)[:60]!r}; {_WAY_ON}")
    if type(record.get(name)) is not kind:
        raise _wrong(place, name, _WORDS[kind], record.get(name))
    return record[name]


def _label(image):
    """(H, W) uint8 of an _Image: VOC's classes, 255 where instances of several overlap."""
    label = np.zeros((image.height, image.width), np.uint8)
    for place, k, segmentation in image.annotations:
        mask = segmentation_mask(segmentation, *label.shape, place)
        label[mask] = np.where((label[mask] == 0) | (label[mask] == k), k, IGNORE_INDEX)
    return label


def segmentation_mask(segmentation: object, height: int, width: int, place: str) -> np.ndarray:
    """(H, W) bool of an annotation's `segmentation`.

    Args:
        segmentation: polygons, lists [x, y, x, y, ...] from the image's upper left corner, of
            which each covers the pixels whose centres it encloses; or run lengths {"size":
            [height, width], "counts": numbers or COCO's text of them}, column by column.
        height, width: of the image.
        place: of the annotation, for messages.
    Raises:
        UserError: neither, or not of this image.
    """
    if isinstance(segmentation, dict):
        return _runs_mask(segmentation, height, width, place)
    if not isinstance(segmentation, list) or not segmentation:
        raise _wrong(place, "segmentation", "polygons or run lengths", segmentation)
    mask = np.zeros((height, width), bool)
    for polygon in segmentation:
        if (not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2
                or not all(type(number) in (int, float) and abs(number) < 2 ** 31
                           for number in polygon)):
            raise _wrong(place, "a polygon", "at least three pairs of numbers", polygon)
        x, y = np.array(polygon, float).reshape(-1, 2).T
        # COCO's own reach a pixel beyond the border.
        if not all(-size <= numbers.min() and numbers.max() <= 2 * size
                   for numbers, size in ((x, width), (y, height))):
            raise _wrong(place, "a polygon", f"near its image of {height}x{width} pixels", polygon)
        mask |= _polygon_mask(x, y, height, width)
    return mask


def _polygon_mask(x, y, height, width):
    """Pixels whose centres an odd number of edges has on its left."""
    rows = np.arange(max(0, int(y.min())), min(height, int(np.ceil(y.max()))))
    next_x, next_y = np.roll(x, -1), np.roll(y, -1)
    centres = rows[:, None] + 0.5
    row, edge = np.nonzero((y <= centres) != (next_y <= centres))
    at = x[edge] + ((centres[row, 0] - y[edge]) * (next_x - x)[edge] / (next_y - y)[edge])
    turns = np.zeros((len(rows), width + 1), np.int32)
    np.add.at(turns, (row, np.clip(np.ceil(at - 0.5), 0, width).astype(int)), 1)
    mask = np.zeros((height, width), bool)
    mask[rows] = turns.cumsum(1)[:, :width] % 2
    return mask


def _runs_mask(runs, height, width, place):
    counts = runs.get("counts")
    if runs.get("size") != [height, width]:
        raise _wrong(place, "size", f"that of its image, [{height}, {width}]", runs.get("size"))
    counts = _counts(counts) if isinstance(counts, str) else counts
    if (not isinstance(counts, list) or not all(type(n) is int and n >= 0 for n in counts)
            or sum(counts) != height * width):
        raise _wrong(place, "counts", f"run lengths of {height * width} pixels", runs.get("counts"))
    values = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return values.reshape(width, height).T


def _counts(text):
    """The run lengths in COCO's text: five bits a letter, from the third on differences to the run
    before the last. None where it ends in the middle or has other letters."""
    counts, value, shift = [], 0, 0
    for letter in text:
        bits = ord(letter) - 48
        if not 0 <= bits < 64 or shift > 30:
            return None
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (bits & 16) << (shift - 4)
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    return None if shift else counts
