"""Trains and tests what tables need and prints our figures beside the paper's.

Rows that share a training share it. Alone it starts a process for each training; under torchrun
all processes work at one.
"""

import os
import sys

if not __package__:  # started as a file of a checkout: start again as a module
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
    __import__("pspnet_repro")  # Ctrl-C ends this program with a word from here on

    import runpy
    sys.exit(runpy.run_module("experiments.run_table", run_name="__main__", alter_sys=True))

import argparse
import dataclasses
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from pspnet_repro import distributed
from pspnet_repro.commands.table import parser
from pspnet_repro.commands.work.data import check_apart
from pspnet_repro.defaults import VGG16
from pspnet_repro.errors import (
    Interrupted,
    UsageError,
    UserError,
    check_printed,
    command,
    first_line,
)
from pspnet_repro.files import lock_folder, refuse_pipe
from pspnet_repro.weights.source import weights_files
from pspnet_repro.words import counted

from .children import last_words, run_together, start
from .cost.forecast import Forecast
from .experiment import Experiment
from .places import CACHE_FOLDER, RUNS_FOLDER
from .plan import Training, select_tables
from .profiles import PROFILES
from .report import claim_report, write_report
from .rows import Row
from .run_row import run_job

CONSOLE = "console.txt"


def _start(job, training):
    """The process that does a training, and how long its file of last words was before."""
    training.folder.mkdir(parents=True, exist_ok=True)
    refuse_pipe(training.folder / CONSOLE, "written")
    # At its end: another call may be at work in this folder.
    with open(training.folder / CONSOLE, "ab") as console:
        return start("run_row", job, stdout=console, stderr=subprocess.STDOUT), console.tell()


def _failure(training, start, code):
    """What ended a training's process: a signal, or its last line after byte `start`."""
    if code < 0:
        return UserError(f"{training.name}: killed by {signal.Signals(-code).name}; the same "
                         "command resumes at its last checkpoint")
    console = training.folder / CONSOLE
    words = last_words(console.read_bytes()[start:], code)
    try:
        with open(console, "ab") as file:  # what a process says of a full disk is lost with it
            file.write(b"\n")
    except OSError as error:
        words += (f"; {console} cannot be written: {first_line(error)}; free some space, and the "
                  "same command resumes")
    return (UsageError if code == 2 else UserError)(f"{training.name}: {words}")


def run_all(experiment: Experiment, trainings: Sequence[Training], jobs: Sequence[str],
            at_once: int) -> None:
    """Run trainings and their tests in processes, with one progress bar over all steps.

    Args:
        jobs: of each training, see Experiment.job.
        at_once: how many run in parallel.
    Raises:
        UserError: one failed; the others are stopped with their state saved.
        KeyboardInterrupt: passed on after the others have saved their state.
    """
    images, starts = len(experiment.pairs("val")), {}
    to_test = images * sum(len(training.tests) for training in trainings)
    with tqdm(total=sum(training.steps for training in trainings), desc=experiment.profile.name,
              unit="step", initial=sum(training.steps_done() for training in trainings),
              smoothing=0.05) as bar:
        def begin(item):
            training, job = item
            if not training.missing():
                bar.write(f"{training.name}: done by another process")
                return None
            process, starts[training.folder] = _start(job, training)
            bar.write(f"{training.name}: started")
            return process

        def finish(item, process):
            training, _ = item
            if process.returncode:
                raise _failure(training, starts[training.folder], process.returncode)
            bar.write(f"{training.name}: done")

        def look():
            tested = sum(training.images_done(images) for training in trainings)
            bar.set_postfix_str(f"{tested} of {counted(to_test, 'image')} tested", refresh=False)
            bar.update(sum(training.steps_done() for training in trainings) - bar.n)

        run_together(zip(trainings, jobs, strict=True), begin, finish, at_once, look)


def _check(args, processes):
    """Raise UsageError, or UserError for a missing file, where arguments do not go together."""
    for name in ("runs", "output"):
        place = getattr(args, name)
        if place is not None and place.exists() and not place.is_dir():
            raise UsageError(f"--{name} must be a folder, got the file {place}")
    if args.protocol != "caffe" and args.table == "fidelity":
        raise UsageError("--protocol is for the paper's tables: the rows of --table fidelity have "
                         "tests of their own")
    depths = [depth for depth, _ in args.backbone]
    if len(set(depths)) < len(depths):
        raise UsageError(f"--backbone: each depth once, got {', '.join(map(str, depths))}")
    for name, file in ((name, file) for name, files in args.system for file in files):
        if not file.is_file():
            raise UserError(f"--system {name}: {file}: no such file; name the prototxt that the "
                            "network is trained with, and perhaps its solver's behind a comma")
    if processes.size > 1 and args.jobs is not None:
        raise UsageError("--jobs must be left out under torchrun: all processes work at one "
                         "training")
    for file in (file for _, named in args.backbone for file in weights_files(named)):
        if not file.is_file():
            raise UserError(f"--backbone: {file}: no such file; `pspnet convert --backbone` makes "
                            "one; vgg16 takes a caffemodel, or torchvision's vgg16")


def _make_folder(path):
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--runs {path}: cannot be made: {first_line(error)}; choose another "
                         "folder") from error


def _tables(args, profile, processes):
    """({table: Rows} asked for, sentences on rows of it that are not run)."""
    tables = select_tables(args.table, args.rows, [
        Row(name, label=name, system=files) for name, files in args.system])
    rows = {row.name: row for rows in tables.values() for row in rows if row.system is not None}
    lacking = [name for name, row in rows.items() if row.system == () and not profile.systems]
    if lacking and args.rows != "all":
        raise UsageError(f"--rows {lacking[0]}: profile {profile.name} has no such network; "
                         f"profiles {' and '.join(p.name for p in PROFILES.values() if p.systems)}"
                         " have; --system NAME=TRAIN.prototxt takes another")
    notes = [f"Not in profile {profile.name}: {', '.join(lacking)}."] if lacking else []
    if processes.size > 1 and len(rows) > len(lacking):
        if args.system or args.rows != "all":
            raise UsageError(f"--rows {', '.join(rows)}: rows of other systems train in one "
                             "process: run them with a command without torchrun")
        lacking = list(rows)
        notes = [f"Left out, because they train in one process: {', '.join(lacking)}. Run them "
                 "with the same command without torchrun."]
    return {number: tuple(row for row in rows if row.name not in lacking)
            for number, rows in tables.items()}, notes


def run_tables(args: argparse.Namespace, processes: distributed.Processes) -> None:
    """Run what is missing and print the tables; all of `processes` call this alike."""
    _check(args, processes)
    profile = dataclasses.replace(PROFILES[args.profile], preset=args.protocol)
    tables, notes = _tables(args, profile, processes)
    if not args.dry_run:
        processes.on_first(lambda: _make_folder(args.runs))
    runs = args.runs / profile.name
    output = args.output or (runs if profile.preset == "caffe" else runs / profile.preset)
    data = Path(processes.on_first(lambda: str(profile.folder(args.data, args.cache))))
    experiment = Experiment(profile, data, runs, dict(args.backbone))
    check_apart(output, experiment.data)
    trainings, folders = experiment.plan(tables, args.seeds)
    rows = {row.name: row for chosen in tables.values() for row in chosen}
    if apart := sorted(rows.keys() - folders.keys()):
        notes.append("Left out, because the weights of --backbone have another structure: "
                     f"{', '.join(apart)}.")
    at_once = 1 if processes.size > 1 else (
        args.jobs or min(profile.rows_at_once, os.cpu_count() or 1))

    def prepare():
        """The trainings to do, as their numbers: the first process's files decide for all."""
        forecast = Forecast(experiment, processes)
        to_do = forecast.longest_first(each for each in trainings if each.missing())
        print(f"Table {', '.join(number for number, rows in tables.items() if rows)}, profile "
              f"{profile.name}: {len(to_do)} of {len(trainings)} trainings to do. Without the "
              f"pyramid a score sees {profile.receptive_field(50)} pixels a side; crops have "
              f"{profile.crop_size}.", flush=True)
        if to_do:
            experiment.pairs("train")
            distributed.find_device(args.device)
        print(*notes, sep="\n", end="\n" * bool(notes))
        random = {rows[training.row].backbone for training in to_do} - experiment.backbones.keys()
        depths = sorted(random - {VGG16})
        if depths:
            print(f"No --backbone for depth {', '.join(map(str, depths))}: random initial "
                  "weights.", flush=True)
        if VGG16 in random:
            print("No --backbone vgg16: the other systems start from random weights.", flush=True)
        if args.dry_run or to_do and profile.estimate:
            print(*forecast.lines(trainings, to_do, device=args.device, workers=args.workers,
                                  at_once=at_once), sep="\n", flush=True)
        if args.dry_run:
            check_printed()
        else:
            claim_report(output)
        return [trainings.index(training) for training in to_do]

    to_do = [trainings[number] for number in processes.on_first(prepare)]
    if args.dry_run:
        return
    jobs = [experiment.job(training, args.device, args.workers) for training in to_do]
    if processes.size > 1:
        for job in jobs:
            run_job(job, progress=processes.first)
    elif to_do:
        run_all(experiment, to_do, jobs, at_once)
    if processes.first:
        with lock_folder(output, ".report.lock"):
            print(*write_report(experiment, tables, folders, output), sep="\n")
        print(f"Report: {output}")


def run(args: argparse.Namespace) -> None:
    """Do the work of the command `table`."""
    args.runs, args.cache = args.runs or RUNS_FOLDER, args.cache or CACHE_FOLDER
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with distributed.join(command="table") as processes:
            run_tables(args, processes)
    except (KeyboardInterrupt, Interrupted) as stop:
        raise Interrupted("stopped; the same command resumes") from stop


@command
def main(argv: Sequence[str] | None = None) -> int:
    run(parser().parse_args(argv))
    return 0


if __name__ == "__main__":
    sys.exit(main())
