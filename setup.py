"""Compiles the one extension, pspnet_repro._C, and prints what was decided about CUDA.

USE_CUDA=0 leaves CUDA out, FORCE_CUDA=1 insists on it; otherwise it is built when torch was built
for CUDA and an nvcc of the same major version is found. PSPNET_MARCH names the processor to
compile for (default: native, the one that compiles).
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent


def nvcc_version(cuda_home):
    """Version of nvcc in cuda_home or on the PATH as "13.0", or None."""
    nvcc = Path(cuda_home, "bin", "nvcc") if cuda_home else shutil.which("nvcc")
    if not nvcc or not Path(nvcc).exists():
        return None
    said = subprocess.run([str(nvcc), "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"release (\d+\.\d+)", said.stdout)
    return found.group(1) if found else None


def decide_cuda(environ, torch_cuda, nvcc, sources):
    """Whether to build CUDA, and why; SystemExit where FORCE_CUDA=1 cannot be met.

    Args:
        environ: mapping with USE_CUDA and FORCE_CUDA.
        torch_cuda: torch.version.cuda, None for a CPU build of torch.
        nvcc: version of nvcc or None.
        sources: the CUDA sources of csrc/cuda.
    """
    force = environ.get("FORCE_CUDA") == "1"
    if environ.get("USE_CUDA") == "0":
        if force:
            raise SystemExit("setup.py: USE_CUDA=0 and FORCE_CUDA=1 exclude each other")
        return False, "USE_CUDA=0"
    if torch_cuda is None:
        obstacle = "this torch was built without CUDA"
    elif nvcc is None:
        obstacle = f"no nvcc found (torch has CUDA {torch_cuda})"
    elif nvcc.split(".")[0] != torch_cuda.split(".")[0]:
        obstacle = f"nvcc is {nvcc} but torch has CUDA {torch_cuda}"
    elif not sources:
        obstacle = "csrc/cuda holds no kernels"
    else:
        return True, f"nvcc {nvcc} and torch's CUDA {torch_cuda} agree"
    if force:
        raise SystemExit(f"setup.py: FORCE_CUDA=1, but {obstacle}")
    return False, obstacle


def extension():
    import torch
    from torch.utils import cpp_extension

    cuda_sources = sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("csrc/cuda/*.c[up]*"))
    nvcc = nvcc_version(cpp_extension.CUDA_HOME)
    cuda, reason = decide_cuda(os.environ, torch.version.cuda, nvcc, cuda_sources)
    march = os.environ.get("PSPNET_MARCH", "native")
    print(f"setup.py: torch {torch.__version__}, CUDA {'on' if cuda else 'off'}: {reason}; "
          f"-march={march}")
    sys.stdout.flush()

    sources = ["csrc/library.cpp"] + sorted(
        str(p.relative_to(ROOT)) for p in ROOT.glob("csrc/cpu/*.cpp"))
    # Without contraction a sum of products keeps the original's bits; without OpenMP torch's
    # parallel_for, a header, compiles to one thread.
    compile_args = {"cxx": ["-O3", "-std=c++20", f"-march={march}", "-ffp-contract=off",
                            "-fopenmp", "-Wall", "-Wno-psabi"],
                    "nvcc": ["-O3", "-std=c++20", "-fmad=false"]}
    kind = cpp_extension.CUDAExtension if cuda else cpp_extension.CppExtension
    return kind("pspnet_repro._C", sources + (cuda_sources if cuda else []),
                extra_compile_args=compile_args, extra_link_args=["-fopenmp"])


if __name__ == "__main__":
    from setuptools import setup
    from torch.utils.cpp_extension import BuildExtension

    setup(ext_modules=[extension()],
          cmdclass={"build_ext": BuildExtension.with_options(use_ninja=True,
                                                             no_python_abi_suffix=True)})
