"""Caffemodels that stand in a prototxt's place."""

from pathlib import Path

from prototxt_import.conversion.written_net import is_caffemodel
from pspnet_repro.errors import UsageError
from pspnet_repro.weights.recognize import CAFFEMODELS


def check_places(command: str, prototxt: Path, caffemodel: Path | None) -> None:
    """Raise UsageError where a caffemodel is named before its prototxt, or without one."""
    if not is_caffemodel(prototxt, CAFFEMODELS):
        return
    if caffemodel is None:
        raise UsageError(f"{prototxt}: {command} takes a prototxt, and this is a caffemodel: "
                         f"pspnet {command} NET.prototxt {prototxt}")
    raise UsageError(f"{prototxt}: this is a caffemodel, put the prototxt first: pspnet {command} "
                     + ("NET.prototxt" if is_caffemodel(caffemodel, CAFFEMODELS) else
                        str(caffemodel))
                     + f" {prototxt}")
