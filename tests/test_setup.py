"""The decision about CUDA, and what the Makefile promises."""

import importlib.util
import subprocess
from pathlib import Path

import pytest
import torch
from torch.utils import cpp_extension

ROOT = Path(__file__).parents[1]
_spec = importlib.util.spec_from_file_location("setup_module", ROOT / "setup.py")
setup = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(setup)

SOURCES = ["csrc/cuda/pool.cu"]


@pytest.mark.parametrize("environ, torch_cuda, nvcc, sources, on, why", [
    ({}, "13.0", "13.0", SOURCES, True, "nvcc 13.0 and torch's CUDA 13.0 agree"),
    ({}, "13.0", "13.2", SOURCES, True, "agree"),
    ({"USE_CUDA": "0"}, "13.0", "13.0", SOURCES, False, "USE_CUDA=0"),
    ({}, None, "13.0", SOURCES, False, "this torch was built without CUDA"),
    ({}, "13.0", None, SOURCES, False, "no nvcc found"),
    ({}, "13.0", "12.4", SOURCES, False, "nvcc is 12.4 but torch has CUDA 13.0"),
    ({}, "13.0", "13.0", [], False, "csrc/cuda holds no kernels"),
    ({"FORCE_CUDA": "1"}, "13.0", "13.0", SOURCES, True, "agree"),
])
def test_decide_cuda(environ, torch_cuda, nvcc, sources, on, why):
    decision, reason = setup.decide_cuda(environ, torch_cuda, nvcc, sources)
    assert decision is on and why in reason


@pytest.mark.parametrize("environ, torch_cuda, nvcc, why", [
    ({"FORCE_CUDA": "1"}, None, "13.0", "FORCE_CUDA=1, but this torch was built without CUDA"),
    ({"FORCE_CUDA": "1"}, "13.0", None, "FORCE_CUDA=1, but no nvcc found"),
    ({"FORCE_CUDA": "1", "USE_CUDA": "0"}, "13.0", "13.0", "exclude each other"),
])
def test_decide_cuda_refuses(environ, torch_cuda, nvcc, why):
    with pytest.raises(SystemExit, match=why):
        setup.decide_cuda(environ, torch_cuda, nvcc, SOURCES)


@pytest.mark.parametrize("torch_cuda", ["13.0", None])
def test_extension_has_kernels_where_torch_and_nvcc_agree(monkeypatch, tmp_path, capsys,
                                                          torch_cuda):
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("USE_CUDA", raising=False)
    monkeypatch.delenv("FORCE_CUDA", raising=False)
    monkeypatch.setattr(torch.version, "cuda", torch_cuda)
    monkeypatch.setattr(cpp_extension, "CUDA_HOME", str(tmp_path))
    monkeypatch.setattr(setup, "nvcc_version", lambda _: "13.0")
    extension = setup.extension()
    cuda = {str(path.relative_to(ROOT)) for path in ROOT.glob("csrc/cuda/*.c[up]*")}
    assert "csrc/cuda/pool.cu" in cuda and "csrc/cuda/hosts_pool.cpp" in cuda
    assert cuda & set(extension.sources) == (cuda if torch_cuda else set())
    assert ("cudart" in extension.libraries) == bool(torch_cuda)
    said = capsys.readouterr().out
    assert ("CUDA on: nvcc 13.0 and torch's CUDA 13.0 agree" if torch_cuda
            else "CUDA off: this torch was built without CUDA") in said


def test_nvcc_version_without_nvcc(tmp_path):
    assert setup.nvcc_version(tmp_path) is None


def test_nvcc_version_reads_its_words(tmp_path):
    (tmp_path / "bin").mkdir()
    nvcc = tmp_path / "bin" / "nvcc"
    nvcc.write_text("#!/bin/sh\necho 'Cuda compilation tools, release 12.6, V12.6.20'\n")
    nvcc.chmod(0o755)
    assert setup.nvcc_version(tmp_path) == "12.6"


def test_make_alone_lists_the_targets():
    said = subprocess.run(["make", "--no-print-directory"], cwd=ROOT, capture_output=True,
                          text=True, check=True).stdout
    for target in ("build", "test", "table", "bench"):
        assert f"make {target} " in said


def _make(folder, *words):
    run = subprocess.run(["make", "--no-print-directory", *words], cwd=folder,
                         capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.fixture
def copy(tmp_path):
    """The Makefile beside stand-ins for the interpreter and the sources: it logs its calls."""
    (tmp_path / "Makefile").write_text((ROOT / "Makefile").read_text(encoding="utf-8"))
    (tmp_path / "csrc").mkdir()
    for name in ("setup.py", "requirements.txt", "requirements-dev.txt", "csrc/library.cpp"):
        (tmp_path / name).touch()
    python = tmp_path / "python"
    python.write_text("""#!/bin/sh
echo "$@" >> calls
case "$*" in
    "-m venv"*) mkdir -p "$3/bin"; cp python "$3/bin/python" ;;
    *setup.py*) echo "setup.py: torch 0, CUDA off: test" ;;
esac
""")
    python.chmod(0o755)
    return tmp_path


def _calls(folder):
    path = folder / "calls"
    calls = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return calls


def test_build_does_nothing_twice(copy):
    said = _make(copy, "build", "PYTHON=./python")
    assert "setup.py: torch 0, CUDA off: test" in said
    assert _calls(copy) == ["-m venv .venv", "-m pip install --quiet torch==2.13.0",
                            "-m pip install --quiet -r requirements.txt -r requirements-dev.txt",
                            "setup.py --quiet build_ext --inplace"]
    _make(copy, "build", "PYTHON=./python")
    assert not _calls(copy)


@pytest.mark.parametrize("setting", ["USE_CUDA=0", "FORCE_CUDA=1", "PSPNET_MARCH=x86-64"])
def test_changed_build_settings_compile_again(copy, setting):
    _make(copy, "build", "PYTHON=./python")
    _calls(copy)
    _make(copy, "build", "PYTHON=./python", setting)
    assert _calls(copy) == ["setup.py --quiet build_ext --inplace"]


def test_changed_torch_installs_and_compiles_again(copy):
    _make(copy, "build", "PYTHON=./python")
    _calls(copy)
    _make(copy, "build", "PYTHON=./python", "TORCH=torch==2.12.0", "TORCH_INDEX=https://index")
    calls = _calls(copy)
    assert calls[0] == "-m pip install --quiet --index-url https://index torch==2.12.0"
    assert calls[-1].startswith("setup.py")


def test_build_without_environment_downloads_nothing(copy):
    _make(copy, "build", "PYTHON=./python", "VENV=")
    assert _calls(copy) == ["setup.py --quiet build_ext --inplace"]
    assert not (copy / ".venv").exists()
    _make(copy, "build", "PYTHON=./python", "VENV=")
    assert not _calls(copy)


def test_failed_build_shows_the_compilers_words(copy):
    (copy / "python").write_text("#!/bin/sh\necho 'pool.cpp:1: error: words'\nexit 1\n")
    run = subprocess.run(["make", "build", "PYTHON=./python", "VENV="], cwd=copy,
                         capture_output=True, text=True, check=False)
    assert run.returncode == 2 and "pool.cpp:1: error: words" in run.stdout
    assert not (copy / "build" / ".built").exists()


def test_missing_extension_names_the_command(tmp_path):
    """A copy without the compiled file says how to build it, and never falls back by itself."""
    package = tmp_path / "pspnet_repro"
    package.mkdir()
    for source in (ROOT / "pspnet_repro").glob("*.py"):
        (package / source.name).write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
    import sys
    run = subprocess.run([sys.executable, "-c", "import pspnet_repro.ops"], cwd=tmp_path,
                         capture_output=True, text=True, env={"PATH": ""}, check=False)
    assert run.returncode == 1 and "is not built: run `make build`" in run.stderr
    run = subprocess.run(
        [sys.executable, "-c", "import torch; from pspnet_repro import ops; "
         "print(ops.bin_avg_pool2d(torch.ones(1, 1, 4, 4), 2).sum().item())"], cwd=tmp_path,
        capture_output=True, text=True, env={"PATH": "", "PSPNET_OPS": "reference"}, check=False)
    assert run.stdout.strip() == "4.0", run.stderr
