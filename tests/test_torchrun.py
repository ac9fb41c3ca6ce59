"""Commands under torchrun: stopped, killed, resumed, refused."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.commands import SMALL
from helpers.paths import ROOT
from helpers.trainings import read_losses, wait_for_steps

from experiments.rows import BASELINE
from pspnet_repro.data import scenes
from pspnet_repro.weights import plain_file

pytestmark = [pytest.mark.dist, pytest.mark.slow]
LIMIT_SECONDS = 120
STEPS = 50
NET = ("--classes", 4, *SMALL, "--bins", "1,2", "--crop-size", 57, "--threads", 1)


def _torchrun(*words, where=("--standalone", "--nproc-per-node", 2)):
    """Start two processes of a program, in a session of their own as a terminal gives."""
    command = [sys.executable, "-m", "torch.distributed.run", *where, *words]
    return subprocess.Popen(list(map(str, command)), cwd=ROOT, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, start_new_session=True)


def _start(data, output, *words, **how):
    return _torchrun("-m", "pspnet_repro", "train", "--data", data, "--output", output, *NET,
                     "--batch-size", 4, "--max-iter", STEPS, *words, **how)


def _start_on_two_machines(data, output):
    """Two torchruns that meet as on two machines, with a process each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{free.getsockname()[1]}"
    where = ("--nnodes", 2, "--nproc-per-node", 1, "--rdzv-backend", "c10d", "--rdzv-endpoint",
             place, "--rdzv-id", "test", "--local-addr", "127.0.0.1")
    return [_start(data, output, "--timeout", 20, where=where) for _ in range(2)]


def _finish(process):
    """(exit code, output, errors); a process that hangs is killed and fails the test."""
    try:
        out, said = process.communicate(timeout=LIMIT_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return process.returncode, out, said


def _children(process):
    text = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return [int(pid) for pid in text.split()]


def _workers(process):
    """Process ids of torchrun's two children, by rank."""
    ranks = {}
    for child in _children(process):
        variables = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        rank = [v.partition(b"=")[2] for v in variables if v.startswith(b"RANK=")]
        if rank:
            ranks[int(rank[0])] = child
    return [ranks[0], ranks[1]]


def _gone(pid):
    """Whether a process has ended, or only waits to be noticed."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def _error_lines(said):
    return [line for line in said.splitlines() if line.startswith("error: ")]


@pytest.fixture(scope="module")
def uninterrupted(squares, tmp_path_factory):
    output = tmp_path_factory.mktemp("whole") / "run"
    code, out, said = _finish(_start(squares, output))
    assert code == 0, said
    assert out.strip() == str(output / "weights.pt")
    return output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=lambda n: n.name)
def test_a_stopped_training_resumes_to_the_same_bits(squares, uninterrupted, tmp_path, number):
    """After Ctrl-C, and after the first process was killed."""
    output = tmp_path / "run"
    process = _start(squares, output, "--workers", 1)
    wait_for_steps(process, output, 5)
    workers = _workers(process)
    os.kill(process.pid if number == signal.SIGINT else workers[0], number)
    code, _, said = _finish(process)
    assert code != 0 and all(map(_gone, workers))
    assert not (output / "weights.pt").exists()
    if number == signal.SIGKILL:
        assert any("another process ended" in line for line in _error_lines(said)), said
    else:
        assert said.count("the same command resumes") == 1, said
        state = plain_file.load(output / "checkpoint.pt")
        assert state["processes"] == 2 and 5 <= state["iteration"] < STEPS

    code, _, said = _finish(_start(squares, output))
    assert code == 0, said
    ours, wanted = (plain_file.load(folder / "weights.pt") for folder in (output, uninterrupted))
    for name, tensor in wanted["weights"].items():
        assert torch.equal(ours["weights"][name], tensor), name
    assert read_losses(output) == read_losses(uninterrupted)


def test_two_machines_train_as_one(squares, uninterrupted, tmp_path):
    runs = [_finish(process) for process in _start_on_two_machines(squares, tmp_path / "run")]
    assert [code for code, _, _ in runs] == [0, 0], runs
    ours, wanted = (plain_file.load(folder / "weights.pt")["weights"]
                    for folder in (tmp_path / "run", uninterrupted))
    assert all(torch.equal(ours[name], tensor) for name, tensor in wanted.items())
    assert read_losses(tmp_path / "run") == read_losses(uninterrupted)


def test_a_lost_machine_ends_the_other(squares, tmp_path):
    processes = _start_on_two_machines(squares, tmp_path / "run")
    wait_for_steps(processes[0], tmp_path / "run", 3)
    for pid in (processes[1].pid, *_children(processes[1])):
        os.kill(pid, signal.SIGKILL)
    _finish(processes[1])
    code, _, said = _finish(processes[0])
    assert code != 0 and any("another process ended" in line for line in _error_lines(said)), said
    assert not (tmp_path / "run" / "weights.pt").exists()


def test_mistakes_are_said_once(squares, uninterrupted, tmp_path):
    code, _, said = _finish(_start(squares, tmp_path / "run", "--batch-size", 3))
    assert code != 0 and _error_lines(said) == [
        "error: --batch-size must be a multiple of the 2 processes, got 3"]
    assert not (tmp_path / "run").exists() or not (tmp_path / "run" / "losses.jsonl").exists()
    code, _, said = _finish(_start(squares, uninterrupted, "--base-lr", 0.02))
    assert code != 0 and _error_lines(said) == [
        f"error: {uninterrupted / 'weights.pt'}: holds a training with base_lr = 0.01, not 0.02; "
        "it is finished: choose another --output, and start there "
        f"from these weights with --initial-weights {uninterrupted / 'weights.pt'}"]


def test_evaluate_gives_the_figures_of_one_process(squares, uninterrupted, tmp_path):
    words = ("-m", "pspnet_repro", "evaluate", "--weights", uninterrupted / "weights.pt", "--data",
             squares, "--base-size", 71, "--crop-size", 57, "--threads", 1, "--batch-size", 1,
             "--output")
    code, out, said = _finish(_torchrun(*words, tmp_path / "two"))
    assert code == 0, said
    alone = subprocess.run([sys.executable, *map(str, words), str(tmp_path / "one")],
                           cwd=ROOT, capture_output=True, text=True, check=True)
    assert out.splitlines()[:-1] == alone.stdout.splitlines()[:-1]  # the last names the folder
    result = (tmp_path / "one" / "result.json").read_text()
    assert (tmp_path / "two" / "result.json").read_text() == result
    # Two processes stopped: what they did is kept for one, who does the rest.
    (tmp_path / "two" / "result.json").unlink()
    counts = tmp_path / "two" / "counts.jsonl"
    counts.write_text("".join(counts.read_text().splitlines(keepends=True)[:1]))
    assert len((tmp_path / "two" / "counts-1.jsonl").read_text().splitlines()) == 2
    again = subprocess.run([sys.executable, *map(str, words), str(tmp_path / "two")], cwd=ROOT,
                           capture_output=True, text=True, check=True)
    assert "1/2 [00:00<?" in again.stderr and "0/2 [" not in again.stderr
    assert (tmp_path / "two" / "result.json").read_text() == result
    assert not (tmp_path / "two" / "counts-1.jsonl").exists()


_NESTED = """
from pspnet_repro.distributed import join
for _ in range(2):
    with join() as outer, join() as inner:
        assert inner is outer and inner.size == 2 and inner.patient is not None
"""


def test_a_join_within_another_is_the_same_group(tmp_path):
    (tmp_path / "nested.py").write_text(f"import sys; sys.path.insert(0, {str(ROOT)!r})" + _NESTED)
    code, _, said = _finish(_torchrun(tmp_path / "nested.py"))
    assert code == 0, said


_SHORT_TABLE = """
import dataclasses, sys
sys.path.insert(0, {root!r})
from experiments import run_table
from experiments.profiles import PROFILES
mini = PROFILES["mini"]
PROFILES["mini"] = dataclasses.replace(mini, train=mini.train | {{"batch_size": 2, "max_iter": 2}})
sys.exit(run_table.main())
"""


def test_run_table_works_at_a_training_over_the_processes(tmp_path):
    folder = scenes.write_scenes(tmp_path, train=4, val=3)
    script = tmp_path / "short_table.py"
    script.write_text(_SHORT_TABLE.format(root=str(ROOT)))
    words = (script, "--rows", BASELINE, "--data", folder, "--runs", tmp_path / "runs")
    code, out, said = _finish(_torchrun(*words, "--dry-run"))
    assert code == 0 and not (tmp_path / "runs").exists(), said
    assert out.count("GiB of memory in each process.") == 1
    assert out.count("What processes tell each other is not in it.") == 1
    code, out, said = _finish(_torchrun(*words))
    assert code == 0, said
    assert out.count("1 of 1 trainings to do") == 1 and out.count("| ResNet50-Baseline |") == 1
    run, = (tmp_path / "runs" / "mini").glob("baseline-*")
    test, = run.glob("test-*")
    result = json.loads((test / "result.json").read_text())
    assert result["train_processes"] == result["test_processes"] == 2
    assert sum(map(sum, result["confusion"])) == 3 * scenes.SIZE ** 2
    assert len(list((test / "predictions").glob("*.png"))) == 3
    curve = [json.loads(line) for line in (run / "curve.jsonl").read_text().splitlines()]
    assert [point["iteration"] for point in curve] == [1, 2]
    assert curve[1]["mean_iou"] == pytest.approx(result["mean_iou"], rel=1e-12)
    code, out, said = _finish(_torchrun(*words))
    assert code == 0 and "0 of 1 trainings to do" in out, said
