"""Compiles the one extension, pspnet_repro._C, and prints what was decided about CUDA.

USE_CUDA=0 leaves CUDA out, FORCE_CUDA=1 insists on it; otherwise it is built when torch was built
for CUDA and a toolkit of the same major version is found: the one that CUDA_HOME names, else that
of the nvcc on the PATH, else /usr/local/cuda. No GPU is needed. TORCH_CUDA_ARCH_LIST names the
architectures to compile for (default: ARCHITECTURES). PSPNET_MARCH names the processor to compile
for; default: x86-64-v3, which all x86 processors with AVX2 run, elsewhere the compiler's own.
"""

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

ROOT = Path(__file__).parent
DEFAULT_HOME = Path("/usr/local/cuda")
# Code for 8.0 runs on 8.6 and 8.9 too; a card newer than the last compiles its PTX at first use.
ARCHITECTURES = ("7.5", "8.0", "9.0")
# Commands of setuptools that compile, or after which pip fetches what the package requires.
NEED_TORCH = {"bdist_wheel", "build", "build_ext", "develop", "dist_info", "editable_wheel",
              "install"}
WAYS_ON = "name a toolkit with CUDA_HOME=/folder/of/toolkit, or leave CUDA out with USE_CUDA=0"


class Obstacle(Exception):
    """Why CUDA cannot be built here, and the way on."""


class Toolkit(NamedTuple):
    """A CUDA toolkit, as its nvcc describes it."""

    nvcc: Path
    version: str  # "13.0"
    home: Path  # holds bin/nvcc
    headers: Path  # holds cuda_runtime.h
    libraries: tuple[Path, ...]  # folders that may hold libcudart
    architectures: tuple[str, ...]  # all that nvcc compiles for: "7.5", "10.3"


def ask(nvcc: Path, *arguments: str) -> str:
    """What nvcc prints on both channels, whatever its exit code."""
    try:
        run = subprocess.run([str(nvcc), *arguments], capture_output=True, text=True,
                             errors="replace", check=False)
    except OSError as error:
        raise Obstacle(f"{nvcc} cannot be run ({error.strerror}): {WAYS_ON}") from error
    return run.stdout + run.stderr


def read_toolkit(nvcc: Path) -> Toolkit:
    """The Toolkit of an nvcc, which may be a link, or a script that calls another nvcc; Obstacle
    where it does not work, or its headers are missing."""
    nvcc = Path(os.path.abspath(nvcc))
    version = re.search(r"release (\d+\.\d+)", ask(nvcc, "--version"))
    if version is None:
        raise Obstacle(f"`{nvcc} --version` prints no release: {WAYS_ON}")
    # A script's folder tells nothing; the nvcc that it calls names its own folders in a dry run.
    plan = ask(nvcc, "--dryrun", "-x", "cu", "-c", "/dev/null", "-o", "/dev/null")
    named = dict(re.findall(r"^#\$ (TOP|INCLUDES|LIBRARIES)=(.*)$", plan, re.MULTILINE))
    homes = _folders([named.get("TOP", nvcc.parent.parent), nvcc.resolve().parent.parent,
                      nvcc.parent.parent])
    homes = [home for home in homes if (home / "bin" / "nvcc").exists()]
    includes = _folders([*_values("-I", named.get("INCLUDES", "")),
                         *(home / "include" for home in homes)])
    headers = [folder for folder in includes if (folder / "cuda_runtime.h").is_file()]
    if not homes or not headers:
        raise Obstacle(f"the headers of {nvcc} are missing (no cuda_runtime.h in "
                       f"{', '.join(map(str, includes)) or nvcc.parent}): {WAYS_ON}")
    libraries = _folders([*_values("-L", named.get("LIBRARIES", "")),
                          *(home / name for home in homes for name in ("lib64", "lib"))])
    known = re.findall(r"compute_(\d+)(\d)\b", ask(nvcc, "--list-gpu-arch"))
    return Toolkit(nvcc, version.group(1), homes[0], headers[0], tuple(libraries),
                   tuple(f"{major}.{minor}" for major, minor in known))


def _folders(paths):
    """Paths without links and dots, each once."""
    return list(dict.fromkeys(Path(path).resolve() for path in paths))


def _values(flag, words):
    """The values of one flag, quoted or not, in a line for the shell."""
    return [quoted or bare for quoted, bare in re.findall(rf'"{flag}([^"]+)"|{flag}(\S+)', words)]


def find_toolkit(torch_cuda: str | None = None) -> Toolkit:
    """The Toolkit to compile with.

    Args:
        torch_cuda: torch.version.cuda; None takes a toolkit of any version.
    Raises:
        Obstacle: no place holds a whole toolkit of torch's major version; says why the first does.
    """
    variable = next((name for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)), None)
    if variable:
        places = [Path(os.environ[variable], "bin", "nvcc")]
        missing = f"{variable}={os.environ[variable]} holds no bin/nvcc"
    else:
        places = [Path(shutil.which("nvcc") or ""), DEFAULT_HOME / "bin" / "nvcc"]
        missing = f"no nvcc found on the PATH or in {DEFAULT_HOME}"
    obstacles = []
    for nvcc in filter(Path.is_file, places):
        try:
            toolkit = read_toolkit(nvcc)
            if torch_cuda and toolkit.version.split(".")[0] != torch_cuda.split(".")[0]:
                raise Obstacle(f"{nvcc} is of CUDA {toolkit.version} but torch has CUDA "
                               f"{torch_cuda}: {WAYS_ON}")
            return toolkit
        except Obstacle as obstacle:
            obstacles.append(obstacle)
    raise obstacles[0] if obstacles else Obstacle(f"{missing}: {WAYS_ON}")


def find_cudart(toolkit: Toolkit, packages: Path) -> Path:
    """The file of CUDA's runtime library to link with: the toolkit's, else the one beside torch.

    `packages` is the folder that torch's package lies in, and those packages of pip's that hold the
    library without the name that a linker looks for. Obstacle where there is none.
    """
    major = toolkit.version.split(".")[0]
    for folder in (*toolkit.libraries, *sorted(Path(packages).glob("nvidia/*/lib"))):
        for name in ("libcudart.so", f"libcudart.so.{major}*"):
            if paths := sorted(folder.glob(name)):
                return paths[0]
    raise Obstacle(f"libcudart.so is neither in {', '.join(map(str, toolkit.libraries))} nor "
                   f"beside torch: {WAYS_ON}")


def choose_architectures(toolkit: Toolkit) -> str:
    """TORCH_CUDA_ARCH_LIST where set, else what nvcc knows of ARCHITECTURES, with the last's PTX;
    Obstacle where torch cannot read the list, or nvcc cannot compile for it."""
    from torch.utils import cpp_extension

    can = f"nvcc {toolkit.version} compiles for {', '.join(toolkit.architectures) or 'nothing'}"
    listed = os.environ.get("TORCH_CUDA_ARCH_LIST")
    if not listed:
        chosen = [name for name in ARCHITECTURES if name in toolkit.architectures]
        if not chosen:
            raise Obstacle(f"{can}, not for one of {', '.join(ARCHITECTURES)}: name others with "
                           "TORCH_CUDA_ARCH_LIST, or leave CUDA out with USE_CUDA=0")
        return ";".join(chosen) + "+PTX"
    try:
        flags = " ".join(cpp_extension._get_cuda_arch_flags())
    except (ValueError, IndexError) as error:  # the latter for "native" without a GPU
        raise Obstacle(f"torch finds no architectures in TORCH_CUDA_ARCH_LIST={listed} on this "
                       "machine: write numbers like 8.0;9.0+PTX, or unset it") from error
    named = {f"{major}.{minor}" for major, minor in re.findall(r"arch=compute_(\d+)(\d)", flags)}
    if not named <= set(toolkit.architectures):
        raise Obstacle(f"{can}, not for all of TORCH_CUDA_ARCH_LIST={listed}: change or unset it")
    return listed


def decide_cuda(torch_cuda: str | None, sources: Sequence[str],
                packages: Path) -> tuple[tuple[Toolkit, Path, str] | None, str]:
    """(toolkit, libcudart, architectures) or None, and why; SystemExit with FORCE_CUDA=1.

    Args:
        torch_cuda: torch.version.cuda, None for a CPU build of torch.
        sources: the CUDA sources of csrc/cuda.
        packages: the folder that torch's package lies in.
    """
    force = os.environ.get("FORCE_CUDA") == "1"
    if os.environ.get("USE_CUDA") == "0":
        if force:
            raise SystemExit("setup.py: USE_CUDA=0 and FORCE_CUDA=1 exclude each other")
        return None, "USE_CUDA=0"
    try:
        if torch_cuda is None:
            raise Obstacle("this torch was built without CUDA")
        if not sources:
            raise Obstacle("csrc/cuda holds no kernels")
        toolkit = find_toolkit(torch_cuda)
        cudart = find_cudart(toolkit, packages)
        architectures = choose_architectures(toolkit)
    except Obstacle as obstacle:
        if force:
            raise SystemExit(f"setup.py: FORCE_CUDA=1, but {obstacle}") from obstacle
        return None, str(obstacle)
    source = ("TORCH_CUDA_ARCH_LIST" if os.environ.get("TORCH_CUDA_ARCH_LIST")
              else f"every card from {architectures[:3]} on")
    return (toolkit, cudart, architectures), (
        f"nvcc {toolkit.version} of {toolkit.home} and torch's CUDA {torch_cuda} agree; "
        f"architectures {architectures} ({source})")


def import_torch() -> ModuleType:
    """The torch of the environment that this is built for; SystemExit where there is none.

    pip hides the environment's packages from a build, but compiled for another torch than the
    installed one the extension could not be loaded.
    """
    import site

    sys.path += [folder for folder in site.getsitepackages() if folder not in sys.path]
    remedy = "install torch first, then run `pip install .` again with the same Python"
    try:
        import torch
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise SystemExit(f"setup.py: torch is not installed in {sys.prefix}, and the extension is "
                         f"compiled against the installed one: {remedy} (other tools than pip: "
                         "build without isolation)") from error
    requirements = (ROOT / "requirements.txt").read_text()
    oldest = re.search(r"^torch>=([\d.]+)", requirements, re.MULTILINE)[1]
    if [*map(int, torch.__version__.split(".")[:2])] < [*map(int, oldest.split("."))]:
        raise SystemExit(f"setup.py: torch must be {oldest} or newer, got {torch.__version__} in "
                         f"{sys.prefix}: {remedy}")
    return torch


def shared_cxx_library(compiler: str) -> list[str]:
    """Link arguments that make the extension use the C++ library that torch uses.

    Some toolchains link a copy of their own (-static-libstdc++): it formats no number, or crashes,
    because the state of streams is that of the library that was loaded first.
    """
    path = subprocess.run([compiler, "-print-file-name=libstdc++.so.6"], capture_output=True,
                          text=True, check=True).stdout.strip()
    return [path] if os.path.isabs(path) else []


def extension() -> Any:
    """The setuptools.Extension to compile, with CUDA where `decide_cuda` says so."""
    torch = import_torch()
    from torch.utils import cpp_extension

    cuda_sources = sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("csrc/cuda/*.c[up]*"))
    cuda, reason = decide_cuda(torch.version.cuda, cuda_sources, Path(torch.__file__).parents[1])
    march = os.environ.get("PSPNET_MARCH") or (
        "x86-64-v3" if platform.machine() == "x86_64" else "")
    print(f"setup.py: torch {torch.__version__}, CUDA {'on' if cuda else 'off'}: {reason}; "
          f"{f'-march={march}' if march else 'no -march'}")
    sys.stdout.flush()

    sources = sorted(str(p.relative_to(ROOT)) for folder in ("csrc", "csrc/cpu")
                     for p in ROOT.glob(f"{folder}/*.cpp"))
    # Without contraction a sum of products keeps the original's bits; without OpenMP torch's
    # parallel_for, a header, compiles to one thread.
    compile_args = {"cxx": ["-O3", "-std=c++20", *([f"-march={march}"] if march else []),
                            "-ffp-contract=off", "-fopenmp", "-Wall", "-Wno-psabi"],
                    "nvcc": ["-O3", "-std=c++20", "-fmad=false"]}
    link_args = ["-fopenmp", *shared_cxx_library(cpp_extension.get_cxx_compiler())]
    options = {"extra_compile_args": compile_args, "extra_link_args": link_args}
    if cuda is None:
        return cpp_extension.CppExtension("pspnet_repro._C", sources, **options)
    toolkit, cudart, architectures = cuda
    # Torch takes the folder above the one that holds nvcc, which is no toolkit's for a script.
    cpp_extension.CUDA_HOME = str(toolkit.home)
    os.environ.setdefault("PYTORCH_NVCC", str(toolkit.nvcc))
    os.environ["TORCH_CUDA_ARCH_LIST"] = architectures
    built = cpp_extension.CUDAExtension(
        "pspnet_repro._C", sources + cuda_sources, library_dirs=[str(cudart.parent)], **options)
    built.include_dirs.append(str(toolkit.headers))
    # The linker takes the name behind a colon as it is.
    built.libraries = [f":{cudart.name}" if name == "cudart" else name for name in built.libraries]
    return built


if __name__ == "__main__":
    from setuptools import find_packages, setup

    packages = find_packages(ROOT, include=["pspnet_repro*", "prototxt_import*"])
    harness = find_packages(ROOT, include=["experiments*"])
    compiled = {}
    if NEED_TORCH & set(sys.argv):
        compiled["ext_modules"] = [extension()]
        from torch.utils.cpp_extension import BuildExtension
        compiled["cmdclass"] = {"build_ext": BuildExtension.with_options(
            use_ninja=True, no_python_abi_suffix=True)}
    # Before release 77 setuptools refuses a licence's name in pyproject.toml.
    setup(license="MIT", packages=packages + [f"pspnet_repro.{name}" for name in harness],
          package_dir={"pspnet_repro.experiments": "experiments"}, **compiled)
