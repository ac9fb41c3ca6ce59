"""The commands that take --precision."""

import json

import pytest
from helpers.commands import SIZES, run
from helpers.precision import switches


@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_tf32_is_refused_on_cpus(photos, weights, tmp_path, capfd, command):
    words = {"evaluate": ["--data", photos], "predict": [photos / "0.png"]}[command]
    code, _, error = run(capfd, command, "--weights", weights, *words, "--precision", "tf32",
                         "--output", tmp_path / "out", *SIZES)
    assert code == 2 and "--precision tf32 needs --device cuda" in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("switch", [(), ("--no-fusion",)], ids=["fused", "unfused"])
def test_evaluate_in_bfloat16_measures_its_cost(photos, weights, tmp_path, capfd, switch):
    out = tmp_path / "out"
    command = ("evaluate", "--weights", weights, "--data", photos, *SIZES, "--output", out)
    before = switches()
    code, said, error = run(capfd, *command, "--precision", "bfloat16", *switch)
    assert code == 0, error
    assert "bfloat16 against float32 on the first image: same class on " in said
    figures = json.loads((out / "result.json").read_text())
    assert figures["precision"] == "bfloat16" and figures["fused"] == (not switch)
    measured = figures["agreement"]
    assert 0.9 < measured["same_argmax"] <= 1 and 1e-4 < measured["largest_error"] < 0.1
    lines = (out / "counts.jsonl").read_text().splitlines()
    assert json.loads(lines[0])["agreement"] == measured

    other = () if switch else ("--no-fusion",)
    for words, sentence in (((*switch,), "holds a test with precision = 'bfloat16', not 'float32'"),
                            (("--precision", "bfloat16", *other), f"with fused = {not switch}")):
        code, _, error = run(capfd, *command, *words)
        assert code == 1 and sentence in error
    # What a machine measured may differ from another's: no reason to start again.
    head = json.loads(lines[0]) | {"agreement": {"same_argmax": 0.5}}
    (out / "counts.jsonl").write_text("\n".join([json.dumps(head), *lines[1:4]]) + "\n")
    assert run(capfd, *command, "--precision", "bfloat16", *switch)[0] == 0
    assert (out / "counts.jsonl").read_text().splitlines() == lines
    assert switches() == before


def test_predict_in_bfloat16_measures_on_what_can_be_read(photos, weights, tmp_path, capfd):
    (photos / "a.png").write_bytes(b"no image")
    words = ("predict", "--weights", weights, photos / "a.png", photos / "1.png", "-o",
             tmp_path / "out", *SIZES)
    code, said, _ = run(capfd, *words, "--precision", "bfloat16")
    assert code == 1 and "bfloat16 against float32 on the first image" in said
    assert (tmp_path / "out" / "1.label.png").exists()
    assert "against float32" not in run(capfd, *words)[1]
