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
    with CountsFile(tmp_path / "out", ABOUT, 3, 9) as record:
        assert record.done == {}
        for number in (4, 0):
            record.append(number, counts(number))
    with CountsFile(tmp_path / "out", ABOUT, 3, 9) as record:
        assert sorted(record.done) == [0, 4]
        for number in (0, 4):
            assert np.array_equal(record.done[number], counts(number))
            assert record.done[number].dtype == np.int64


def test_a_cut_line_is_dropped(tmp_path):
    path = tmp_path / "counts.jsonl"
    with CountsFile(tmp_path, ABOUT, 3, 9) as record:
        record.append(1, counts(1))
        record.append(2, counts(2))
    path.write_bytes(path.read_bytes()[:-5])
    with CountsFile(tmp_path, ABOUT, 3, 9) as record:
        assert list(record.done) == [1]
        record.append(2, counts(2))
    assert len(path.read_text().splitlines()) == 3


def test_files_of_other_processes_are_merged(tmp_path):
    head = json.dumps(ABOUT) + "\n"
    line = json.dumps({"image": 7, "cells": [0, 8], "counts": [5, 6]}) + "\n"
    (tmp_path / "counts-1.jsonl").write_text(head + line + line[:9])
    (tmp_path / "counts-2.jsonl").write_text(head)
    with CountsFile(tmp_path, ABOUT, 3, 9) as record:
        assert list(record.done) == [7]
        assert record.done[7].tolist() == [[5, 0, 0], [0, 0, 0], [0, 0, 6]]
    assert [p.name for p in tmp_path.glob("*.jsonl")] == ["counts.jsonl"]
    with CountsFile(tmp_path, ABOUT, 3, 9) as record:
        assert list(record.done) == [7]


def test_copies_that_somebody_made_are_left(tmp_path):
    with CountsFile(tmp_path, ABOUT, 3, 9) as record:
        record.append(1, counts(1))
    for name in ("counts-old.jsonl", "counts-1b.jsonl", "counts-.jsonl"):
        (tmp_path / name).write_bytes(record.path.read_bytes())
    with CountsFile(tmp_path, ABOUT, 3, 9):
        pass
    assert len(list(tmp_path.glob("*.jsonl"))) == 4


@pytest.mark.parametrize("text, words", [
    ("{}\n", "counts.jsonl: holds a test with protocol.scales = None, not"),
    (json.dumps(ABOUT | {"weights": "v"}) + "\n", "with weights = 'v', not 'w'; give the old"),
    ("[]\n", "counts.jsonl, line 1: not a record of a test"),
    (json.dumps(ABOUT) + "\n{}\n", "line 2: not a record of a test"),
    (json.dumps(ABOUT) + '\n{"image": 1, "cells": [9], "counts": [1]}\n', "line 2: not a record"),
    (json.dumps(ABOUT) + '\n{"image": 1, "cells": [1, 2, 3], "counts": [1, 2]}\n', "line 2"),
    (json.dumps(ABOUT) + "\n" + "[" * 100000 + "\n", "line 2: not a record of a test"),
])
def test_foreign_files_are_refused(tmp_path, text, words):
    (tmp_path / "counts.jsonl").write_text(text)
    with pytest.raises(UserError, match=words):
        CountsFile(tmp_path, ABOUT, 3, 9)
    assert (tmp_path / "counts.jsonl").read_text() == text


@pytest.mark.parametrize("change", [
    {"image": value} for value in (True, "1", 1.0, -1, 9, 10 ** 30, None, [1])] + [
    {"cells": value} for value in ([0, 0], [-1, 2], [0, 9], [0.0, 1], [True, 2], [0], "01", 3,
                                   [0, 10 ** 30], [[0], [1]])] + [
    {"counts": value} for value in ([0, 1], [-1, 1], [1, 2 ** 53], [1, 10 ** 30], [1.5, 1],
                                    [True, 1], [1], 2, {"0": 1, "1": 1})])
def test_lines_that_no_test_wrote_are_refused(tmp_path, change):
    lines = [json.dumps(ABOUT)]
    for content in ({"image": 0, "cells": [], "counts": []},
                    {"image": 8, "cells": [0, 8], "counts": [1, 2 ** 53 - 1]}):
        lines.append(json.dumps(content))
    path = tmp_path / "counts.jsonl"
    path.write_text("\n".join(lines) + "\n")
    with CountsFile(tmp_path, ABOUT, 3, 9) as record:
        assert sorted(record.done) == [0, 8]
    path.write_text("\n".join([*lines, json.dumps({**content, **change})]) + "\n")
    with pytest.raises(UserError, match=f"counts.jsonl, line 4: not a record of a test: "
                                        f"({next(iter(change))}|cells) must"):
        CountsFile(tmp_path, ABOUT, 3, 9)


@pytest.mark.parametrize("done, result, said", [
    (2, False, "; give the old value to resume it, or choose another --output$"),
    (9, False, "; it is finished: choose another --output$"),
    (2, True, "; it is finished: choose another --output$")])
def test_another_test_can_be_resumed_until_it_is_finished(tmp_path, done, result, said):
    with CountsFile(tmp_path, ABOUT, 3, 9) as record:
        for number in range(done):
            record.append(number, counts(number))
    if result:
        (tmp_path / "result.json").write_text("{}")
    with pytest.raises(UserError, match=f"with weights = 'w', not 'v'{said}"):
        CountsFile(tmp_path, ABOUT | {"weights": "v"}, 3, 9)


def test_a_folder_is_used_once_at_a_time(tmp_path):
    with CountsFile(tmp_path, ABOUT, 3, 9):
        with pytest.raises(UserError, match="another process is at work in this folder"):
            CountsFile(tmp_path, ABOUT, 3, 9)
    with CountsFile(tmp_path, ABOUT, 3, 9):
        pass


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "out").write_text("no folder")
    with pytest.raises(UserError, match="counts.jsonl: cannot be used"):
        CountsFile(tmp_path / "out", ABOUT, 3, 9)
