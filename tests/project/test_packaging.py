"""What is installed: its files, its programs outside a checkout, and what it needs to be loaded."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.networks import tiny_net
from helpers.paths import ROOT

from experiments import places, provenance
from experiments.report import details
from pspnet_repro import Predictor, PSPNet, __version__
from pspnet_repro.data import scenes
from pspnet_repro.errors import UsageError
from pspnet_repro.ops.extension import ExtensionError, check_record, processor_flags, read_record
from pspnet_repro.weights import model_file

COMPILED = next((ROOT / "pspnet_repro").glob("_C*.so"))
V3 = {"avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe"}


def _setup(*words, before=""):
    """Run setup.py as a build does, after the statement `before`."""
    code = (f"import runpy, sys\n{before}\nsys.argv = sys.argv[1:]\n"
            "runpy.run_path('setup.py', run_name='__main__')")
    return subprocess.run([sys.executable, "-c", code, "setup.py", *map(str, words)], cwd=ROOT,
                          capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with what a wheel installs, the extension as it is compiled here."""
    folder = tmp_path_factory.mktemp("site-packages")
    run = _setup("--quiet", "build_py", "--build-lib", folder)
    assert run.returncode == 0, run.stderr
    shutil.copy(COMPILED, folder / "pspnet_repro")
    return folder


def _start(installed, cwd, *words, code=None):
    """Run Python where only `installed` has our packages."""
    return subprocess.run([sys.executable, *(("-c", code) if code else ("-m", "pspnet_repro")),
                           *map(str, words)], cwd=cwd, capture_output=True, text=True, check=False,
                          env=os.environ | {"PYTHONPATH": str(installed)})


def test_only_packages_of_ours_are_installed(installed):
    assert {path.name for path in installed.iterdir()} == {"pspnet_repro", "prototxt_import"}
    harness = installed / "pspnet_repro" / "experiments"
    assert {"run_table.py", "paper.json", "report"} <= {path.name for path in harness.iterdir()}
    assert not (harness / "results").exists()


def test_every_tracked_file_of_the_packages_is_installed(installed):
    for folder, place in (("pspnet_repro", ""), ("prototxt_import", ""),
                          ("experiments", "pspnet_repro")):
        for path in (ROOT / folder).rglob("*"):
            parts = path.relative_to(ROOT).parts
            if path.is_dir() or path.suffix in (".so", ".pyc") or parts[:2] in (
                    ("experiments", "results"), ("experiments", "runs")):
                continue
            assert (installed / place / path.relative_to(ROOT)).is_file(), path


def test_sdist_holds_what_a_build_needs(tmp_path):
    run = _setup("--quiet", "egg_info", "--egg-base", tmp_path)
    assert run.returncode == 0, run.stderr
    files = set((tmp_path / "pspnet_repro.egg-info" / "SOURCES.txt").read_text().splitlines())
    wanted = {str(path.relative_to(ROOT)) for folder in ("csrc", "docs")
              for path in (ROOT / folder).rglob("*.*")}
    wanted |= {"setup.py", "pyproject.toml", "Makefile", "hubconf.py", "README.md", "LICENSE",
               "requirements.txt", "requirements-dev.txt", "requirements-hdf5.txt",
               "requirements-mat.txt", "requirements-onnx.txt",
               "experiments/run_table.py", "experiments/paper.json", "experiments/report/page.css",
               "experiments/report/page.html",
               "pspnet_repro/data/names/ade20k.txt", "prototxt_import/format/caffe.proto"}
    assert wanted <= files
    assert not [name for name in files if name.startswith(("tests/", "experiments/results/"))]
    programs = (tmp_path / "pspnet_repro.egg-info" / "entry_points.txt").read_text()
    assert "pspnet = pspnet_repro.__main__:main" in programs
    metadata = (tmp_path / "pspnet_repro.egg-info" / "PKG-INFO").read_text()
    assert f"\nVersion: {__version__}\n" in metadata and "\nRequires-Python: >=3.10\n" in metadata
    assert "\nLicense: MIT\n" in metadata
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text()


@pytest.mark.parametrize("command", ["dist_info", "bdist_wheel", "editable_wheel"])
def test_build_without_torch_says_so(command):
    run = _setup(command, before="sys.modules['torch'] = None")
    assert run.returncode == 1 and "Traceback" not in run.stderr
    assert run.stderr.startswith("setup.py: torch is not installed in ")
    assert "install torch first, then run `pip install .` again" in run.stderr


def test_build_with_an_old_torch_says_so():
    run = _setup("dist_info", before="import types\nsys.modules['torch'] = "
                 "types.SimpleNamespace(__version__='2.9.1+cpu')")
    assert run.returncode == 1 and "Traceback" not in run.stderr
    assert run.stderr.startswith("setup.py: torch must be 2.10 or newer, got 2.9.1+cpu in ")


@pytest.mark.slow
def test_harness_runs_outside_a_checkout(installed, tmp_path):
    """Also beside folders that have the names of its packages: another checkout, one's own runs."""
    for name in ("experiments", "pspnet_repro"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('a stranger')")
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    scenes.write_scenes(tmp_path / "data", train=2, val=1)
    data = next((tmp_path / "data").iterdir())
    path = "import sys; sys.path.remove(''); "  # as for the program pspnet
    run = _start(installed, tmp_path, "table", "--rows", "baseline", "--dry-run", "--data",
                 data.relative_to(tmp_path), code=path + (
                     "from pspnet_repro.__main__ import main; sys.exit(main(sys.argv[1:]))"))
    assert run.returncode == 0, run.stderr
    assert "1 of 1 trainings to do" in run.stdout and "1 of 1 networks" in run.stdout
    assert not (tmp_path / "runs").exists()
    run = _start(installed, tmp_path, code=path + (
        "from pspnet_repro.experiments.provenance import provenance; "
        "print(provenance()['commit'])"))
    assert run.stdout == f"version {__version__}\n", run.stderr


@pytest.mark.slow
def test_installed_rows_are_started_and_leave_runs_here(installed, tmp_path):
    """A row that fails at once: its words show that its own process had our packages."""
    scenes.write_scenes(tmp_path, train=2, val=1)
    data = next(path for path in tmp_path.iterdir() if path.is_dir())
    (data / "train.txt").write_text("gone.png gone_label.png\n")
    run = _start(installed, tmp_path, "table", "--rows", "baseline", "--data", data)
    assert run.returncode == 1
    assert "gone_label.png: no such label; paths in the list" in run.stderr, run.stderr
    assert (tmp_path / "runs" / "mini").is_dir()


def test_runs_are_left_in_the_checkout_or_in_this_folder(installed, tmp_path):
    run = _start(installed, tmp_path, code="from pspnet_repro.experiments import places; "
                 "print(places.RUNS_FOLDER, places.CACHE_FOLDER)")
    assert run.stdout.split() == ["runs", "runs/cache"], run.stderr
    assert (places.RUNS_FOLDER, places.CACHE_FOLDER) == (ROOT / "experiments" / "runs",
                                                         ROOT / "cache")


def test_provenance_names_the_commit_of_this_repository_alone(monkeypatch, tmp_path):
    assert re.match(r"[0-9a-f]{40}|version ", provenance.provenance()["commit"])
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    (tmp_path / "site-packages").mkdir()
    monkeypatch.setattr(provenance, "ROOT", tmp_path / "site-packages")
    assert provenance.provenance()["commit"] == f"version {__version__}"
    for commit, shown in (("a" * 40, "a" * 10), ("0" * 40 + "+changes", "0" * 10 + "+changes"),
                          ("version 0.1.0", "version 0.1.0"), ("unknown", "unknown")):
        assert details._commit({"commit": commit}) == shown


def test_compiled_file_says_what_it_needs():
    version, flags = read_record(COMPILED)
    assert version == ".".join(torch.__version__.split(".")[:2])
    assert flags <= processor_flags()
    check_record(COMPILED, (version, flags), torch.__version__, processor_flags())


@pytest.mark.parametrize("record, torch_version, flags, message", [
    (("2.13", V3), "2.14.1+cu130", V3,
     "was compiled for torch 2.13, but torch 2.14.1+cu130 is installed"),
    (("2.1", V3), "2.13.0", V3, "was compiled for torch 2.1, but torch 2.13.0 is installed"),
    (("2.13", V3), "2.13.0", V3 - {"avx2"}, "for a processor with avx2, which this one lacks"),
    (("2.13", V3 | {"avx512f"}), "2.13.1", V3, "for a processor with avx512f, which this one"),
    (("2.13", V3), "2.13.0", {"sse2"}, "with abm, avx2, bmi1, bmi2, f16c, fma, movbe, which"),
    (None, "2.13.0", V3, "was compiled by another version of this package"),
])
def test_compiled_file_of_another_torch_or_processor_is_refused(record, torch_version, flags,
                                                               message):
    with pytest.raises(ExtensionError) as refusal:
        check_record(Path("_C.so"), record, torch_version, flags)
    assert message in str(refusal.value) and "run `make clean build` in " in str(refusal.value)
    assert "\n" not in str(refusal.value) and isinstance(refusal.value, ImportError)


def test_compiled_file_that_fits_is_accepted():
    check_record(Path("_C.so"), ("2.13", V3), "2.13.0a0+git1", V3 | {"avx512f"})
    check_record(Path("_C.so"), ("2.13", V3), "2.13.0", None)


@pytest.mark.parametrize("line, flags", [
    ("flags\t\t: fpu sse2 avx2\n", {"fpu", "sse2", "avx2"}),
    ("Features\t: fp asimd sve\nCPU part\t: 0xd0c\n", {"fp", "asimd", "sve"}),
    ("Processor : ARMv8\n", None)])
def test_flags_of_a_processor(tmp_path, line, flags):
    path = tmp_path / "cpuinfo"
    path.write_text(f"processor\t: 0\nvmx flags\t: vnmi\n{line}bugs\t\t: none\n")
    assert processor_flags(path) == flags
    assert processor_flags(tmp_path / "absent") is None


_UNDEFINED = """
extern int nowhere;
const char record[] = "pspnet_repro was compiled for torch VERSION and a processor with sse2:1 ";
int *use(void) { return &nowhere; }
"""


def test_extension_that_does_not_fit_ends_commands_with_a_line(installed, tmp_path):
    """Before it is loaded where its record says so, else by what the loader says."""
    version = ".".join(torch.__version__.split(".")[:2])
    shutil.copytree(installed, tmp_path / "other")
    path = tmp_path / "other" / "pspnet_repro" / COMPILED.name
    for named, message in (
            ("1.13", f"was compiled for torch 1.13, but torch {torch.__version__} is installed"),
            (version, f"does not load with torch {torch.__version__} ({path}: undefined symbol")):
        subprocess.run(["cc", "-x", "c", "-shared", "-fPIC", "-o", path, "-"], text=True,
                       input=_UNDEFINED.replace("VERSION", named), check=True)
        run = _start(path.parents[1], tmp_path, "predict", ".", "--weights", "w.pt", "-o", "out")
        assert run.returncode == 1 and run.stderr.count("\n") == 1, run.stderr
        assert run.stderr.startswith(f"error: {path} {message}")
        assert "pip install --force-reinstall --no-deps .` in the folder of the" in run.stderr


def test_hub_loads_networks_from_this_folder(tmp_path):
    weights = tmp_path / "weights.pt"
    model_file.save_model(weights, tiny_net())

    def load(*words, **options):
        return torch.hub.load(str(ROOT), *words, source="local", **options)

    assert isinstance(load("predictor", weights), Predictor)
    net = load("pspnet", weights)
    assert isinstance(net, PSPNet) and not net.training
    arguments = {"classes": 3, "width": 0.125, "depth": 50}
    assert load("pspnet", **arguments).settings["classes"] == 3
    with pytest.raises(UsageError, match="classes, width, depth: must be left out where weights"):
        load("pspnet", weights, **arguments)


def test_hub_without_the_extension_says_how_to_build(installed, tmp_path):
    for name in ("pspnet_repro", "prototxt_import"):
        shutil.copytree(ROOT / name, tmp_path / name,
                        ignore=shutil.ignore_patterns("_C*.so", "__pycache__"))
    (tmp_path / "csrc").mkdir()
    shutil.copy(ROOT / "hubconf.py", tmp_path)
    run = _start(tmp_path, tmp_path, code="import torch; torch.hub.load('.', 'predictor', 'w.pt', "
                 "source='local')")
    assert (f"is not built: run `make build` in {tmp_path}, or for this Python `make build "
            f"PYTHON={sys.executable} VENV=`") in run.stderr


@pytest.mark.parametrize("content, record", [
    (b"", None), (b"a text", None), (b"pspnet_repro was compiled for torch ", None),
    (b"pspnet_repro was compiled for torch \xff\xfe 2.13 ", None),
    (b"pspnet_repro was compiled for torch 2.13 and \xff avx:1 \0", ("2.13", {"avx"}))])
def test_records_of_damaged_files_are_read_without_a_crash(tmp_path, content, record):
    (tmp_path / "_C.so").write_bytes(content)
    assert read_record(tmp_path / "_C.so") == record
