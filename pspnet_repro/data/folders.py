"""Images and labels of two folders, paired by their names."""

import os
from collections import Counter, defaultdict
from pathlib import Path

from pspnet_repro.data.pairs import Pair
from pspnet_repro.errors import UsageError, UserError
from pspnet_repro.words import counted

IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm")
LABELS = (".png", ".bmp", ".tif", ".tiff", ".pgm")
_SHOWN = 3  # names in a message
_TRIED = 32  # images that are compared with all labels to find what labels add to names
_LISTS = "write a list with a line IMAGE LABEL for each pair, and give it as --data LIST"


def pair_folders(images: Path | str, labels: Path | str, table: bytes | None = None) -> list[Pair]:
    """The Pairs of a folder of images and a folder of labels, in the order of the names.

    A label lies in the subfolder of its image and has its name but for the ending. Where no label
    does, all labels may add the same words before or after the image's name (x_L.png of x.png),
    also in place of words that all images share (x_gtFine_labelIds.png of x_leftImg8bit.png): of
    such rules the one counts that pairs the most images.

    Args:
        images, labels: folders; files and folders in them that begin with a dot are left out.
        table: of every Pair.
    Raises:
        UserError: no such folder, an image without label or a label without image, two files of
            one name, or several rules that pair as many images; UsageError: one folder for both.
    """
    images, labels = Path(images), Path(labels)
    for folder in (images, labels):
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder")
    if os.path.realpath(images) == os.path.realpath(labels):
        raise UsageError(f"--images and --labels must be two folders, got {images} for both; "
                         f"{_LISTS}")
    of_images = _by_place(images, IMAGES, labels, "images")
    of_labels = _by_place(labels, LABELS, images, "labels")
    matches = {place: place for place in of_images if place in of_labels}
    if not matches:
        matches = _matches_with_added_words(of_images, of_labels, labels)
    unlabelled = [of_images[place] for place in of_images if place not in matches]
    unused = [of_labels[place] for place in sorted(of_labels.keys() - set(matches.values()))]
    wrong = "; ".join(
        f"{counted(len(files), what)} without {other}: {', '.join(map(str, files[:_SHOWN]))}"
        f"{' ...' * (len(files) > _SHOWN)}"
        for files, what, other in ((unlabelled, "image", "a label"), (unused, "label", "an image"))
        if files)
    if wrong:
        raise UserError(f"{images} and {labels}: {wrong}; a label must have its image's name and "
                        "subfolder (a/x.png of a/x.jpg), or all labels the same addition to it "
                        f"(x_L.png of x.jpg): move the other files away, or {_LISTS}")
    return [Pair(of_images[place], of_labels[matches[place]], table) for place in of_images]


def _by_place(folder, endings, other, what):
    """{(subfolder, name without ending): path} of the files in a folder, sorted."""
    files, others = {}, set()
    for path in sorted(_files(folder, os.path.realpath(other))):
        if path.suffix.lower() not in endings:
            others.add(path.suffix.lower())
            continue
        place = (path.parent.relative_to(folder), path.stem)
        if place in files:
            raise UserError(f"{path} and {files[place].name}: two {what} of one name; move one of "
                            f"them away, or {_LISTS}")
        files[place] = path
    if not files:
        kinds = " ".join(sorted(others - {""})[:9])
        raise UserError(f"{folder}: holds no {what} ({' '.join(endings)})"
                        + f", but files {kinds}: save them as one of these" * bool(kinds))
    return files


def _files(folder, other):
    """Paths of the files in a folder and below it, but for those below the folder `other`."""
    def refuse(error):
        raise UserError(f"{error.filename}: cannot be read: {error.strerror}")

    seen = {other}
    for place, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        # Links can lead in circles.
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if name[0] != "."]
        yield from (Path(place, name) for name in names if name[0] != ".")


def _matches_with_added_words(of_images, of_labels, labels):
    """{place of an image: place of its label} by the best rule, see pair_folders."""
    best = {}
    others = []  # of as many images
    for cores in _cores(list(of_images)):
        for before, after in _additions(cores, of_labels):
            matches = {place: (place[0], before + core + after) for place, core in cores.items()
                       if (place[0], before + core + after) in of_labels}
            if len(matches) > len(best):
                best, others = matches, []
            elif matches and len(matches) == len(best) and matches != best:
                others.append(matches)
    if others:
        place = next(iter(best))
        names = sorted({of_labels[matches[place]].name for matches in (best, *others)
                        if place in matches})
        raise UserError(f"{labels}: several kinds of labels fit the images as well, such as "
                        f"{', '.join(names[:_SHOWN])} of {place[1]}: move all but one kind away, "
                        f"or {_LISTS}")
    return best


def _cores(places):
    """{place: name without what all names share}: with nothing taken off, then the end, the
    start, both. Only whole words are taken off."""
    names = [name for _, name in places]
    start = _whole_words(os.path.commonprefix(names), names)
    end = _whole_words(os.path.commonprefix([name[::-1] for name in names]),
                       [name[::-1] for name in names])
    for first, last in ((0, 0), (0, end), (start, 0), (start, end)):
        # Of short names start and end can meet.
        if all(first + last < len(name) for name in names):
            yield {(folder, name): name[first:len(name) - last] for folder, name in places}


def _whole_words(shared, names):
    """The largest length up to that of `shared` at which a word ends, and not yet a name."""
    return next(length for length in range(len(shared), -1, -1)
                if all(length < len(name) and _is_border(name, length) for name in names))


def _is_border(text, place):
    """Whether a word ends before text[place]: letters, digits and other characters are words."""
    if place in (0, len(text)):
        return True
    a, b = text[place - 1:place + 1]
    return not a.isalnum() or not b.isalnum() or a.isdigit() != b.isdigit()


def _additions(cores, of_labels):
    """What labels have before and after the names of some images, the commonest pairs first."""
    names = defaultdict(list)
    for folder, name in of_labels:
        names[folder].append(name)
    found = Counter()
    places = list(cores)
    for place in places[::-(-len(places) // _TRIED)]:
        core = cores[place]
        found.update({(name[:at], name[at + len(core):])
                      for name in names[place[0]] for at in {name.find(core), name.rfind(core)}
                      if at >= 0 and _is_border(name, at) and _is_border(name, at + len(core))})
    return [addition for addition, _ in sorted(found.items(), key=lambda item: (-item[1], item[0]))
            ][:_TRIED]
