"""Runs one part of the day: its module's `work` gives the rows, which are written as they come.

A part fails where a row has an "error" above what is "allowed", or bits that are not "equal".
"""

import argparse
import importlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path

from pspnet_repro.errors import command
from pspnet_repro.files import write_bytes

Row = dict[str, object]


@dataclass(frozen=True)
class Setting:
    device: str  # "cuda", or "cpu" for a rehearsal, which does the same in miniature

    @property
    def small(self) -> bool:
        return self.device == "cpu"


@command
def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name", help="of a module beside this one")
    parser.add_argument("--device", choices=("cpu", "cuda"), required=True)
    parser.add_argument("--rows", type=Path, required=True, help="JSON file, written anew per row")
    args = parser.parse_args()
    work = importlib.import_module(f"{__package__}.{args.name}").work
    done: list[Row] = []
    for row in work(Setting(args.device)):
        done.append(row)
        write_bytes(args.rows, json.dumps(done, indent=1))
        print(json.dumps(row), flush=True)
    wrong = [row["what"] for row in done if not (
        row.get("equal", True) and row.get("error", 0.0) <= row.get("allowed", 0.0))]
    if wrong:
        raise SystemExit(f"wrong: {'; '.join(wrong)}")


if __name__ == "__main__":
    sys.exit(main())
