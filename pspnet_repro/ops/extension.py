"""Loads the compiled operators, if they were compiled for this torch and this processor."""

import importlib.util
import mmap
import re
import sys
from pathlib import Path

import torch

from pspnet_repro.defaults import IN_CHECKOUT, ROOT
from pspnet_repro.errors import UserError, first_line

# What csrc/build_record.cpp puts into the compiled file.
_RECORD = b"pspnet_repro was compiled for torch "


class ExtensionError(UserError, ImportError):
    """The compiled operators are missing, or do not fit this torch or this processor."""


def load_extension() -> None:
    """Register the operators of pspnet_repro._C with torch.

    Raises:
        ExtensionError: the file is missing, or was compiled for another torch or for a processor
            with instructions that this one lacks; the message names the command that compiles it.
    """
    spec = importlib.util.find_spec("pspnet_repro._C")
    if spec is None:
        raise ExtensionError("the extension pspnet_repro._C is not built: "
                             f"{_make('build', ROOT if IN_CHECKOUT else 'a checkout')} (or set "
                             "PSPNET_OPS=reference for slow operators in plain torch)")
    path = Path(spec.origin)
    check_record(path, read_record(path), torch.__version__, processor_flags())
    try:
        torch.ops.load_library(path)
    except OSError as error:
        reason = first_line(error.__cause__ or error)
        raise ExtensionError(f"{path} does not load with torch {torch.__version__} ({reason}): "
                             f"{_compile_again()}") from error


def read_record(path: Path) -> tuple[str, set] | None:
    """(torch's version as "2.13", flags of processors that it needs) of a compiled file, or None
    where it holds no such record. Does not load the file."""
    if not path.stat().st_size:
        return None  # nothing to map
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        start = content.find(_RECORD)
        end = content.find(b"\0", start)
        text = content[start:end].decode(errors="replace") if start >= 0 else ""
    version = re.search(r" torch (\d+\.\d+) ", text)
    return version and (version[1], set(re.findall(r"(\w+):1 ", text)))


def processor_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> set | None:
    """Flags of this machine's processor, or None where the system does not tell."""
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    line = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    return line and set(line[1].split())


def check_record(path: Path, record: tuple[str, set] | None, torch_version: str,
                 flags: set | None) -> None:
    """Raise ExtensionError unless a compiled file with a record of `read_record` can run here.

    Args:
        torch_version: of the torch that runs, "2.13.0+cpu".
        flags: see processor_flags.
    """
    if record is None:
        raise ExtensionError(f"{path} was compiled by another version of this package: "
                             f"{_compile_again()}")
    compiled_for, needed = record
    if compiled_for != ".".join(torch_version.split(".")[:2]):
        raise ExtensionError(f"{path} was compiled for torch {compiled_for}, but torch "
                             f"{torch_version} is installed: {_compile_again()}")
    lacking = needed - flags if flags is not None else ()
    if lacking:
        raise ExtensionError(f"{path} was compiled for a processor with "
                             f"{', '.join(sorted(lacking))}, which this one lacks: "
                             f"{_compile_again('PSPNET_MARCH=native ')}")


def _make(targets, folder):
    return (f"run `make {targets}` in {folder}, or for this Python `make {targets} "
            f"PYTHON={sys.executable} VENV=`")


def _compile_again(setting=""):
    if IN_CHECKOUT:
        return _make("clean build", ROOT)
    return (f"run `{setting}pip install --force-reinstall --no-deps .` in the folder of the "
            "package's source")
