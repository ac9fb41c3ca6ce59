"""A data set on disk, as a command line names it."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pspnet_repro.data.benchmarks import LAYOUTS, Layout, Recipe
from pspnet_repro.data.classes import Classes, known_classes, read_classes
from pspnet_repro.data.folders import pair_folders
from pspnet_repro.data.label_map import LabelMap, read_label_map
from pspnet_repro.data.labels import IDENTITY, ZERO_IS_VOID
from pspnet_repro.data.pairs import Pair, read_list
from pspnet_repro.errors import UsageError, UserError
from pspnet_repro.files import file_sha256


@dataclass(frozen=True)
class DataSet:
    """A data set on disk."""

    name: str  # for people and for names of folders
    root: Path  # folder that everything lies in
    layout: Layout | None = None  # None for list files `<split>.txt`, `list` and two folders
    list: Path | None = None  # the list file that was given in place of a folder
    table: bytes | None = None  # what values of list files' labels mean, see Pair
    lists: Path | None = None  # folder of the list files and of classes.txt; None: root
    # Folder of labels, whose images are in root: files are paired by name, see data.folders.
    labels: Path | None = None
    label_map: LabelMap | None = None  # what the user says of label values

    @property
    def one_split(self) -> bool:
        """Whether the data are one split alone, whatever its name: a list file, two folders."""
        return self.list is not None or self.labels is not None

    def check_classes(self, classes: int) -> None:
        """Raise UserError where the label map names a class that is not below their number."""
        if self.label_map is not None:
            self.label_map.check_classes(classes)

    def _list(self, split):
        return self.list or (self.lists or self.root) / f"{split}.txt"

    def has_list(self, split: str) -> bool:
        """Whether the list file of a split is there; True where the data are none of lists."""
        return self.layout is not None or self.labels is not None or self._list(split).exists()

    def splits_there(self) -> str:
        """Names of the lists in the folder, "train, val"; "" where it holds none."""
        return ", ".join(sorted(path.stem for path in (self.lists or self.root).glob("*.txt")
                                if path.name != "classes.txt"))

    def pairs(self, split: str, bad_lines: "list[UserError] | None" = None) -> "list[Pair]":
        """The Pairs of "train", "val", "test" or another split; `bad_lines`: see read_list. Raises
        UserError where there are no such files."""
        pairs = self._pairs(split, bad_lines)
        if self.label_map is None or not pairs:
            return pairs
        if self.label_map.colours is not None:
            return [replace(pair, table=None, colours=self.label_map.colours) for pair in pairs]
        known = IDENTITY if self.layout is not None else None
        table = self.label_map.over(pairs[0].table or known)
        return [replace(pair, table=table) for pair in pairs]

    def _pairs(self, split, bad_lines):
        if self.labels is not None:
            return pair_folders(self.root, self.labels, self.table)
        if self.layout is None:
            others = "" if self.list is not None or self.has_list(split) else self.splits_there()
            if others:
                raise UserError(f"{self._list(split)}: no such list file; the splits in this "
                                f"folder are {others}")
            return read_list(self._list(split), self.root, unlabelled=True, table=self.table,
                             bad_lines=bad_lines)
        if split not in self.layout.splits:
            raise UsageError(f"{self.name} has the splits {', '.join(self.layout.splits)}, not "
                             f"{split!r}")
        pairs = self.layout.pairs(self.root, split)
        # A benchmark's lists lie where its files do.
        return pairs if pairs[0].root is None else [replace(pair, root=None) for pair in pairs]

    def digest(self, split: str) -> str:
        """SHA-256 in hexadecimal of the list file, or of the names of images and labels; with a
        label map, of that and of the map."""
        if self.layout is None and self.labels is None:
            digest = file_sha256(self._list(split))
        else:
            labels = self.labels or self.root
            names = "".join(f"{pair.image.relative_to(self.root)} "
                            f"{pair.label and pair.label.relative_to(labels)}\n"
                            for pair in self.pairs(split))
            digest = hashlib.sha256(os.fsencode(names)).hexdigest()
        if self.label_map is None:
            return digest
        return hashlib.sha256(f"{digest} {self.label_map.digest()}".encode()).hexdigest()

    def classes(self) -> Classes | None:
        """Classes of the benchmark, or those of classes.txt beside the lists or in the folder of
        images or beside it; None without one."""
        if self.layout is not None:
            return known_classes(self.name)
        folders = ([self.root, self.root.resolve().parent] if self.labels is not None
                   else [self.lists or self.root])
        paths = [folder / "classes.txt" for folder in folders]
        return next((read_classes(path) for path in paths if path.exists()), None)

    def submission(self, pair: Pair, split: str) -> Path:
        """Path of a prediction in the benchmark's form, relative to the predictions' folder."""
        if self.layout is not None:
            return Path(self.layout.submission(pair, split))
        path = pair.image
        inside = path.relative_to(self.root) if path.is_relative_to(self.root) else Path(path.name)
        # A folder above the list's must not meet one of the same name below it.
        parts = ["%parent" if part == ".." else part for part in inside.parts]
        return Path(*parts).with_suffix(".png")

    @property
    def recipe(self) -> Recipe:
        """The Recipe of the benchmark, or ADE20K's."""
        return Recipe() if self.layout is None else self.layout.recipe

    @property
    def written(self) -> bytes:
        """What a class becomes in a prediction, 256 bytes."""
        return IDENTITY if self.layout is None else self.layout.written


def open_data(text: str, zero_is_void: bool = False, data_root: Path | None = None,
              label_map: Path | None = None, ignore: Sequence[int] = ()) -> DataSet:
    """The DataSet that a command line names.

    Args:
        text: NAME=DIR with NAME of LAYOUTS; or a folder with train.txt, val.txt and so on; or a
            list file. Beside lists classes.txt may give names and colours, see read_classes.
        zero_is_void: labels of list files are 0 = void, k + 1 = class k; benchmarks know it
            themselves.
        data_root: folder that the paths in lists start from; None: the lists' own.
        label_map: file that says what label values mean, see read_label_map.
        ignore: label values that are unlabelled.
    Raises:
        UsageError: an unknown NAME, or what a known one needs no other words for.
        UserError: no such folder or file.
    """
    name, equals, folder = text.partition("=")
    table = ZERO_IS_VOID if zero_is_void else None
    path = Path(text)
    if equals and name in LAYOUTS:
        if not folder:
            raise UsageError(f"{text}: must name the folder of the data, {name}=DIR")
        if zero_is_void:
            raise UsageError(f"--zero-is-void is for list files: what labels mean in {name} is "
                             f"known")
        if data_root is not None:
            raise UsageError(f"--data-root is for list files: of {name} give its folder, "
                             f"--data {name}=DIR")
        data = DataSet(name, Path(folder), LAYOUTS[name])
    elif equals and not path.exists():
        raise UsageError(f"--data: {name!r} is no benchmark; choose {', '.join(LAYOUTS)}, or give "
                         f"a folder with lists, or --images and --labels")
    elif path.is_file() or path.suffix == ".txt" and not path.exists():
        data = DataSet(path.stem, data_root or path.parent, None, path, table, path.parent)
    else:
        data = DataSet(path.resolve().name, data_root or path, None, None, table, path)
    for root in (data.lists or data.root, data.root):
        if not root.is_dir():
            raise UserError(f"{root}: no such data folder")
    return _with_label_map(data, label_map, ignore)


def open_folders(images: Path, labels: Path, zero_is_void: bool = False,
                 label_map: Path | None = None, ignore: Sequence[int] = ()) -> DataSet:
    """The DataSet of a folder of images and one of labels, paired by name, see data.folders. Other
    arguments and errors as open_data."""
    return _with_label_map(
        DataSet(images.resolve().name, images, table=ZERO_IS_VOID if zero_is_void else None,
                labels=labels), label_map, ignore)


def _with_label_map(data, path, ignored):
    if path is None and not ignored:
        return data
    label_map = read_label_map(path, ignored)
    colours = label_map.colours is not None
    if colours and ignored:
        raise UsageError("--ignore is for label values: write RED GREEN BLUE ignore into the label "
                         f"map {path}")
    if colours and data.table is not None:
        raise UsageError(f"--zero-is-void is for label values, and {path} is a map of colours: "
                         "give one of them")
    if data.name == "camvid-official" and data.layout is not None:
        raise UsageError("what the colours of camvid-official mean is known: for others give its "
                         "folders as --images and --labels")
    return replace(data, label_map=label_map)
