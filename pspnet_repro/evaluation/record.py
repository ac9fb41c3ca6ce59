"""Files of every image's counts, so that an interrupted test goes on where it stopped."""

import contextlib
import json
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from pspnet_repro.differences import difference
from pspnet_repro.distributed import ALONE, Processes
from pspnet_repro.errors import UserError, first_line
from pspnet_repro.files import json_lines, lock_folder, refuse_pipe, sync, write_bytes
from pspnet_repro.outputs import Outputs

RESULT = "result.json"  # what a finished test writes beside its counts
_MERGED = "counts.jsonl"
_OTHERS = re.compile(r"counts-\d+\.jsonl")


def claim_results(outputs: Outputs, folder: Path, paths: Iterable[Path],
                  inputs: Iterable[Path]) -> None:
    """Claim what a test will write beside its counts, see Outputs.claim.

    The list of the folder's files is made before counts.jsonl is: a test that has none is of an
    earlier version, and so are its results.
    """
    if _holds_test(folder / _MERGED):
        outputs.adopt(paths)
    outputs.claim(paths, inputs)
    outputs.adopt(paths)


def _holds_test(path):
    refuse_pipe(path)
    try:
        with open(path, "rb") as file:
            return "weights_sha256" in json.loads(file.readline(2 ** 20))
    except (OSError, ValueError, TypeError, RecursionError):
        return False  # CountsFile says why


class CountsFile(contextlib.AbstractContextManager):
    """Counts of (label, prediction) pairs, one line an image, appended as images are done.

    The first line says what the counts depend on; a file that says something else is refused, but
    for the agreement with float32, which is measured anew at every start. A last line that was
    cut off is dropped. Each process appends to a file of its own; the next start merges them into
    counts.jsonl, whatever its number of processes. A context manager: leaving it closes the file.

    Args:
        folder: of the files, made where it is missing; processes on several machines must all
            see it.
        about: plain data: weights, data and settings.
        classes, images: how many, the latter in the list.
        processes: that test together; all of them call this.
        agreement: what precision.agreement measured.
    Attributes:
        done: {number in the list: (classes, classes) int64} when this was made.
    Raises:
        UserError: the files belong to another test, are damaged or cannot be written, or other
            processes are at work in the folder.
    """

    def __init__(self, folder: Path, about: dict, classes: int, images: int,
                 processes: Processes = ALONE, agreement: dict | None = None):
        self.classes = classes
        self._images = images
        self._about = json.loads(json.dumps(about))
        self._head = json.dumps({**about, "agreement": agreement}) + "\n"
        self._lock = None
        merged = folder / _MERGED
        self.path = merged if processes.first else folder / f"counts-{processes.rank}.jsonl"
        try:
            processes.on_first(lambda: self._merge(folder))
            self.done = dict(self._entries(merged, processes.share_file(merged)))
            if not processes.first:
                write_bytes(self.path, self._head)
            refuse_pipe(self.path, "written")
            self._file = open(self.path, "ab")
        except OSError as error:
            raise UserError(f"{self.path}: cannot be used: {first_line(error)}") from error

    def _merge(self, folder):
        """Bring the images of all files of the folder into one."""
        self._lock = lock_folder(folder)
        merged, *others = _files(folder)
        done = {}
        for path in [merged, *others] if merged.exists() else others:
            refuse_pipe(path)
            done |= self._entries(path, path.read_bytes())
        lines = (_line(k, counts) + "\n" for k, counts in done.items())
        write_bytes(merged, self._head + "".join(lines))
        for path in others:
            path.unlink()

    def _entries(self, path, data):
        """{number: counts} of a file of this test."""
        return _parse(path, data, self.classes, self._images,
                      lambda head: self._compare(path, head, data.count(b"\n") - 1))

    def _compare(self, path, saved, images):
        """Raise UserError where a file with counts of so many images is of another test."""
        found = difference(self._about, {key: value for key, value in saved.items()
                                         if key != "agreement"})
        if found:
            finished = images >= self._images or (path.parent / RESULT).exists()
            raise UserError(f"{path}: holds a test with {found}; "
                            + ("it is finished: choose another --output" if finished else
                               "give the old value to resume it, or choose another --output"))

    def append(self, number: int, counts: np.ndarray) -> None:
        """Note the counts, (classes, classes) int64, of image `number` of the list."""
        try:
            self._file.write(_line(number, counts).encode() + b"\n")
            sync(self._file)
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written: {first_line(error)}") from error

    def __exit__(self, *_):
        self._file.close()
        if self._lock is not None:
            self._lock.close()


def _files(folder):
    """The file that a start merges into, and those of the other processes."""
    return [folder / _MERGED, *sorted(path for path in folder.glob("counts-*.jsonl")
                                      if _OTHERS.fullmatch(path.name))]


def _line(number, counts):
    """The counts of one image as JSON, zeros left out."""
    cells = np.flatnonzero(counts)
    return json.dumps({"image": number, "cells": cells.tolist(),
                       "counts": counts.flat[cells].tolist()})


def _parse(path, data, classes, images, compare):
    """{number: counts} of a file's whole lines, the first of which `compare` takes."""
    entries = {}
    for number, (_, content) in enumerate(json_lines(data), 1):
        try:
            if content is None:
                raise ValueError("must hold a dictionary")
            if number == 1:
                compare(content)
            else:
                entries[_image(content, images)] = _dense(content, classes)
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            raise UserError(f"{path}, line {number}: not a record of a test: "
                            f"{first_line(error)}") from error
    return entries


def _image(content, images):
    number = content["image"]
    if type(number) is not int or not 0 <= number < images:
        raise ValueError(f"image must be a whole number from 0 to {images - 1}, got "
                         f"{str(number)[:40]}")
    return number


def _dense(content, classes):
    cells, values = content["cells"], content["counts"]
    for name, numbers, low, high in (("cells", cells, 0, classes ** 2 - 1),
                                     ("counts", values, 1, 2 ** 53 - 1)):
        if type(numbers) is not list or not all(type(n) is int and low <= n <= high
                                                for n in numbers):
            raise ValueError(f"{name} must be a list of whole numbers from {low} to {high}")
    if len(cells) != len(values) or len(set(cells)) != len(cells):
        raise ValueError("cells must name each cell once, with as many counts")
    counts = np.zeros(classes ** 2, np.int64)
    counts[cells] = values
    return counts.reshape(classes, classes)


def read_counts(folder: Path, classes: int) -> list[np.ndarray]:
    """The counts of a finished test, of the files of all processes that tested together: (classes,
    classes) int64 for each image, in the list's order.

    Raises UserError where a file cannot be read or is damaged, or they lack an image.
    """
    entries = {}
    for path in _files(folder):
        refuse_pipe(path)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {first_line(error)}") from error
        entries |= _parse(path, data, classes, 2 ** 31, lambda head: None)
    if not entries or len(entries) != max(entries) + 1:
        raise UserError(f"{folder / _MERGED}: must hold every image of a test")
    return [entries[number] for number in range(len(entries))]
