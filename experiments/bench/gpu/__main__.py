"""Builds, tests and measures on one GPU, in at most nine minutes.

Every part is a process of its own: what one leaves behind, or its failure, does not reach the next.
After each part report.md and report.json are complete. With --device cpu the same parts run in
miniature: a rehearsal, whose figures say nothing about a GPU.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from pspnet_repro.defaults import ROOT
from pspnet_repro.errors import UsageError, command
from pspnet_repro.files import write_bytes

RESULTS = ROOT / "experiments" / "results"
LEAST_SECONDS = 5  # with less left a part is not started


@dataclass(frozen=True)
class Part:
    """`name` is a module beside this one; it is stopped after so many seconds."""

    name: str
    title: str
    seconds: int


# What later parts need comes first, then what is worth most.
PARTS = (
    Part("versions", "Versions, and a convolution in each precision", 25),
    Part("build", "Build into the running interpreter", 90),
    Part("kernels", "The kernels' tests, in four processes", 80),
    Part("operators", "Operators against torch's and the copy bandwidth", 75),
    Part("sizes", "Sizes that no test has, against float64", 60),
    Part("steps", "Training steps and tests of whole networks", 80),
    Part("profile", "A training step, kernel by kernel", 30),
    Part("sanitizers", "One test of each kernel under compute-sanitizer", 70),
    Part("nccl", "One rank, as if statistics were shared", 25),
    Part("training", "Twenty training steps with workers", 45),
    Part("mini", "Rows of Table 1 on the drawn scenes, against the CPU's figures", 150),
)


def card_name() -> str:
    """A short name of the GPU, such as h100; "card" where nvidia-smi does not tell."""
    try:
        words = subprocess.run(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"],
                               capture_output=True, text=True, check=True).stdout.lower()
    except (OSError, subprocess.CalledProcessError):
        return "card"
    names = re.findall(r"\b[a-z]+\d+\w*", words)
    return names[0] if names else "card"


def free_folder(device: str) -> Path:
    """The first of gpu-NAME, gpu-NAME-2, ... among the results without a report of this script."""
    name, number = f"gpu-{card_name() if device == 'cuda' else 'rehearsal'}", 1
    while (RESULTS / (name if number == 1 else f"{name}-{number}") / "report.json").exists():
        number += 1
    return RESULTS / (name if number == 1 else f"{name}-{number}")


def run(part: Part, device: str, output: Path, seconds: float) -> dict:
    """Run a part; its words go to log/NAME.txt. Returns its entry of the report."""
    rows, log = output / "log" / f"{part.name}.json", output / "log" / f"{part.name}.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with open(log, "wb") as words:
        process = subprocess.Popen(
            [sys.executable, "-m", "experiments.bench.gpu.part", part.name, "--device", device,
             "--rows", rows],
            cwd=ROOT, stdout=words, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            code = process.wait(seconds)
            status = "done" if code == 0 else f"failed with exit code {code}"
        except subprocess.TimeoutExpired:
            status = f"stopped after {seconds:.0f} s"
        finally:
            # Its children too, which may hang.
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    entry = {"name": part.name, "title": part.title, "status": status,
             "seconds": round(time.monotonic() - began, 1),
             "rows": json.loads(rows.read_bytes()) if rows.exists() else []}
    if status != "done":
        words = log.read_text(encoding="utf-8", errors="replace")[-2000:]
        entry["last_words"] = words.replace(f"{ROOT}/", "").replace(sys.prefix, "PYTHON")
    rows.unlink(missing_ok=True)
    return entry


def _cell(value):
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)


def table(rows: list[dict]) -> str:
    """Rows as a Markdown table with a column for every key."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    lines = [f"| {' | '.join(keys)} |", f"|{'---|' * len(keys)}"]
    lines += [f"| {' | '.join(_cell(row.get(key)).replace('|', '/') for key in keys)} |"
              for row in rows]
    return "\n".join(lines)


def report(device: str, entries: list[dict]) -> str:
    """The report as Markdown."""
    lines = ["# One GPU" if device == "cuda" else
             "# A rehearsal on the CPU: its figures say nothing about a GPU", "",
             "| part | status | seconds |", "|---|---|---|"]
    lines += [f"| {e['title']} | {e['status']} | {e['seconds']} |" for e in entries]
    for entry in entries:
        lines += ["", f"## {entry['title']}", ""]
        lines += [table(entry["rows"])] if entry["rows"] else ["No figures."]
        if "last_words" in entry:
            lines += ["", f"{entry['status']}; its last words:", "", "```",
                      entry["last_words"].strip(), "```"]
    return "\n".join(lines) + "\n"


@command
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--minutes", type=float, default=9.0, help="of all parts together")
    parser.add_argument("--only", nargs="+", choices=[part.name for part in PARTS],
                        help="parts to run; default: all")
    parser.add_argument("--output", type=Path, help="a folder without a report; default: gpu-NAME "
                        "in experiments/results")
    args = parser.parse_args(argv)
    ends = time.monotonic() + 60 * args.minutes
    output = (args.output or free_folder(args.device)).absolute()
    if (output / "report.json").exists():
        raise UsageError(f"--output must be a folder without a report, got {output}: name another")
    output.mkdir(parents=True, exist_ok=True)
    entries = []
    for part in PARTS:
        if args.only and part.name not in args.only:
            continue
        left = ends - time.monotonic()
        print(f"{part.title} ...", flush=True)
        entry = (run(part, args.device, output, min(part.seconds, left))
                 if left >= LEAST_SECONDS else
                 {"name": part.name, "title": part.title, "status": "not started: no time left",
                  "seconds": 0, "rows": []})
        entries.append(entry)
        print(f"    {entry['status']}, {entry['seconds']} s", flush=True)
        write_bytes(output / "report.json", json.dumps(
            {"device": args.device, "minutes": args.minutes, "parts": entries}, indent=1))
        write_bytes(output / "report.md", report(args.device, entries))
    print(f"the report is {output / 'report.md'}")
    return 0 if all(entry["status"] == "done" for entry in entries) else 1


if __name__ == "__main__":
    sys.exit(main())
