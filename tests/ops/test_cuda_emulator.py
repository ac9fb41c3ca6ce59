"""The emulator of cuda_on_cpu/ finds planted mistakes, and the kernels pass its sanitizers."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from cuda_on_cpu.build import build
from helpers.cuda_kernels import BUILD, ORDERS, THREADS, OnCpu
from helpers.paths import ROOT, TESTS


@pytest.fixture(scope="module")
def kernels():
    return OnCpu()


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_emulator_runs_a_right_kernel(kernels, order):
    error, y = kernels.planted("right", order)
    assert error == "" and torch.equal(y, torch.arange(float(THREADS)).flip(0))


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_emulator_exchanges_within_warps(kernels, order):
    error, y = kernels.planted("warp_sum", order)
    sums = torch.arange(float(THREADS)).view(2, 32).sum(1)
    votes = torch.tensor([0b11111000, 0b11111111])
    wanted = (sums + 1000 * votes + 0.25).repeat_interleave(32)
    assert error == "" and torch.equal(y, wanted)


def test_emulator_shows_a_missing_barrier(kernels):
    outputs = [kernels.planted("missing_barrier", order)[1] for order in ORDERS]
    assert all(y.isnan().any() for y in outputs)  # shared memory that nobody had written yet


def test_emulator_shows_dependence_on_order(kernels):
    first, second = (kernels.planted("order", order)[1] for order in ORDERS[:2])
    assert not torch.equal(first, second)


def test_emulator_shows_unwritten_output(kernels):
    error, y = kernels.planted("unwritten")
    assert error == "" and y.isnan().nonzero().flatten().tolist() == [5]


@pytest.mark.parametrize("name, words", [
    ("leaves_early", r"a thread left before a barrier of its block, thread \(3, 0, 0\)"),
    ("diverges", "threads wait at different barriers"),
    ("shuffle_without_lane", "a warp exchange names lane 7, which is not there"),
])
def test_emulator_refuses(kernels, name, words):
    error, _ = kernels.planted(name)
    assert re.search(words, error), error


def test_operators_fill_new_memory_in_the_tests():
    """What unwritten outputs of operators are found by."""
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.empty(100).isnan().all()
    finally:
        torch.use_deterministic_algorithms(False)


def _sanitized(*command):
    """A process with the sanitizers' runtime in front of everything else."""
    runtimes = []
    for name in ("libasan.so", "libubsan.so", "libstdc++.so"):
        found = subprocess.run(["c++", f"-print-file-name={name}"], capture_output=True, text=True,
                               check=True).stdout.strip()
        assert Path(found).is_absolute(), f"the compiler has no {name}"
        runtimes.append(str(Path(found).resolve()))
    env = {**os.environ, "LD_PRELOAD": " ".join(runtimes), "PSPNET_SANITIZE": "1",
           "PYTHONPATH": str(TESTS),
           # Python and torch leave memory to the system at exit.
           "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0",
           "UBSAN_OPTIONS": "print_stacktrace=1"}
    return subprocess.run([sys.executable, *command], cwd=ROOT, env=env, text=True,
                          capture_output=True, check=False)


@pytest.mark.parametrize("name, words", [
    ("right", None), ("input_overrun", "heap-buffer-overflow"),
    ("shared_overrun", "heap-buffer-overflow"),
])
def test_sanitizers_see_overruns(name, words):
    build(BUILD, True)
    run = _sanitized("-c", "from helpers.cuda_kernels import OnCpu; "
                           f"print(OnCpu().planted({name!r})[1].sum().item())")
    if words is None:
        assert run.returncode == 0 and run.stdout.strip() == "2016.0", run.stderr
    else:
        assert run.returncode != 0 and words in run.stderr, run.stderr


@pytest.mark.slow
def test_kernels_pass_the_sanitizers():
    build(BUILD, True)
    run = _sanitized("-m", "pytest", "-q", "-x", "-p", "no:cacheprovider",
                     "tests/ops/test_cuda_kernels.py",
                     "-k", "float32 or golden or aligned or nan or mean")
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
