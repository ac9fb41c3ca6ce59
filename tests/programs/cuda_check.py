"""Compiles every kernel for sm_80 and sm_90 and prints what each takes; checks the hosts' syntax.

Exit code 1 where something does not compile or a kernel spills registers. Without nvcc it says so.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from helpers.paths import ROOT
from torch.utils import cpp_extension

import setup

CUDA = ROOT / "csrc" / "cuda"
ARCHITECTURES = ("sm_80", "sm_90")
_USED = re.compile(r"Used (\d+) registers.*")


def _run(command):
    run = subprocess.run([str(part) for part in command], capture_output=True, text=True,
                         check=False)
    if run.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{run.stdout}{run.stderr}")
    return run.stdout + run.stderr


def resources(words):
    """[(kernel, registers, shared bytes, spilled bytes)] from what ptxas says with -v."""
    rows = []
    for part in words.split("Compiling entry function '")[1:]:
        registers = _USED.search(part)
        shared = re.search(r"(\d+) bytes smem", registers.group(0))
        spills = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", part)
        rows.append((part.split("'")[0], int(registers.group(1)),
                     int(shared.group(1)) if shared else 0,
                     int(spills.group(1)) + int(spills.group(2))))
    return rows


def _readable(names):
    """What c++filt makes of mangled names, without parameters and namespaces."""
    found = _run(["c++filt", *names]).splitlines()
    return [re.sub(r"\(anonymous namespace\)::|pspnet::cuda::|^void |\(.*", "",
                   name.replace("(anonymous namespace)::", "")) for name in found]


def main():
    try:
        toolkit = setup.find_toolkit()
    except setup.Obstacle as obstacle:
        print(f"the kernels were not compiled for a GPU: {obstacle}")
        return
    spilled = 0
    print(f"{'kernel':64} {'arch':6} {'registers':>9} {'shared':>6} {'spilled':>7}")
    with tempfile.TemporaryDirectory() as folder:
        for source in sorted(CUDA.glob("*.cu")):
            for architecture in ARCHITECTURES:
                rows = resources(_run([
                    toolkit.nvcc, *cpp_extension.COMMON_NVCC_FLAGS, "-O3", "-std=c++20",
                    "-fmad=false", f"-arch={architecture}", "-Xptxas", "-v", "-c", source, "-o",
                    Path(folder, "kernel.o")]))
                for name, row in zip(_readable([row[0] for row in rows]), rows):
                    spilled += row[3]
                    print(f"{name[:64]:64} {architecture:6} {row[1]:9} {row[2]:6} {row[3]:7}")
    include = [f"-I{path}" for path in (*cpp_extension.include_paths(), toolkit.headers)]
    for source in sorted(CUDA.glob("*.cpp")):
        # A torch without CUDA lacks a header that it generates; nothing here needs it.
        _run(["c++", "-fsyntax-only", "-std=c++20", "-DC10_CUDA_NO_CMAKE_CONFIGURE_FILE",
              *include, source])
        print(f"{source.relative_to(ROOT)}: syntax as torch's headers have it")
    if spilled:
        sys.exit("a kernel spills registers")


if __name__ == "__main__":
    main()
