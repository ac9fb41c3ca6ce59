"""What the Makefile promises; test_setup_cuda.py has setup.py's decision about CUDA."""

import shutil
import subprocess
import sys

import pytest
from helpers.paths import ROOT

from pspnet_repro import __version__


def test_make_alone_lists_the_targets():
    said = subprocess.run(["make", "--no-print-directory"], cwd=ROOT, capture_output=True,
                          text=True, check=True).stdout
    for target in ("build", "test", "cuda-link-check", "table", "bench"):
        assert f"make {target} " in said


def test_extension_shares_torchs_cxx_library():
    """With one of its own, numbers are missing in what refusals say."""
    extension, = (ROOT / "pspnet_repro").glob("_C*.so")
    symbols = subprocess.run(["nm", "-DC", "--defined-only", extension], capture_output=True,
                             text=True, check=True).stdout
    assert "pspnet::" in symbols and "_M_insert<long>" not in symbols


def test_a_toolchain_that_links_its_own_cxx_library_is_overruled(tmp_path):
    import setup
    source, library = tmp_path / "number.cpp", tmp_path / "number.so"
    source.write_text("#include <sstream>\nextern \"C\" int size(long number) { std::ostringstream "
                      "text; text << number; return text.str().size(); }\n")
    subprocess.run(["c++", "-shared", "-fPIC", source, *setup.shared_cxx_library("c++"),
                    "-static-libstdc++", "-o", library], check=True)
    symbols = subprocess.run(["nm", "-DC", "--defined-only", library], capture_output=True,
                             text=True, check=True).stdout
    assert "size" in symbols and "_M_insert<long>" not in symbols


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
case "$*" in "-c import pathlib"*) exit ;; esac
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


@pytest.mark.parametrize("setting", ["USE_CUDA=0", "FORCE_CUDA=1", "PSPNET_MARCH=x86-64",
                                     "CUDA_HOME=/opt/cuda", "CUDA_PATH=/opt/cuda",
                                     "TORCH_CUDA_ARCH_LIST=8.0;9.0+PTX"])
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


def test_the_environments_python_finds_the_checkout_anywhere(tmp_path):
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    _make(ROOT, f"VENV={venv}", "--assume-old", f"{venv}/.installed", f"{venv}/bin/pspnet")
    code = "import pspnet_repro, experiments; print(pspnet_repro.__file__, experiments.__file__)"
    for words, printed in (
            ([venv / "bin" / "python", "-c", code],
             f"{ROOT}/pspnet_repro/__init__.py {ROOT}/experiments/__init__.py\n"),
            ([venv / "bin" / "pspnet", "--version"], f"pspnet-repro {__version__}\n")):
        run = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)
        assert run.stdout == printed


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


def test_cuda_link_check_leaves_the_build_alone(copy):
    """It has an environment and a folder of its own, and tests what lies there."""
    _make(copy, "build", "PYTHON=./python")
    _calls(copy)
    said = _make(copy, "cuda-link-check", "PYTHON=./python", "CUDA_TORCH=torch==2.12.0")
    assert "setup.py: torch 0, CUDA off: test" in said
    assert _calls(copy) == [
        "-m venv build/cuda-venv", "-m pip install --quiet torch==2.12.0",
        "-m pip install --quiet -r requirements.txt -r requirements-dev.txt",
        "setup.py --quiet egg_info --egg-base build/cuda build --build-lib build/cuda/lib "
        "--build-temp build/cuda/temp"]
    check, tests = _calls(copy / "build" / "cuda")
    assert check == "-m programs.cuda_link_check"
    assert tests.startswith("-m pytest ../../tests/ops/test_functions.py ")
    assert all((ROOT / name.removeprefix("../../")).is_file() for name in tests.split()[2:])
    _make(copy, "build", "PYTHON=./python")
    assert not _calls(copy)


def test_missing_extension_names_the_command(tmp_path):
    """A copy without the compiled file says how to build it, and never falls back by itself."""
    shutil.copytree(ROOT / "pspnet_repro", tmp_path / "pspnet_repro",
                    ignore=shutil.ignore_patterns("_C*", "__pycache__"))
    run = subprocess.run([sys.executable, "-c", "import pspnet_repro.ops"], cwd=tmp_path,
                         capture_output=True, text=True, env={"PATH": ""}, check=False)
    assert run.returncode == 1 and "is not built: run `make build`" in run.stderr
    run = subprocess.run(
        [sys.executable, "-c", "import torch; from pspnet_repro import ops; "
         "print(ops.bin_avg_pool2d(torch.ones(1, 1, 4, 4), 2).sum().item())"], cwd=tmp_path,
        capture_output=True, text=True, env={"PATH": "", "PSPNET_OPS": "reference"}, check=False)
    assert run.stdout.strip() == "4.0", run.stderr
