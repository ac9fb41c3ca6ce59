"""Commands whose screen cannot be written: their work goes on."""

import json
import os
import subprocess
import sys

import pytest
from helpers.commands import SMALL
from helpers.import_files import small_network
from helpers.networks import tiny_net
from helpers.paths import ROOT

from pspnet_repro import errors
from pspnet_repro.weights import model_file

NET = ("--classes", 4, *SMALL, "--bins", "1,2", "--crop-size", 57, "--batch-size", 2, "--threads",
       1)
SIZES = ("--base-size", 72, "--crop-size", 57, "--threads", 1)
# Each job in a fork, with spoilt streams; the others go to files. Prints the exit codes.
RUNNER = """
import importlib, json, os, sys
sys.path.insert(0, sys.argv[1])
import torch._dynamo  # which each fork would else import for itself
mains = {name: importlib.import_module(name + ".__main__").main
         for name in ("pspnet_repro", "prototxt_import")}
os.chdir(sys.argv[2])
codes = []
for number, (kind, spoilt, module, words) in enumerate(json.load(sys.stdin)):
    child = os.fork()
    if child:
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        continue
    reading, broken = os.pipe()
    os.close(reading)
    full = os.open("/dev/full", os.O_WRONLY)
    for stream, name in ((1, "stdout"), (2, "stderr")):
        file = os.open(f"{number}.{name}", os.O_WRONLY | os.O_CREAT)
        os.dup2({"pipe": broken, "full": full}.get(kind, file) if stream in spoilt else file,
                stream)
        os.close(file)
        if kind == "closed" and stream in spoilt:
            os.close(stream)
            setattr(sys, name, None)
    os.close(broken)
    os.close(full)
    code = mains[module](words)
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.flush()  # as at the interpreter's end, which would take seconds in a fork
    os._exit(code)
print(json.dumps(codes))
"""
KINDS = ("pipe", "full", "closed")


def run_jobs(folder, jobs):
    """The exit codes of (kind, spoilt streams, module, words)."""
    jobs = [(kind, spoilt, module, list(map(str, words))) for kind, spoilt, module, words in jobs]
    done = subprocess.run([sys.executable, "-c", RUNNER, str(ROOT), str(folder)],
                          input=json.dumps(jobs), capture_output=True, text=True, check=False)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def net(tmp_path):
    small_network(tmp_path)
    model_file.save_model(tmp_path / "w.pt", tiny_net())
    return tmp_path


def test_work_is_done_without_a_screen(squares, net):
    """stdout and stderr have no reader, no space, or are closed."""
    ours, theirs = "pspnet_repro", "prototxt_import"
    original = ("net.prototxt", "w.caffemodel")
    test = ("--weights", "w.pt", *SIZES)
    jobs = [*((kind, (1, 2), ours, ("train", "--data", squares, "--output", kind, "--max-iter", 2,
                                    *NET)) for kind in KINDS),
            ("pipe", (1, 2), ours, ("evaluate", "--data", squares, "--output", "test", *test)),
            ("full", (2,), ours, ("evaluate", "--data", squares, "--output", "test2", *test)),
            ("closed", (1, 2), ours, ("predict", squares / "0.png", "-o", "pictures", *test)),
            ("full", (1, 2), theirs, ("convert", *original, "-o", "c.pt")),
            ("closed", (1,), theirs, ("convert", *original, "-o", "c2.pt")),
            ("pipe", (1, 2), theirs, ("export", "w.pt", "-o", "e.prototxt", "e.caffemodel",
                                      "--crop-size", 89))]
    assert run_jobs(net, jobs) == [0] * len(jobs)
    for kind in KINDS:
        assert (net / kind / "weights.pt").exists()
        assert "done: weights.pt" in (net / kind / "log.txt").read_text()
        lines = (net / kind / "losses.jsonl").read_text().splitlines()
        assert [json.loads(line)["iteration"] for line in lines] == [0, 1]
    for name in ("test/result.json", "test2/result.json", "pictures/0.overlay.png", "c.pt", "c2.pt",
                 "e.caffemodel"):
        assert (net / name).exists(), name
    assert "mean IoU" in (net / "4.stdout").read_text()
    assert (net / "7.stderr").read_text() == ""


def test_a_result_on_a_screen_that_cannot_take_it_is_an_error(squares, net):
    """But a reader that has read enough is none."""
    commands = (("prototxt_import", ("inspect", "net.prototxt")),
                ("pspnet_repro", ("check-data", "--data", squares, "--classes", 4, "--split",
                                  "train")))
    jobs = [(kind, (1,), *command) for command in commands for kind in KINDS]
    codes = run_jobs(net, jobs)
    assert codes == [0, 1, 1] * 2
    for number, (kind, *_) in enumerate(jobs):
        said = (net / f"{number}.stderr").read_text().replace("\r", "\n").splitlines()
        wanted = {"pipe": [], "full": ["No space left on device"],
                  "closed": ["Bad file descriptor"]}[kind]
        assert [line for line in said if "error" in line.lower() or "Traceback" in line] == [
            f"error: standard output cannot be written: {why}; send it elsewhere"
            for why in wanted]


@pytest.mark.slow
def test_a_training_outlives_the_reader_of_its_progress_bar(squares, tmp_path):
    command = [sys.executable, "-m", "pspnet_repro", "train", "--data", squares, "--output",
               tmp_path / "run", "--max-iter", 30, *NET]
    process = subprocess.Popen(list(map(str, command)), cwd=ROOT, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT)
    assert b"run:" in process.stdout.read(40)
    process.stdout.close()
    assert process.wait(120) == 0
    assert "done: weights.pt" in (tmp_path / "run" / "log.txt").read_text()


@pytest.mark.slow
def test_streams_that_are_closed_from_the_start(net):
    """The shell's >&- and 2>&-, not this test's."""
    script = 'exec "$0" -m prototxt_import "$@" >&- 2>&-'
    for words, code in ((("inspect", "net.prototxt"), 1),
                        (("convert", "net.prototxt", "w.caffemodel", "-o", "c.pt"), 0)):
        done = subprocess.run(["sh", "-c", script, sys.executable, *words], cwd=net, check=False,
                              env={**os.environ, "PYTHONPATH": str(ROOT)})
        assert done.returncode == code
    assert model_file.load_model(net / "c.pt").classes == 3


def test_streams_are_a_commands_own(capsys):
    before = sys.stdout, sys.stderr

    @errors.command
    def main():
        assert (sys.stdout, sys.stderr) != before
        print("said")
        raise errors.UsageError("how")

    assert main() == 2 and (sys.stdout, sys.stderr) == before
    assert capsys.readouterr() == ("said\n", "error: how\n")
