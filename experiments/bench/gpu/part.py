"""What the parts have in common: each is a process that writes its rows as they come."""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pspnet_repro.defaults import ROOT
from pspnet_repro.errors import command
from pspnet_repro.files import write_bytes

Row = dict[str, object]


@dataclass(frozen=True)
class Setting:
    """Where a part runs, and for how long.

    Attributes:
        device: "cuda", or "cpu" for a rehearsal, which does the same in miniature.
        ends: time.monotonic() at which the part is stopped.
    """

    device: str
    ends: float

    @property
    def small(self) -> bool:
        return self.device == "cpu"

    def left(self) -> float:
        """Seconds."""
        return self.ends - time.monotonic()


def run_part(path: Path, rows: Iterable[Row]) -> None:
    """Write rows into a JSON file, anew after each, and print them."""
    done: list[Row] = []
    for row in rows:
        done.append(row)
        write_bytes(path, json.dumps(done, indent=1))
        print(json.dumps(row), flush=True)


def main_of(work: Callable[[Setting], Iterator[Row]]) -> None:
    """The main program of a part's module; `work` yields its rows."""
    @command
    def main():
        parser = argparse.ArgumentParser()
        parser.add_argument("--device", choices=("cpu", "cuda"), required=True)
        parser.add_argument("--seconds", type=float, required=True)
        parser.add_argument("--rows", type=Path, required=True, help="JSON file to write")
        args = parser.parse_args()
        run_part(args.rows, work(Setting(args.device, time.monotonic() + args.seconds)))
        return 0

    sys.exit(main())


__all__ = ["ROOT", "Row", "Setting", "main_of", "run_part"]
