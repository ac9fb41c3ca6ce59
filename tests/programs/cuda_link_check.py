"""Imports the extension and checks that it holds the kernels for CUDA; needs no GPU.

Exit code 1 where an operator lacks its kernel. make cuda-link-check runs it on a build of its own.
"""

import sys
from pathlib import Path

import torch

from pspnet_repro import ops

# They reproduce or replace the arithmetic of a CPU; csrc/README.md says why.
CPU_ONLY = ("original_", "winograd_")


def main():
    names = sorted(name for name in torch._C._dispatch_get_all_op_names()
                   if name.startswith("pspnet::"))
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    kernels = [name for name in names if has(name, "CUDA")]
    wanted = [name for name in names if not name.split("::")[1].startswith(CPU_ONLY)]
    print(f"torch {torch.__version__}, {Path(ops.__file__).parent}: "
          f"{len(names)} operators, {len(kernels)} with kernels for CUDA")
    if not wanted or kernels != wanted:
        sys.exit(f"kernels for CUDA are missing or unexpected: {set(wanted) ^ set(kernels)}; "
                 "make cuda-link-check builds with them")


if __name__ == "__main__":
    main()
