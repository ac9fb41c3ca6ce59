"""Builds csrc/cuda for the CPU, plain and with sanitizers, as libraries that torch loads.

python tests/cuda_on_cpu/build.py OUT [--sanitize]
"""

import subprocess
import sys
from pathlib import Path

import torch
from torch.utils import cpp_extension

ROOT = Path(__file__).parents[2]
CUDA = ROOT / "csrc" / "cuda"
HERE = Path(__file__).parent
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined",
            "-fno-omit-frame-pointer", "-g1"]


def ninja_file(sanitize):
    """Text of a build.ninja: hosts as they are, kernels with sanitizers where asked."""
    headers = [f"-isystem {path}" for path in cpp_extension.include_paths()]
    common = ["-std=c++20", "-fPIC", "-ffp-contract=off", "-Wall", "-Wno-unknown-pragmas",
              "-DPSPNET_CUDA_ON_CPU", "-DPSPNET_LIBRARY=pspnet_cuda_on_cpu", f"-I{HERE}",
              f"-I{CUDA}", *headers]
    kernel = SANITIZE if sanitize else []
    library = Path(torch.__file__).parent / "lib"
    lines = [
        f"flags = {' '.join(common)}",
        "rule host", "  command = c++ $flags -O1 -MMD -MF $out.d -c $in -o $out",
        "  depfile = $out.d", "  deps = gcc",
        "rule kernel",
        f"  command = c++ $flags -O1 {' '.join(kernel)} -MMD -MF $out.d -x c++ -c $in -o $out",
        "  depfile = $out.d", "  deps = gcc",
        "rule link",
        f"  command = c++ -shared {' '.join(kernel)} $in -L{library} -ltorch_cpu -lc10 "
        f"-Wl,-rpath,{library} -o $out"]
    objects = []
    for rule, sources in (("host", [ROOT / "csrc" / "library.cpp", *sorted(CUDA.glob("*.cpp"))]),
                          ("kernel", [*sorted(CUDA.glob("*.cu")), *sorted(HERE.glob("*.cpp"))])):
        for source in sources:
            lines.append(f"build {source.name}.o: {rule} {source}")
            objects.append(f"{source.name}.o")
    lines.append(f"build cuda_on_cpu.so: link {' '.join(objects)}")
    return "\n".join(lines) + "\n"


def build(out, sanitize=False):
    """Path of the library in folder `out`, made anew where sources changed."""
    out.mkdir(parents=True, exist_ok=True)
    text = ninja_file(sanitize)
    path = out / "build.ninja"
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")
    ninja = [sys.executable, "-m", "ninja", "-C", str(out), "-j", "2", "--quiet"]
    run = subprocess.run(ninja, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        raise RuntimeError(f"the kernels did not compile for the CPU:\n{run.stdout}{run.stderr}")
    return out / "cuda_on_cpu.so"


if __name__ == "__main__":
    print(build(Path(sys.argv[1]), "--sanitize" in sys.argv[2:]))
