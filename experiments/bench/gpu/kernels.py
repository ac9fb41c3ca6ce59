"""The kernels' tests on the GPU, shared out to four processes."""

import time
from collections.abc import Iterator

from . import pytests
from .part import Row, Setting


def work(setting: Setting) -> Iterator[Row]:
    ids = pytests.collect(setting, *pytests.DEVICE[setting.device])
    began = time.monotonic()
    count = 2 if setting.small else 4
    processes = [pytests.start(setting, ids[k::count]) for k in range(count)]
    failed = 0
    for k, process in enumerate(processes):
        counts, words = pytests.outcome(process)
        failed += bool(counts["exit code"])
        yield {"process": k, **counts, "seconds": round(time.monotonic() - began, 1)}
        for reason in pytests.reasons(words):
            yield {"process": k, "left out": reason}
    if failed:
        raise SystemExit(f"{failed} of {count} processes of pytest failed")
