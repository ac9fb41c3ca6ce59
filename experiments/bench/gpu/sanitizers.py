"""One test of each kernel under compute-sanitizer: out of bounds, and races in shared memory.

Torch's caching of memory would hide what lies outside a tensor; it is switched off.
"""

import re
from collections.abc import Iterator

from . import pytests
from .part import Row, Setting

TOOLS = ("memcheck", "racecheck")


def one_each(ids: list[str]) -> list[str]:
    """Of each test function the first of every memory format, in float32 where it has a dtype."""
    chosen: dict[tuple, str] = {}
    for name in ids:
        function = name.partition("[")[0]
        memory_format = re.search(r"torch\.(contiguous_format|channels_last)", name)
        if "torch.float32" in name or "torch.float" not in name and "bfloat16" not in name:
            chosen.setdefault((function, memory_format and memory_format[1]), name)
    return list(chosen.values())


def work(setting: Setting) -> Iterator[Row]:
    ids = one_each(pytests.collect(setting))
    processes = {}
    for tool in TOOLS:
        before = ("compute-sanitizer", "--tool", tool, "--error-exitcode", "1")
        processes[tool] = pytests.start(setting, ids[:4] if setting.small else ids,
                                        () if setting.small else before,
                                        PYTORCH_NO_CUDA_MEMORY_CACHING="1")
    failed = []
    for tool, process in processes.items():
        counts, _ = pytests.outcome(process)
        failed += [tool] if counts["exit code"] else []
        yield {"tool": tool if setting.device == "cuda" else f"no {tool} on the CPU", **counts}
    if failed:
        raise SystemExit(f"{' and '.join(failed)} found errors, or a test failed")
