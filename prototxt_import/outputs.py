"""The files that a command writes must not be those that it reads."""

import os

from pspnet_repro.errors import UsageError


def check_outputs(outputs, inputs):
    """UsageError for an output without a name, that is an input, or that is given twice.

    Args:
        outputs, inputs: paths; links and hard links of one file are the same file.
    """
    taken = [(path, "is also read") for path in inputs]
    for path in outputs:
        if not path.name:
            raise UsageError(f"--output must name a file, got {str(path)!r}")
        for other, why in taken:
            if _same(path, other):
                raise UsageError(f"--output {path} {why}: outputs must have different names, and "
                                 "none of an input")
        taken.append((path, "is written twice"))


def _same(path, other):
    if os.path.exists(path) and os.path.exists(other):
        return os.path.samefile(path, other)
    return os.path.realpath(path) == os.path.realpath(other)
