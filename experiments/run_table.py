"""Trains and tests what tables need and prints our figures beside the paper's.

Rows that share a training share it. Alone it starts a process a training, some at a time; under
torchrun all processes work at one.
"""

import contextlib
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

if not __package__:  # started as a file of a checkout: start again as a module
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    sys.exit(runpy.run_module("experiments.run_table", run_name="__main__", alter_sys=True))

from tqdm import tqdm

from pspnet_repro import distributed
from pspnet_repro.commands.table import parser
from pspnet_repro.errors import Interrupted, UsageError, UserError, check_printed, command
from pspnet_repro.files import lock_folder
from pspnet_repro.weights.source import weights_files
from pspnet_repro.words import counted

from .cost.forecast import Tests, cost, how_lines, longest_first, measure_networks, plan_lines
from .experiment import Experiment
from .places import CACHE_FOLDER, RUNS_FOLDER, program
from .plan import check_backbones, select_tables
from .profiles import PROFILES
from .report import claim_report, write_report
from .run_row import job, run_row

CONSOLE = "console.txt"


def parse_arguments(argv=None):
    return parser().parse_args(argv)


def _start(experiment, training, args):
    """The process that does a training, and how long its file of last words was before."""
    training.folder.mkdir(parents=True, exist_ok=True)
    # At its end: another call may be at work in this folder.
    with open(training.folder / CONSOLE, "ab") as console:
        start = console.tell()
        process = subprocess.Popen(program("run_row"), stdin=subprocess.PIPE, stdout=console,
                                   stderr=subprocess.STDOUT)
    with contextlib.suppress(BrokenPipeError):  # its exit code says why it ended
        process.stdin.write(f"{job(experiment, training, args.device, args.workers)}\n".encode())
        process.stdin.flush()
    return process, start


def _failure(training, start, code):
    """What ended a training's process: a signal, or its last line after byte `start`.

    Returns:
        A UsageError for exit code 2, else a UserError.
    """
    if code < 0:
        return UserError(f"{training.name}: killed by {signal.Signals(-code).name}; the same "
                         "command resumes at its last checkpoint")
    data = (training.folder / CONSOLE).read_bytes()[start:]
    said = data.decode(errors="replace").strip().rpartition("\n")[2].removeprefix("error: ")
    kind = UsageError if code == 2 else UserError
    return kind(f"{training.name}: {said or f'exit {code}'}")


def run_all(experiment, trainings, args, jobs):
    """Run trainings and their tests, `jobs` at a time, with one progress bar over all steps.

    Args:
        experiment: an Experiment.
        trainings: list of plan.Training.
        args: of the command.
    Raises:
        UserError: one failed; the others are stopped with their state saved.
        KeyboardInterrupt: passed on after the others have saved their state.
    """
    waiting, running = list(trainings), {}
    before = sum(training.steps_done() for training in trainings)
    images = len(experiment.pairs("val"))
    to_test = images * sum(len(training.tests) for training in trainings)
    with tqdm(total=sum(training.steps for training in trainings), desc=experiment.profile.name,
              unit="step", initial=before, smoothing=0.05) as bar:
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    training = waiting.pop(0)
                    if not training.missing():
                        bar.write(f"{training.name}: done by another process")
                        continue
                    process, start = _start(experiment, training, args)
                    running[process] = training, start
                    bar.write(f"{training.name}: started")
                time.sleep(0.5)
                for process in [p for p in running if p.poll() is not None]:
                    training, start = running.pop(process)
                    if process.returncode == 130:  # the terminal's Ctrl-C reached the row first
                        raise KeyboardInterrupt
                    if process.returncode:
                        raise _failure(training, start, process.returncode)
                    bar.write(f"{training.name}: done")
                tested = sum(training.images_done(images) for training in trainings)
                bar.set_postfix_str(f"{tested} of {counted(to_test, 'image')} tested",
                                    refresh=False)
                bar.update(sum(training.steps_done() for training in trainings) - bar.n)
        finally:
            # A second Ctrl-C must not leave trainings behind that still save.
            handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
            for process in running:
                process.send_signal(signal.SIGINT)
            for process in running:
                process.wait()
            signal.signal(signal.SIGINT, handler)


def _print_plan(experiment, trainings, to_do, tests, args, processes, jobs):
    rates = measure_networks(to_do, experiment, args.device, processes, jobs)
    costs = {training.folder: cost(training, tests, rates, processes, args.workers)
             for training in to_do}
    memory = "memory" if args.device == "cpu" else "the GPU's memory"
    lines = plan_lines([*to_do, *(training for training in trainings if training not in to_do)],
                       costs, jobs, memory + " in each process" * (processes.size > 1))
    if costs:
        lines += how_lines(to_do[0].settings, rates, processes)
    print("\n".join(lines), flush=True)


def run_tables(args, processes):
    """Run what is missing and print the tables; all of `processes` call this alike."""
    profile = PROFILES[args.profile]
    for name in ("runs", "output"):
        place = getattr(args, name)
        if place is not None and place.exists() and not place.is_dir():
            raise UsageError(f"--{name} must be a folder, got the file {place}")
    given = [depth for depth, _ in args.backbone]
    if len(set(given)) < len(given):
        raise UsageError(f"--backbone: each depth once, got {', '.join(map(str, given))}")
    if processes.size > 1 and args.jobs is not None:
        raise UsageError("--jobs must be left out under torchrun: all processes work at one "
                         "training")
    for file in (file for _, named in args.backbone for file in weights_files(named)):
        if not file.is_file():
            raise UserError(f"--backbone: {file}: no such file; `pspnet convert --backbone` makes "
                            "one")
    tables = select_tables(args.table, args.rows)
    runs, backbones = args.runs / profile.name, dict(args.backbone)
    data = Path(processes.on_first(lambda: str(profile.folder(args.data, args.cache))))
    experiment = Experiment(profile, data, runs, backbones)
    trainings, folders = experiment.plan(tables, args.seeds)
    tests = Tests.of(experiment)
    # In an order that all processes share: the first one's files decide.
    numbers = {training.folder: number for number, training in enumerate(trainings)}
    order = processes.on_first(lambda: [numbers[training.folder] for training in longest_first(
        [training for training in trainings if training.missing()], tests)])
    to_do = [trainings[number] for number in order]
    if to_do:
        experiment.pairs("train")
        distributed.find_device(args.device)
    if processes.first:
        numbers = ", ".join(number for number, rows in tables.items() if rows)
        print(f"Table {numbers}, profile {profile.name}: {len(to_do)} of {len(trainings)} "
              "trainings to do. Without the pyramid a score sees "
              f"{profile.receptive_field(50)} pixels a side; crops have {profile.crop_size}.",
              flush=True)
    processes.on_first(lambda: check_backbones(to_do))
    jobs = 1 if processes.size > 1 else args.jobs or min(profile.rows_at_once, os.cpu_count() or 1)
    if args.dry_run or to_do and profile.estimate:
        processes.on_first(lambda: _print_plan(experiment, trainings, to_do, tests, args,
                                               processes, jobs))
    if args.dry_run:
        processes.on_first(check_printed)
        return
    output = args.output or runs
    processes.on_first(lambda: claim_report(output))
    if processes.size > 1:
        for training in to_do:
            run_row(experiment, training, workers=args.workers, progress=processes.first,
                    device=args.device)
    elif to_do:
        run_all(experiment, to_do, args, jobs)
    if processes.first:
        with lock_folder(output, ".report.lock"):
            print("\n".join(write_report(experiment, tables, folders, output)))
        print(f"Report: {output}")


def run(args):
    """Do the work of the command `table`."""
    args.runs, args.cache = args.runs or RUNS_FOLDER, args.cache or CACHE_FOLDER
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with distributed.join() as processes:
            run_tables(args, processes)
    except (KeyboardInterrupt, Interrupted) as stop:
        raise Interrupted("stopped; the same command resumes") from stop


@command
def main(argv=None):
    return run(parse_arguments(argv)) or 0


if __name__ == "__main__":
    sys.exit(main())
