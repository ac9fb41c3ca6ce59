"""A file of every image's counts, so that an interrupted test goes on where it stopped."""

import json
import os

import numpy as np

from pspnet_repro import checkpoint
from pspnet_repro.errors import UserError, first_line


class CountsFile:
    """Counts of (label, prediction) pairs, one line an image, appended as images are done.

    A context manager: leaving it closes the file.

    The first line says what the counts depend on; a file that says something else is refused. A
    last line that was cut off is dropped.

    Args:
        path: the file, made where it is missing.
        about: plain data: weights, data and settings.
        classes: number of classes.
    Raises:
        UserError: the file belongs to another test, is damaged or cannot be written, or another
            process is at work in its folder.
    """

    def __init__(self, path, about, classes):
        self.path = path
        self.classes = classes
        self.done = {}
        about = json.loads(json.dumps(about))
        try:
            self._lock = checkpoint.lock_folder(path.parent)
            kept = self._read(about) if path.exists() else []
            text = "".join(line + "\n" for line in kept or [json.dumps(about)])
            checkpoint.write_bytes(path, text)
            self._file = open(path, "ab")
        except OSError as error:
            raise UserError(f"{path}: cannot be used: {first_line(error)}") from error

    def _read(self, about):
        """The whole lines of the file, their counts entered."""
        data = self.path.read_bytes()
        lines = data[:data.rfind(b"\n") + 1].decode("utf-8", errors="replace").splitlines()
        for number, line in enumerate(lines, 1):
            try:
                content = json.loads(line)
                if number == 1:
                    self._compare(content, about)
                else:
                    self.done[int(content["image"])] = self._dense(content)
            except (ValueError, TypeError, LookupError, AttributeError) as error:
                raise UserError(f"{self.path}, line {number}: not a record of a test: "
                                f"{first_line(error)}") from error
        return lines

    def _compare(self, saved, about):
        for key in sorted({*saved, *about}):
            if saved.get(key) != about.get(key):
                raise UserError(f"{self.path}: holds a test with {key} = {saved.get(key)!r}, not "
                                f"{about.get(key)!r}; choose another folder or remove this file")

    def _dense(self, content):
        counts = np.zeros(self.classes ** 2, np.int64)
        counts[content["cells"]] = content["counts"]
        return counts.reshape(self.classes, self.classes)

    def append(self, number, counts):
        """Note the counts, (classes, classes) int64, of image `number` of the list."""
        cells = np.flatnonzero(counts)
        line = {"image": number, "cells": cells.tolist(), "counts": counts.flat[cells].tolist()}
        try:
            self._file.write(json.dumps(line).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written: {first_line(error)}") from error
        self.done[number] = counts

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()
        self._lock.close()
