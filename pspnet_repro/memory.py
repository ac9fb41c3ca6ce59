"""How much memory this process held."""

import resource
import sys
from pathlib import Path


def peak_bytes():
    """Most bytes that this program held at once.

    On Linux from the process's own high-water mark: getrusage's starts at what the parent held.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
