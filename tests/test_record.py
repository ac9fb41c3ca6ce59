"""Counts of images in files: what an interrupted test keeps."""

import json

import numpy as np
import pytest

from pspnet_repro.errors import UserError
from pspnet_repro.evaluation.record import CountsFile

ABOUT = {"weights": "w", "protocol": {"scales": (1.0, 1.5)}}


def counts(seed):
    """A sparse table of two classes; large numbers must survive."""
    table = np.random.default_rng(seed).integers(0, 2, (3, 3)) * (2 ** 40 + seed)
    return table.astype(np.int64)


def test_counts_come_back(tmp_path):
    with CountsFile(tmp_path / "out", ABOUT, 3) as record:
        assert record.done == {}
        for number in (4, 0):
            record.append(number, counts(number))
    with CountsFile(tmp_path / "out", ABOUT, 3) as record:
        assert sorted(record.done) == [0, 4]
        for number in (0, 4):
            assert np.array_equal(record.done[number], counts(number))
            assert record.done[number].dtype == np.int64


def test_a_cut_line_is_dropped(tmp_path):
    path = tmp_path / "counts.jsonl"
    with CountsFile(tmp_path, ABOUT, 3) as record:
        record.append(1, counts(1))
        record.append(2, counts(2))
    path.write_bytes(path.read_bytes()[:-5])
    with CountsFile(tmp_path, ABOUT, 3) as record:
        assert list(record.done) == [1]
        record.append(2, counts(2))
    assert len(path.read_text().splitlines()) == 3


def test_files_of_other_processes_are_merged(tmp_path):
    head = json.dumps(ABOUT) + "\n"
    line = json.dumps({"image": 7, "cells": [0, 8], "counts": [5, 6]}) + "\n"
    (tmp_path / "counts-1.jsonl").write_text(head + line + line[:9])
    (tmp_path / "counts-2.jsonl").write_text(head)
    with CountsFile(tmp_path, ABOUT, 3) as record:
        assert list(record.done) == [7]
        assert record.done[7].tolist() == [[5, 0, 0], [0, 0, 0], [0, 0, 6]]
    assert [p.name for p in tmp_path.glob("*.jsonl")] == ["counts.jsonl"]
    with CountsFile(tmp_path, ABOUT, 3) as record:
        assert list(record.done) == [7]


@pytest.mark.parametrize("text, words", [
    ("{}\n", "counts.jsonl: holds a test with protocol = None, not"),
    (json.dumps(ABOUT | {"weights": "v"}) + "\n", "with weights = 'v', not 'w'; choose another"),
    ("[]\n", "counts.jsonl, line 1: not a record of a test"),
    (json.dumps(ABOUT) + "\n{}\n", "line 2: not a record of a test"),
    (json.dumps(ABOUT) + '\n{"image": 1, "cells": [9], "counts": [1]}\n', "line 2: not a record"),
    (json.dumps(ABOUT) + '\n{"image": 1, "cells": [1, 2, 3], "counts": [1, 2]}\n', "line 2"),
])
def test_foreign_files_are_refused(tmp_path, text, words):
    (tmp_path / "counts.jsonl").write_text(text)
    with pytest.raises(UserError, match=words):
        CountsFile(tmp_path, ABOUT, 3)
    assert (tmp_path / "counts.jsonl").read_text() == text


def test_a_folder_is_used_once_at_a_time(tmp_path):
    with CountsFile(tmp_path, ABOUT, 3):
        with pytest.raises(UserError, match="another process is at work in this folder"):
            CountsFile(tmp_path, ABOUT, 3)
    with CountsFile(tmp_path, ABOUT, 3):
        pass


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "out").write_text("no folder")
    with pytest.raises(UserError, match="counts.jsonl: cannot be used"):
        CountsFile(tmp_path / "out", ABOUT, 3)
