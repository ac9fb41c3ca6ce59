"""What torchrun tells its processes, and processes whose torchrun is gone."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from helpers.commands import SMALL, run
from helpers.paths import ROOT
from helpers.refusals import refused

from pspnet_repro.distributed import join
from pspnet_repro.torchrun import world_size

NET = ("--classes", 4, *SMALL, "--bins", "1,2", "--crop-size", 57, "--threads", 1,
       "--batch-size", 2)


def _train(data, output, *more):
    return [sys.executable, "-m", "pspnet_repro", "train", "--data", data, "-o", output, *NET,
            *more]


def _start(words, **variables):
    return subprocess.Popen(list(map(str, words)), cwd=ROOT, env={**os.environ, **variables},
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("variables, words", [
    ({"WORLD_SIZE": ""}, "WORLD_SIZE must be a whole number from 1 to 1048576, got ''"),
    ({"WORLD_SIZE": "two"}, "WORLD_SIZE must be .* got 'two'"),
    ({"WORLD_SIZE": "-1"}, "WORLD_SIZE must be .* got '-1'"),
    ({"WORLD_SIZE": "2"}, "RANK must be set where WORLD_SIZE is 2"),
    ({"WORLD_SIZE": "2", "RANK": "2"}, "RANK must be a whole number from 0 to 1, got '2'"),
    ({"WORLD_SIZE": "2", "RANK": "one"}, "RANK must be .* got 'one'"),
    ({"WORLD_SIZE": "2", "RANK": "0", "MASTER_PORT": "x"}, "MASTER_PORT must be .* got 'x'"),
    ({"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "x"}, "LOCAL_RANK must be .* got 'x'")])
def test_variables_that_are_no_numbers_are_refused(monkeypatch, squares, tmp_path, capfd, variables,
                                                   words):
    if "RANK" in variables:
        variables = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500", **variables}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    refused(words, world_size)
    code, _, said = run(capfd, "train", "--data", squares, "-o", tmp_path / "run", *NET)
    assert code == 2 and said.startswith("error: ") and said.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_port_that_never_answers_is_not_waited_for(monkeypatch):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        for name, value in (("WORLD_SIZE", 2), ("RANK", 1), ("MASTER_ADDR", "127.0.0.1"),
                            ("MASTER_PORT", silent.getsockname()[1])):
            monkeypatch.setenv(name, str(value))
        began = time.monotonic()
        refused("does not answer within 1 s; is the port another program's", join(1).__enter__)
        assert time.monotonic() - began < 20


@pytest.mark.dist
def test_processes_of_different_commands_are_refused(squares, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    meeting = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    train = _start(_train(squares, tmp_path / "run", "--max-iter", 3), RANK="0", **meeting)
    code = "from pspnet_repro.distributed import join\nfrom pspnet_repro.errors import command\n" \
           "import sys\n@command\ndef main():\n    with join(command='evaluate'): pass\n" \
           "sys.exit(main())"
    other = _start([sys.executable, "-c", code], RANK="1", **meeting)
    said = train.communicate(timeout=120)[1]
    other.communicate(timeout=120)
    assert (train.returncode, other.returncode) == (2, 2)
    assert said == ("error: all processes must run one command: process 0 runs train, process 1 "
                    "runs evaluate\n")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("rank", ["0", "1"])
@pytest.mark.parametrize("words, name", [
    (("predict", "x.png", "--weights", "w.pt", "-o", "out"), "predict"),
    (("convert", "w.pth", "-o", "w.pt"), "convert"), (("inspect", "n.prototxt"), "inspect"),
    (("check-data", "--data", "d"), "check-data")])
def test_a_command_for_one_process_says_so_at_once(monkeypatch, capfd, words, name, rank):
    """Whoever it is, and whatever the others do."""
    for variable, value in (("WORLD_SIZE", "2"), ("RANK", rank), ("MASTER_ADDR", "127.0.0.1"),
                            ("MASTER_PORT", "29500")):
        monkeypatch.setenv(variable, value)
    code, _, said = run(capfd, *words)
    assert (code, said) == (2, f"error: {name} is for one process, and WORLD_SIZE is 2: start it "
                            "without torchrun; train, evaluate and table share their work\n")


@pytest.mark.dist
@pytest.mark.slow
def test_processes_end_after_their_torchrun_was_killed(squares, tmp_path):
    words = _train(squares, tmp_path / "run", "--max-iter", 100000, "--timeout", 20)[1:]
    torchrun = _start([sys.executable, "-m", "torch.distributed.run", "--standalone",
                       "--nproc-per-node", 2, *words])
    losses = tmp_path / "run" / "losses.jsonl"
    deadline = time.monotonic() + 120
    while not (losses.exists() and losses.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.05)
    torchrun.send_signal(signal.SIGKILL)
    # The pipes close when the last of its processes is gone.
    torchrun.communicate(timeout=30)
    assert (tmp_path / "run" / "checkpoint.pt").exists()
