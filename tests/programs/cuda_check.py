"""Compiles every kernel for sm_80 and sm_90 and prints what each takes; checks the hosts' syntax.

Also prints the widest load and store of global memory, in bytes, as PTX has them, and as machine
code has them where cuobjdump lies beside nvcc or on the PATH. Exit code 1 where something does not
compile, a kernel spills registers, or one of WHOLE does not move 16 bytes at once. Without nvcc it
says so.
"""

import itertools
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from helpers.paths import ROOT
from torch.utils import cpp_extension

import setup

CUDA = ROOT / "csrc" / "cuda"
ARCHITECTURES = ("sm_80", "sm_90")
PACK = 16  # bytes
# What each kernel moves in whole packs, where its number of elements a pack makes 16 bytes.
WHOLE = {
    ("batch_norm", "statistics_kernel"): "load", ("batch_norm", "reduce_kernel"): "load",
    ("batch_norm", "normalize_kernel"): "load store",
    ("batch_norm", "elementwise_kernel"): "load store",
    ("sgd", "sgd_kernel"): "load store",
    ("interp", "plane_forward_kernel"): "store", ("interp", "pixel_forward_kernel"): "load store",
    ("interp", "pixel_backward_kernel"): "load store",
    ("pool", "forward_kernel"): "load store", ("pool", "max_backward_kernel"): "load store",
    ("pool", "avg_backward_kernel"): "load store",
    ("pool_pyramid", "plane_cells_kernel"): "load",
    ("pool_pyramid", "pixel_cells_kernel"): "load store",
    ("pool_pyramid_backward", "plane_backward_kernel"): "store",
    ("pool_pyramid_backward", "pixel_backward_kernel"): "load store",
}
_SIZES = {"float": 4, "double": 8, "__half": 2, "__nv_bfloat16": 2}
_USED = re.compile(r"Used (\d+) registers.*")
_PTX = re.compile(r"\b(ld|st)\.global\S*?(?:\.v(\d))?\.[a-z]+(\d+)\s")
_MACHINE = re.compile(r"\b(LD|ST)G\.(\S+)")


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


def ptx_widths(text):
    """{mangled kernel: {"load": bytes, "store": bytes}}, the widest of each, from PTX."""
    widths = {}
    for part in text.split(".entry ")[1:]:
        widest = widths[re.match(r"\w+", part)[0]] = {"load": 0, "store": 0}
        for kind, values, bits in _PTX.findall(part):
            what = {"ld": "load", "st": "store"}[kind]
            widest[what] = max(widest[what], int(values or 1) * int(bits) // 8)
    return widths


def machine_widths(text):
    """The same from what cuobjdump -sass prints."""
    widths = {}
    for part in text.split("Function : ")[1:]:
        widest = widths[part.split()[0]] = {"load": 0, "store": 0}
        for kind, modifiers in _MACHINE.findall(part):
            what = {"LD": "load", "ST": "store"}[kind]
            sizes = [{"U8": 1, "S8": 1, "U16": 2, "S16": 2}.get(name) or int(name) // 8
                     for name in modifiers.split(".")
                     if re.fullmatch(r"[US](8|16)|64|128|256", name)]
            widest[what] = max([widest[what], *(sizes or [4])])
    return widths


def narrow(stem, kernel, widths):
    """What is too narrow of a kernel "name<float, 4, ...>" of file `stem`: list of words."""
    name, *arguments = re.split(r"[<,>] ?", kernel)
    if (stem, name) not in WHOLE:
        packed = len(arguments) > 1 and arguments[1].isdigit() and int(arguments[1]) > 1
        return ["a pack that WHOLE does not know"] if packed else []
    if arguments[1].isdigit() and int(arguments[1]) * _SIZES[arguments[0]] != PACK:
        return []
    return [f"{what} of {widths[what]} bytes" for what in WHOLE[stem, name].split()
            if widths[what] < PACK]


def _readable(names):
    """What c++filt makes of mangled names, without parameters and namespaces."""
    lines = _run(["c++filt", *names]).splitlines()
    return [re.sub(r"pspnet::cuda::|^void |\(.*", "",
                   line.replace("(anonymous namespace)::", "").replace("unsigned int", "uint32"))
            for line in lines]


def _measure(toolkit, source, architecture, folder):
    """(registers and so on of each kernel, widths in PTX, widths in machine code or None)."""
    words = _run([toolkit.nvcc, *cpp_extension.COMMON_NVCC_FLAGS, "-O3", "-std=c++20",
                  "-fmad=false", f"-arch={architecture}", "-Xptxas", "-v", "-cubin", "--keep",
                  "--keep-dir", folder, source, "-o", folder / "kernel.cubin"])
    reader = toolkit.home / "bin" / "cuobjdump"
    reader = reader if reader.is_file() else shutil.which("cuobjdump")
    machine = reader and machine_widths(_run([reader, "-sass", folder / "kernel.cubin"]))
    return (resources(words), ptx_widths((folder / f"{source.stem}.ptx").read_text()), machine)


def main():
    try:
        toolkit = setup.find_toolkit()
    except setup.Obstacle as obstacle:
        print(f"the kernels were not compiled for a GPU: {obstacle}")
        return
    faults = []
    print(f"{'kernel':52} {'arch':6} {'registers':>9} {'shared':>6} {'spilled':>7} "
          f"{'load':>4} {'store':>5}  as machine code")

    def measured(work):
        source, architecture = work
        with tempfile.TemporaryDirectory() as folder:
            return source, architecture, _measure(toolkit, source, architecture, Path(folder))

    kinds = list(itertools.product(sorted(CUDA.glob("*.cu")), ARCHITECTURES))
    with ThreadPoolExecutor(2) as pool:  # each waits for a compiler
        for source, architecture, (rows, ptx, machine) in pool.map(measured, kinds):
            for name, row in zip(_readable([row[0] for row in rows]), rows, strict=True):
                seen = [ptx[row[0]]] + ([machine[row[0]]] if machine else [])
                print(f"{name[:52]:52} {architecture:6} {row[1]:9} {row[2]:6} {row[3]:7} "
                      + "  ".join(f"{w['load']:4} {w['store']:5}" for w in seen))
                where = f"{source.name}: {name} for {architecture}"
                faults += [f"{where} spills {row[3]} bytes"] if row[3] else []
                faults += [f"{where}: {fault}" for widths in seen
                           for fault in narrow(source.stem, name, widths)]
    include = [f"-I{path}" for path in (*cpp_extension.include_paths(), toolkit.headers)]
    for source in sorted(CUDA.glob("*.cpp")):
        # A torch without CUDA lacks a header that it generates; nothing here needs it.
        _run(["c++", "-fsyntax-only", "-std=c++20", "-DC10_CUDA_NO_CMAKE_CONFIGURE_FILE",
              *include, source])
        print(f"{source.relative_to(ROOT)}: syntax as torch's headers have it")
    if faults:
        sys.exit("\n".join(faults))


if __name__ == "__main__":
    main()
