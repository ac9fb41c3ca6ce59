"""Builds csrc/cuda for the CPU, plain and with sanitizers, as libraries that torch loads."""

import subprocess
import sys
from pathlib import Path

import torch
from helpers.paths import ROOT
from torch.utils import cpp_extension

CUDA = ROOT / "csrc" / "cuda"
HERE = Path(__file__).parent
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined",
            "-fno-omit-frame-pointer", "-g1"]


def ninja_file():
    """Text of a build.ninja: hosts once, kernels plain and with sanitizers."""
    headers = [f"-isystem {path}" for path in cpp_extension.include_paths()]
    common = ["-std=c++20", "-O1", "-fPIC", "-ffp-contract=off", "-Wall", "-Wno-unknown-pragmas",
              "-DPSPNET_CUDA_ON_CPU", "-DPSPNET_LIBRARY=pspnet_cuda_on_cpu", f"-I{HERE}",
              f"-I{CUDA}", *headers]
    torch_libraries = Path(torch.__file__).parent / "lib"
    lines = [
        f"flags = {' '.join(common)}", "sanitize =",
        "rule compile",
        "  command = c++ $flags $sanitize -MMD -MF $out.d -x c++ -c $in -o $out",
        "  depfile = $out.d", "  deps = gcc",
        "rule link",
        f"  command = c++ -shared $sanitize $in -L{torch_libraries} -ltorch_cpu -lc10 "
        f"-Wl,-rpath,{torch_libraries} -o $out"]

    def objects(sources, folder, sanitize):
        names = []
        for source in sources:
            names.append(f"{folder}/{source.name}.o")
            lines.append(f"build {names[-1]}: compile {source}")
            if sanitize:
                lines.append(f"  sanitize = {' '.join(SANITIZE)}")
        return names

    kernels = [*sorted(CUDA.glob("*.cu")), *sorted(HERE.glob("*.cpp"))]
    hosts = objects([ROOT / "csrc" / "library.cpp", *sorted(CUDA.glob("*.cpp"))], "hosts", False)
    for name, sanitize in (("plain", False), ("sanitized", True)):
        parts = hosts + objects(kernels, name, sanitize)
        lines.append(f"build {name}.so: link {' '.join(parts)}")
        if sanitize:
            lines.append(f"  sanitize = {' '.join(SANITIZE)}")
    return "\n".join(lines) + "\n"


def build(out, sanitize=False):
    """Path of the library in folder `out`, made anew where sources changed.

    Raises:
        RuntimeError: the compiler's words.
    """
    out.mkdir(parents=True, exist_ok=True)
    text = ninja_file()
    path = out / "build.ninja"
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")
    library = "sanitized.so" if sanitize else "plain.so"
    ninja = [sys.executable, "-m", "ninja", "-C", str(out), "-j", "2", "--quiet", library]
    run = subprocess.run(ninja, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        raise RuntimeError(f"the kernels did not compile for the CPU:\n{run.stdout}{run.stderr}")
    return out / library
