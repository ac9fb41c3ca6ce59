"""Which CUDA toolkit setup.py takes, and for which architectures it compiles; no GPU is needed."""

import importlib.util
import os
from pathlib import Path

import pytest
import torch
from helpers.paths import ROOT
from torch.utils import cpp_extension

_spec = importlib.util.spec_from_file_location("setup_module", ROOT / "setup.py")
setup = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(setup)

SOURCES = ["csrc/cuda/pool.cu"]
KNOWN = ("7.5", "8.0", "8.6", "8.9", "9.0", "10.0", "12.1")


def put_script(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def put_toolkit(home, version="13.0", known=KNOWN, headers="include", cudart="lib64/libcudart.so"):
    """A toolkit whose nvcc answers as a real one does; None leaves a part out. Returns nvcc."""
    for name in filter(None, (headers and f"{headers}/cuda_runtime.h", cudart)):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).touch()
    target = f"{home}/bin/../targets/x86_64-linux"
    names = " ".join(f"compute_{name.replace('.', '')}" for name in known)
    return put_script(home / "bin" / "nvcc", f"""case "$1" in
--version) echo "Cuda compilation tools, release {version}, V{version}.88" ;;
--list-gpu-arch) printf '%s\\n' {names} ;;
--dryrun) cat >&2 <<'END'
#$ _HERE_={home}/bin
#$ TOP={home}/bin/..
#$ INCLUDES="-I{target}/include"{"  "}
#$ LIBRARIES=  "-L{target}/lib/stubs" "-L{target}/lib"
END
;; esac""")


@pytest.fixture(autouse=True)
def clean(monkeypatch, tmp_path):
    """No toolkit but those of the test, and no setting of CUDA; both come back afterwards."""
    for name in ("USE_CUDA", "FORCE_CUDA", "CUDA_HOME", "CUDA_PATH", "TORCH_CUDA_ARCH_LIST",
                 "PYTORCH_NVCC"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", f"{tmp_path / 'path'}{os.pathsep}/usr/bin{os.pathsep}/bin")
    monkeypatch.setattr(setup, "DEFAULT_HOME", tmp_path / "default")
    monkeypatch.setattr(cpp_extension, "CUDA_HOME", cpp_extension.CUDA_HOME)


def decide(tmp_path, torch_cuda="13.0", sources=SOURCES):
    return setup.decide_cuda(torch_cuda, sources, tmp_path / "site-packages")


def test_cuda_is_built_where_torch_and_nvcc_agree(monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "cuda"))
    nvcc = put_toolkit(tmp_path / "cuda", version="13.2")
    (toolkit, cudart, architectures), reason = decide(tmp_path)
    assert (toolkit.nvcc, toolkit.home, toolkit.version) == (nvcc, tmp_path / "cuda", "13.2")
    assert toolkit.headers == tmp_path / "cuda" / "include"
    assert cudart == tmp_path / "cuda" / "lib64" / "libcudart.so"
    assert architectures == "7.5;8.0;9.0+PTX"
    assert reason == (f"nvcc 13.2 of {tmp_path / 'cuda'} and torch's CUDA 13.0 agree; "
                      "architectures 7.5;8.0;9.0+PTX (every card from 7.5 on)")


@pytest.mark.parametrize("environ, torch_cuda, sources, why", [
    ({"USE_CUDA": "0"}, "13.0", SOURCES, "USE_CUDA=0"),
    ({}, None, SOURCES, "this torch was built without CUDA"),
    ({}, "13.0", [], "csrc/cuda holds no kernels"),
    ({}, "12.4", SOURCES, "is of CUDA 13.0 but torch has CUDA 12.4"),
    ({"TORCH_CUDA_ARCH_LIST": "7.0"}, "13.0", SOURCES, "not for all of TORCH_CUDA_ARCH_LIST=7.0"),
])
def test_obstacle_leaves_cuda_out_or_ends_the_build(monkeypatch, tmp_path, environ, torch_cuda,
                                                    sources, why):
    put_toolkit(tmp_path / "default")
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    cuda, reason = decide(tmp_path, torch_cuda, sources)
    assert cuda is None and why in reason
    monkeypatch.setenv("FORCE_CUDA", "1")
    with pytest.raises(SystemExit) as refusal:
        decide(tmp_path, torch_cuda, sources)
    message = str(refusal.value)
    assert message.startswith("setup.py: ") and "FORCE_CUDA=1" in message and why in message
    assert "\n" not in message


def _link(path, nvcc):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(nvcc)


def _script_of_script(path, nvcc):
    put_script(path, f'exec "{put_script(path.parent / "inner", _call(nvcc))}" "$@"')


def _call(nvcc):
    return f'exec "{nvcc}" "$@"'


@pytest.mark.parametrize("make", [
    _link,
    lambda path, nvcc: put_script(path, _call(nvcc)),
    lambda path, nvcc: _link(path, put_script(path.parents[1] / "etc" / "nvcc", _call(nvcc))),
    _script_of_script,
], ids=["link", "script", "link_to_script", "script_of_script"])
@pytest.mark.parametrize("folder", ["path", "local/bin"])
def test_nvcc_is_followed_to_its_toolkit(monkeypatch, tmp_path, make, folder):
    nvcc = put_toolkit(tmp_path / "cuda 13")
    place = tmp_path / folder / "nvcc"
    make(place, nvcc)
    if folder != "path":
        monkeypatch.setenv("CUDA_HOME", str(place.parents[1]))
    toolkit = setup.find_toolkit("13.0")
    assert toolkit.home == tmp_path / "cuda 13" and toolkit.nvcc == place
    assert toolkit.headers == tmp_path / "cuda 13" / "include"


def test_a_link_to_the_folder_of_nvcc_is_followed(monkeypatch, tmp_path):
    """TOP is then .../link/bin/.., which is the folder above the link's target."""
    nvcc = put_toolkit(tmp_path / "cuda")
    nvcc.write_text(nvcc.read_text().replace(f"TOP={tmp_path}/cuda", f"TOP={tmp_path}/local"))
    _link(tmp_path / "local" / "bin", tmp_path / "cuda" / "bin")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "local"))
    toolkit = setup.find_toolkit("13.0")
    assert toolkit.home == tmp_path / "cuda"
    assert toolkit.headers == tmp_path / "cuda" / "include"


@pytest.mark.parametrize("broken", [
    lambda home: None,
    lambda home: put_toolkit(home, headers=None),
    lambda home: put_toolkit(home, version="12.4"),
    lambda home: put_script(home / "bin" / "nvcc", "exec /no/such/nvcc"),
], ids=["absent", "no_headers", "other_major", "broken"])
def test_default_home_serves_where_the_path_holds_no_whole_toolkit(tmp_path, broken):
    put_toolkit(tmp_path / "default")
    broken(tmp_path / "other")
    if (tmp_path / "other").exists():
        _link(tmp_path / "path" / "nvcc", tmp_path / "other" / "bin" / "nvcc")
    assert setup.find_toolkit("13.0").home == tmp_path / "default"


def test_cuda_home_goes_before_cuda_path_and_the_path(monkeypatch, tmp_path):
    for name in ("home", "other", "default"):
        put_toolkit(tmp_path / name)
    put_toolkit(tmp_path, version="13.1")
    _link(tmp_path / "path" / "nvcc", tmp_path / "bin" / "nvcc")
    assert setup.find_toolkit().version == "13.1"
    monkeypatch.setenv("CUDA_PATH", str(tmp_path / "other"))
    assert setup.find_toolkit().home == tmp_path / "other"
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "home"))
    assert setup.find_toolkit().home == tmp_path / "home"


def _unreadable(home):
    put_toolkit(home).chmod(0o644)


@pytest.mark.parametrize("put, why", [
    (lambda home: None, "CUDA_HOME={home} holds no bin/nvcc"),
    (lambda home: put_toolkit(home).unlink(), "CUDA_HOME={home} holds no bin/nvcc"),
    (_unreadable, "{home}/bin/nvcc cannot be run"),
    (lambda home: put_script(home / "bin" / "nvcc", "exit 1"), "prints no release"),
    (lambda home: put_toolkit(home, headers=None),
     "the headers of {home}/bin/nvcc are missing (no cuda_runtime.h in "
     "{home}/targets/x86_64-linux/include, {home}/include)"),
    (lambda home: put_script(home / "bin" / "nvcc", "echo release 13.0"),
     "the headers of {home}/bin/nvcc are missing (no cuda_runtime.h in {home}/include)"),
], ids=["no_folder", "no_nvcc", "not_executable", "no_answer", "no_headers", "nvcc_alone"])
def test_wrong_cuda_home_names_the_ways_on(monkeypatch, tmp_path, put, why):
    home = tmp_path / "cuda"
    monkeypatch.setenv("CUDA_HOME", str(home))
    put_toolkit(tmp_path / "default")
    put(home)
    cuda, reason = decide(tmp_path)
    assert cuda is None and why.format(home=home) in reason
    assert "CUDA_HOME=/folder/of/toolkit" in reason and "USE_CUDA=0" in reason


def test_no_toolkit_names_the_ways_on(tmp_path):
    with pytest.raises(setup.Obstacle, match="no nvcc found on the PATH or in .*default: name a "
                                             "toolkit with CUDA_HOME=.*USE_CUDA=0"):
        setup.find_toolkit("13.0")


def test_headers_and_library_of_a_conda_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "env"))
    put_toolkit(tmp_path / "env", headers="targets/x86_64-linux/include",
                cudart="targets/x86_64-linux/lib/libcudart.so")
    toolkit, cudart, _ = decide(tmp_path)[0]
    assert toolkit.headers == tmp_path / "env" / "targets" / "x86_64-linux" / "include"
    assert cudart.parent == tmp_path / "env" / "targets" / "x86_64-linux" / "lib"


def test_headers_and_library_of_debians_package(monkeypatch, tmp_path):
    """nvcc is a script beside include/; the one that it calls names folders without quotes."""
    usr = tmp_path / "usr"
    inner = put_toolkit(usr / "lib" / "toolkit", headers=None, cudart=None)
    lines = [line for line in inner.read_text().splitlines(True) if "INCLUDES" not in line]
    inner.write_text("".join(lines).replace('"-L', "-L").replace('stubs"', "stubs").replace(
        f'{usr}/lib/toolkit/bin/../targets/x86_64-linux/lib"', f"{usr}/lib/x86_64-linux-gnu"))
    put_script(usr / "bin" / "nvcc", _call(inner))
    for name in ("include/cuda_runtime.h", "lib/x86_64-linux-gnu/libcudart.so"):
        (usr / name).parent.mkdir(parents=True, exist_ok=True)
        (usr / name).touch()
    monkeypatch.setenv("PATH", f"{usr / 'bin'}{os.pathsep}/usr/bin{os.pathsep}/bin")
    toolkit, cudart, _ = decide(tmp_path)[0]
    assert toolkit.headers == usr / "include"
    assert cudart == usr / "lib" / "x86_64-linux-gnu" / "libcudart.so"


@pytest.mark.parametrize("files, taken", [
    (["cuda/lib64/libcudart.so", "cuda/lib64/libcudart.so.13"], "cuda/lib64/libcudart.so"),
    (["cuda/lib/libcudart.so.13", "site-packages/nvidia/cu13/lib/libcudart.so.13"],
     "cuda/lib/libcudart.so.13"),
    (["site-packages/nvidia/cu13/lib/libcudart.so.13"],
     "site-packages/nvidia/cu13/lib/libcudart.so.13"),
    (["site-packages/nvidia/cuda_runtime/lib/libcudart.so.12"], None),
    (["cuda/lib64/libcudart_static.a"], None),
])
def test_cudart_is_the_toolkits_or_lies_beside_torch(tmp_path, files, taken):
    toolkit = setup.read_toolkit(put_toolkit(tmp_path / "cuda", cudart=None))
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    if taken:
        assert setup.find_cudart(toolkit, tmp_path / "site-packages") == tmp_path / taken
    else:
        with pytest.raises(setup.Obstacle, match="libcudart.so is neither in .*USE_CUDA=0"):
            setup.find_cudart(toolkit, tmp_path / "site-packages")


def _toolkit_for(known):
    return setup.Toolkit(Path("nvcc"), "13.0", Path("/cuda"), Path("/cuda/include"), (), known)


@pytest.mark.parametrize("known, architectures", [
    (KNOWN, "7.5;8.0;9.0+PTX"),
    (("5.0", "7.5", "8.0", "8.6"), "7.5;8.0+PTX"),
    (("8.0", "9.0", "14.0"), "8.0;9.0+PTX"),
    (("9.0",), "9.0+PTX"),
])
def test_architectures_are_those_that_nvcc_knows(known, architectures):
    assert setup.choose_architectures(_toolkit_for(known)) == architectures


@pytest.mark.parametrize("known", [("10.0", "12.1"), ()])
def test_architectures_rejects_an_nvcc_for_other_cards(known):
    with pytest.raises(setup.Obstacle, match="not for one of 7.5, 8.0, 9.0: name .*ARCH_LIST"):
        setup.choose_architectures(_toolkit_for(known))


@pytest.mark.parametrize("listed", ["9.0", "8.6+PTX", "8.0;9.0+PTX", "8.0 9.0", "9.0a", "12.1",
                                    "Hopper", "Ampere"])
def test_the_list_of_the_user_wins(monkeypatch, listed):
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", listed)
    assert setup.choose_architectures(_toolkit_for(KNOWN)) == listed


@pytest.mark.parametrize("listed, why", [
    ("7.0", "nvcc 13.0 compiles for 7.5, 8.0, 8.6, 8.9, 9.0, 10.0, 12.1, not for all of"),
    ("9.0;5.2+PTX", "not for all of TORCH_CUDA_ARCH_LIST"),
    ("Volta", "not for all of TORCH_CUDA_ARCH_LIST"),
    ("90", "torch finds no architectures in TORCH_CUDA_ARCH_LIST=90"),
    ("sm_90", "write numbers like 8.0;9.0[+]PTX, or unset it"),
    ("8.0,9.0", "torch finds no architectures"),
    ("hopper", "torch finds no architectures"),
    (" ", "torch finds no architectures"),
])
def test_architectures_rejects_a_list(monkeypatch, listed, why):
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", listed)
    with pytest.raises(setup.Obstacle, match=why):
        setup.choose_architectures(_toolkit_for(KNOWN))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_architectures_rejects_native_without_a_gpu(monkeypatch):
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "native")
    with pytest.raises(setup.Obstacle, match="TORCH_CUDA_ARCH_LIST=native on this machine"):
        setup.choose_architectures(_toolkit_for(KNOWN))


@pytest.mark.parametrize("torch_cuda", ["13.0", None])
def test_extension_has_kernels_where_torch_and_nvcc_agree(monkeypatch, tmp_path, capsys,
                                                          torch_cuda):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(torch.version, "cuda", torch_cuda)
    nvcc = put_toolkit(tmp_path / "cuda", headers="targets/x86_64-linux/include",
                       cudart="lib/libcudart.so.13")
    put_script(tmp_path / "path" / "nvcc", _call(nvcc))
    extension = setup.extension()
    cuda = {str(path.relative_to(ROOT)) for path in ROOT.glob("csrc/cuda/*.c[up]*")}
    assert "csrc/cuda/pool.cu" in cuda and "csrc/cuda/hosts_pool.cpp" in cuda
    assert cuda & set(extension.sources) == (cuda if torch_cuda else set())
    printed = capsys.readouterr().out
    if torch_cuda is None:
        assert "CUDA off: this torch was built without CUDA" in printed
        return
    assert "CUDA on: nvcc 13.0 of" in printed and printed.count("\n") == 1
    assert cpp_extension.CUDA_HOME == str(tmp_path / "cuda")
    assert os.environ["PYTORCH_NVCC"] == str(tmp_path / "path" / "nvcc")
    assert str(tmp_path / "cuda" / "targets" / "x86_64-linux" / "include") in extension.include_dirs
    assert extension.library_dirs[0] == str(tmp_path / "cuda" / "lib")
    assert ":libcudart.so.13" in extension.libraries and "cudart" not in extension.libraries
    flags = cpp_extension._get_cuda_arch_flags()
    assert [flag.split("=")[-1] for flag in flags] == ["sm_75", "sm_80", "compute_90", "sm_90"]
