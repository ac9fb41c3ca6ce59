"""Trains and tests a table's missing rows and prints our figures beside the paper's.

Alone it starts a process a row, some rows at a time; under torchrun all processes work at one row.
"""

import argparse
import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from tqdm import tqdm

from experiments.profiles import PROFILES
from experiments.report import write_report
from experiments.rows import TABLES
from experiments.run_row import row_settings, run_folder, run_row
from pspnet_repro import PSPNet, distributed
from pspnet_repro.errors import UsageError, UserError
from pspnet_repro.run_folder import Interrupted


def parse_arguments(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", default="1", choices=TABLES, help="which table (default 1)")
    parser.add_argument("--profile", default="mini", choices=PROFILES,
                        help="data set, sizes and backbone (default mini)")
    parser.add_argument("--rows", default="all", metavar="ROW,ROW",
                        help="rows to run, separated by commas (default all)")
    parser.add_argument("--data", type=Path, metavar="DIR",
                        help="folder with train.txt and val.txt (mini draws its own)")
    parser.add_argument("--seeds", type=int, default=1, metavar="N",
                        help="runs a row, with seeds 0..N-1 (default 1)")
    parser.add_argument("--jobs", type=int, metavar="N",
                        help="rows at a time (default: the profile's, at most the cores)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu",
                        help="cuda: one GPU a process (default cpu)")
    parser.add_argument("--runs", type=Path, default=ROOT / "experiments" / "runs", metavar="DIR",
                        help="folder of the runs (default experiments/runs)")
    parser.add_argument("--cache", type=Path, default=ROOT / "cache", metavar="DIR",
                        help="folder of drawn scenes (default cache)")
    parser.add_argument("--output", type=Path, metavar="DIR",
                        help="folder of the report (default: the profile's in --runs)")
    return parser.parse_args(argv)


def select_rows(table, names):
    """The Rows of a table that `--rows` names. Raises UserError for a name it does not have."""
    rows = TABLES[table]
    if names == "all":
        return rows
    wanted = [name.strip() for name in names.split(",")]
    known = {row.name for row in rows}
    for name in wanted:
        if name not in known:
            raise UsageError(f"--rows: table {table} has no row {name!r}; it has "
                            f"{', '.join(row.name for row in rows)}")
    return tuple(row for row in rows if row.name in wanted)


def _steps(folder):
    try:
        with open(folder / "losses.jsonl", "rb") as lines:
            return sum(1 for _ in lines)
    except FileNotFoundError:
        return 0


def _start(task, profile, data, runs, device):
    row, seed, folder = task
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(ROOT / "experiments" / "run_row.py"), "--row", row.name,
               "--profile", profile.name, "--folder", str(data), "--runs", str(runs),
               "--seed", str(seed), "--device", device]
    with open(folder / "console.txt", "w", encoding="utf-8") as console:
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=console,
                                stderr=subprocess.STDOUT)


def run_all(tasks, profile, data, runs, jobs, max_iter, device):
    """Run the tasks, `jobs` at a time, with one progress bar over all their steps.

    Args:
        tasks: list of (Row, seed, run folder).
    Raises:
        UserError: a row failed; the others are stopped with their state saved.
        KeyboardInterrupt: passed on after the rows have saved their state.
    """
    waiting, running = list(tasks), {}
    with tqdm(total=len(tasks) * max_iter, desc=profile.name, unit="step", smoothing=0.05) as bar:
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    task = waiting.pop(0)
                    running[_start(task, profile, data, runs, device)] = task
                    bar.write(f"{task[0].name}, seed {task[1]}: started")
                time.sleep(0.5)
                for process in [p for p in running if p.poll() is not None]:
                    row, seed, folder = running.pop(process)
                    if process.returncode == 130:  # the terminal's Ctrl-C reached the row first
                        raise KeyboardInterrupt
                    if process.returncode:
                        said = (folder / "console.txt").read_text(encoding="utf-8").splitlines()
                        raise UserError(f"row {row.name}, seed {seed}: "
                                        f"{said[-1] if said else f'exit {process.returncode}'}")
                    bar.write(f"{row.name}, seed {seed}: done")
                bar.n = sum(min(_steps(folder), max_iter) for _, _, folder in tasks)
                bar.refresh()
        finally:
            for process in running:
                process.send_signal(signal.SIGINT)
            for process in running:
                process.wait()


def run_rows(args, processes):
    """Run the missing rows and print the table; all of `processes` call this alike."""
    profile = PROFILES[args.profile]
    if args.seeds < 1 or args.jobs is not None and args.jobs < 1:
        raise UsageError("--seeds and --jobs must be at least 1")
    if processes.size > 1 and args.jobs is not None:
        raise UsageError("--jobs must be left out under torchrun: all processes work at one row")
    rows = select_rows(args.table, args.rows)
    runs = args.runs / profile.name
    data = Path(processes.on_first(lambda: str(profile.folder(args.data, args.cache))))
    max_iter = row_settings(rows[0], profile, data, 0).max_iter
    folders = {row.name: [run_folder(runs, row, profile, data, seed)
                          for seed in range(args.seeds)] for row in rows}
    tasks = [(row, seed, folders[row.name][seed]) for seed in range(args.seeds) for row in rows]
    missing = processes.on_first(lambda: [not (folder / "result.json").exists()
                                          for _, _, folder in tasks])
    tasks = list(itertools.compress(tasks, missing))
    baseline = PSPNet(len(profile.classes), 50, (), **profile.model)
    crop_size = profile.train["crop_size"]
    if processes.first:
        print(f"Table {args.table}, profile {profile.name}: {len(tasks)} of "
              f"{len(rows) * args.seeds} runs to do. Without the pyramid the network sees "
              f"{baseline.receptive_field()} pixels of a {crop_size} crop.")
    if processes.size > 1:
        for row, seed, _ in tasks:
            run_row(row, profile, data, runs, seed, progress=processes.first, device=args.device)
    elif tasks:
        jobs = args.jobs or min(profile.rows_at_once, os.cpu_count() or 1)
        run_all(tasks, profile, data, runs, jobs, max_iter, args.device)
    if processes.first:
        output = args.output or runs
        print("\n".join(write_report(args.table, rows, folders, profile, data, output)))
        print(f"Report: {output / f'table{args.table}.md'}")


def main(argv=None):
    args = parse_arguments(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with distributed.join() as processes:
            run_rows(args, processes)
    except (KeyboardInterrupt, Interrupted):
        distributed.say("\nstopped; the same command goes on from there")
        return 130
    except (UsageError, distributed.FailedElsewhere) as error:
        distributed.say(f"error: {error}")
        return 2 if isinstance(error, UsageError) else 1
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
