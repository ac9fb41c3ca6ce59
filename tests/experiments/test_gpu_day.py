"""make gpu: every part runs in miniature on the CPU, and no part stops another."""

import json

import pytest

from experiments.bench.gpu import __main__ as day
from experiments.bench.gpu import pytests, sanitizers


@pytest.mark.slow
def test_rehearsal_runs_every_part(tmp_path):
    code = day.main(["--device", "cpu", "--output", str(tmp_path), "--minutes", "30"])
    report = json.loads((tmp_path / "report.json").read_text())
    words = {e["name"]: (e["status"], e.get("last_words")) for e in report["parts"]}
    assert words == dict.fromkeys([part.name for part in day.PARTS], ("done", None)) and code == 0
    assert all(entry["rows"] for entry in report["parts"])
    text = (tmp_path / "report.md").read_text()
    assert "its figures say nothing about a GPU" in text
    assert all(f"## {part.title}\n\n| " in text for part in day.PARTS)


def test_a_part_that_fails_or_hangs_does_not_stop_the_others(tmp_path, monkeypatch):
    parts = (day.Part("missing", "A module that is not there", 60),
             day.Part("mini", "A part without time", 0.05),
             day.Part("build", "Build", 60))
    monkeypatch.setattr(day, "PARTS", parts)
    monkeypatch.setattr(day, "LEAST_SECONDS", 0)
    assert day.main(["--device", "cpu", "--output", str(tmp_path)]) == 1
    missing, hung, built = json.loads((tmp_path / "report.json").read_text())["parts"]
    assert missing["status"] == "failed with exit code 1" and not missing["rows"]
    assert "No module named" in missing["last_words"]
    assert hung["status"] == "stopped after 0 s"
    assert built["status"] == "done" and built["rows"][0]["what"].startswith("make build")
    text = (tmp_path / "report.md").read_text()
    assert "| A part without time | stopped after 0 s |" in text and "No module named" in text


def test_parts_without_time_are_not_started(tmp_path):
    day.main(["--device", "cpu", "--output", str(tmp_path), "--minutes", "0", "--only", "build"])
    part, = json.loads((tmp_path / "report.json").read_text())["parts"]
    assert part["status"] == "not started: no time left"


def test_an_earlier_report_is_kept(tmp_path, monkeypatch, capsys):
    (tmp_path / "gpu-card").mkdir()
    (tmp_path / "gpu-card" / "report.json").write_text("{}")
    monkeypatch.setattr(day, "RESULTS", tmp_path)
    monkeypatch.setattr(day, "card_name", lambda: "card")
    assert day.free_folder("cuda") == tmp_path / "gpu-card-2"
    assert day.main(["--device", "cpu", "--output", str(tmp_path / "gpu-card")]) == 2
    assert "--output must be a folder without a report" in capsys.readouterr().err
    assert (tmp_path / "gpu-card" / "report.json").read_text() == "{}"


def test_table_has_a_column_for_every_key():
    assert day.table([{"a": 1.23456, "b": None}, {"c": "x|y"}]) == (
        "| a | b | c |\n|---|---|---|\n| 1.235 |  |  |\n|  |  | x/y |")


def test_ids_of_tests_may_hold_spaces():
    ids = pytests.ids_in("tests/ops/test_a.py::test_b[card-(2, 8)-torch.float32]\n"
                         "SKIPPED [1] tests/ops/test_a.py:3: no reason::here\n\n1 test collected\n")
    assert ids == ["tests/ops/test_a.py::test_b[card-(2, 8)-torch.float32]"]


def test_sanitizers_take_one_test_of_each_function_and_memory_format():
    ids = [f"t.py::test_pool[card-{shape}-torch.{dtype}-torch.{memory_format}]"
           for shape in ("(1, 2)", "(3, 4)") for dtype in ("float64", "float32", "bfloat16")
           for memory_format in ("contiguous_format", "channels_last")]
    assert sanitizers.one_each([*ids, "t.py::test_scores[card]"]) == [
        "t.py::test_pool[card-(1, 2)-torch.float32-torch.contiguous_format]",
        "t.py::test_pool[card-(1, 2)-torch.float32-torch.channels_last]",
        "t.py::test_scores[card]"]
