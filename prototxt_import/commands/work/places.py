"""Caffemodels that stand in a prototxt's place."""

import contextlib
from pathlib import Path

from pspnet_repro.errors import UsageError
from pspnet_repro.files import refuse_pipe
from pspnet_repro.weights import recognize


def check_places(command: str, prototxt: Path, caffemodel: Path | None) -> None:
    """Raise UsageError where a caffemodel is named before its prototxt, or without one."""
    if not _is_caffemodel(prototxt):
        return
    if caffemodel is None:
        raise UsageError(f"{prototxt}: {command} takes a prototxt, and this is a caffemodel: "
                         f"pspnet {command} NET.prototxt {prototxt}")
    raise UsageError(f"{prototxt}: this is a caffemodel, put the prototxt first: pspnet {command} "
                     + ("NET.prototxt" if _is_caffemodel(caffemodel) else str(caffemodel))
                     + f" {prototxt}")


def _is_caffemodel(path):
    refuse_pipe(path)
    with contextlib.suppress(OSError):  # whoever reads it says why
        return recognize.kind_at(path) in recognize.CAFFEMODELS
    return False
