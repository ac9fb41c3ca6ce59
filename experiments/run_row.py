"""Trains one training and does the tests that rows want of it; run_table.py starts one such process
a training and holds its input."""

import argparse
import contextlib
import dataclasses
import datetime
import json
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import torch

from pspnet_repro import __version__, distributed
from pspnet_repro.commands.options import whole
from pspnet_repro.commands.table import backbone
from pspnet_repro.data.images import png_bytes
from pspnet_repro.errors import UsageError, UserError, command
from pspnet_repro.evaluation.evaluate import evaluate
from pspnet_repro.evaluation.precision import arithmetic
from pspnet_repro.evaluation.record import CountsFile, claim_results
from pspnet_repro.files import lock_folder, write_bytes
from pspnet_repro.outputs import Outputs
from pspnet_repro.training.loop import train, weights_digest
from pspnet_repro.weights import model_file

from .cost.peak_memory import peak_bytes, reset_peak
from .places import ROOT
from .profiles import PROFILES
from .runs import (
    data_set,
    find_row,
    labelled_pairs,
    look_protocol,
    row_depth,
    row_protocol,
    row_settings,
    test_folder,
    training_folder,
)

CURVE_POINTS, CURVE_IMAGES = 8, 8


def prediction_name(number, pair):
    """File name of the label map of pair `number` of a list: unique, and ends as the image's."""
    return f"{number:05d}-{pair.image.stem}.png"


def _commit():
    if not (ROOT / ".git").exists():
        return f"version {__version__}"

    def git(*words):
        return subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True,
                              check=True).stdout.strip()
    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _processor():
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def provenance(device="cpu"):
    """Commit (outside a checkout the package's version), versions and machine."""
    gpu = {"gpu": torch.cuda.get_device_name()} if device == "cuda" else {}
    return {"commit": _commit(), "python": platform.python_version(), "torch": torch.__version__,
            "numpy": np.__version__, "opencv": cv2.__version__, "system": platform.system(),
            "processor": _processor(), "cores": os.cpu_count(), **gpu}


def run_row(row, profile, data, runs, seed, tests=None, backbones=None, checkpoint_seconds=120.0,
            progress=True, device="cpu", workers=0):
    """Train a row and test it unless that was done before; processes of torchrun call this alike.

    What was interrupted goes on: a training at its last checkpoint, a test at the image it was at.
    Processes on several machines must all see the folder `runs`.

    Args:
        row, profile, seed: a Row, a Profile, and the number that everything random starts from.
        data: folder of the data set.
        runs: folder of the profile's trainings.
        tests: the Rows that want a test of this training; None: `row` alone.
        backbones: {depth: file of initial weights}.
        checkpoint_seconds, progress, device, workers: see train.
    Returns:
        The folders of the tests; result.json in each holds the figures.
    Raises:
        UserError, Interrupted: as `train` and `evaluate`.
    """
    tests = tests or (row,)
    source = data_set(profile, data)
    train_list, val_list = source.digest("train"), source.digest("val")
    settings, *others = (row_settings(each, profile, train_list, seed, backbones)
                         for each in (row, *tests))
    for other, its_settings in zip(tests, others):
        if its_settings != settings:
            raise UsageError(f"row {other.name} is of another training than row {row.name}")
    out = training_folder(runs, row, settings)
    folders = [test_folder(out, row_protocol(other, profile), val_list) for other in tests]
    try:
        with (distributed.join() as processes, arithmetic("float32"),
              contextlib.ExitStack() as held):
            def missing():
                left = [not (folder / "result.json").exists() for folder in folders]
                if any(left):
                    held.enter_context(lock_folder(out, ".run.lock"))
                return left

            left = processes.on_first(missing)
            if any(left):
                weights = _train(settings, profile, data, out, processes, device=device,
                                 initial_weights=(backbones or {}).get(row_depth(row)),
                                 checkpoint_seconds=checkpoint_seconds, progress=progress,
                                 workers=workers)
                for other, folder, is_left in zip(tests, folders, left):
                    if is_left:
                        _test(other, profile, data, weights, folder, val_list, processes,
                              progress, device)
            return folders
    except OSError as error:
        raise UserError(f"{out}: cannot be written: {error}") from error


def _watch(profile, pairs, max_iter, processes):
    """What train's `watch` takes: a few validation images, spread over the list, at some steps."""
    chosen = [pairs[number] for number in
              np.linspace(0, len(pairs) - 1, min(CURVE_IMAGES, len(pairs))).round().astype(int)]

    def look(net):
        matrix = evaluate(net.for_inference(), chosen, classes=net.classes,
                          protocol=look_protocol(profile),
                          zero_is_void=profile.zero_is_void, progress=False, processes=processes)
        return {name: matrix.figures[name] for name in ("mean_iou", "pixel_accuracy")}

    return -(-max_iter // CURVE_POINTS), look


def _train(settings, profile, data, out, processes, **how):
    """Path of the weights; trained.json beside them says how they came about."""
    pairs, val_pairs = (labelled_pairs(profile, data, split) for split in ("train", "val"))
    about, began = provenance(how["device"]), time.monotonic()

    def tell():
        write_bytes(out / "trained.json", json.dumps({
            "train_seconds_of_last_sitting": round(time.monotonic() - began, 1),
            "train_peak_memory_mib": _peak_mib(how["device"]),
            "train_provenance": about}, indent=1))

    _reset_peak(how["device"])
    facts = {"base_size": profile.base_size, "names": profile.classes,
             "palette_rgb": profile.palette_rgb}
    return train(settings, pairs, out, **how, before_weights=tell, facts=facts,
                 watch=_watch(profile, val_pairs, settings.max_iter, processes))


def _reset_peak(device):
    if device == "cpu":
        reset_peak()
    elif torch.cuda.is_initialized():  # else nothing was taken yet
        torch.cuda.reset_peak_memory_stats()


def _peak_mib(device):
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else peak_bytes()
    return peak // 2 ** 20


def _training_facts(weights):
    """The content of a training's weights.pt, and that of the trained.json beside it.

    Raises:
        UserError: one of them is damaged.
    """
    path = weights.parent / "trained.json"
    training = model_file.read_model_file(weights)
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        if (set(facts) != {"train_seconds_of_last_sitting", "train_peak_memory_mib",
                           "train_provenance"}
                or not {"training", "initial_sha256", "processes"} <= training.keys()):
            raise ValueError
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{path} or {weights.name}: missing or damaged; remove the folder to train "
                        "again") from error
    return training, facts


def _test(row, profile, data, weights, folder, val_list, processes, progress, device):
    began, about = time.monotonic(), provenance(device)
    _reset_peak(device)
    training, facts = _training_facts(weights)
    settings, protocol = training["training"], row_protocol(row, profile)
    torch.set_num_threads(settings["threads"])
    net = model_file.model_of(training, weights).to(distributed.choose_device(device))
    fused = net.for_inference()
    pairs = labelled_pairs(profile, data, "val")
    paths = [folder / "predictions" / prediction_name(*item) for item in enumerate(pairs)]
    outputs, result_path = Outputs(folder), folder / "result.json"
    processes.on_first(lambda: claim_results(
        outputs, folder, [*paths, result_path],
        [weights, *(path for pair in pairs for path in (pair.image, pair.label))]))
    test = {**dataclasses.asdict(protocol), "fused": True, "list_sha256": val_list}
    with CountsFile(folder, {"weights_sha256": weights_digest(net), **test}, net.classes,
                    len(pairs), processes) as record:
        matrix = evaluate(
            fused, pairs, classes=net.classes, protocol=protocol, record=record,
            zero_is_void=profile.zero_is_void, progress=progress, processes=processes,
            on_prediction=lambda number, _, predicted: outputs.write(
                {paths[number]: png_bytes(predicted)}))
    if not matrix.counts.any():
        raise UserError(f"{profile.name}: no pixel of the {len(pairs)} test images is labelled")
    if not processes.first:
        return
    iou = dict(zip(profile.classes, matrix.iou.tolist(), strict=True))
    result = {
        "row": row.name, "profile": profile.name, "seed": settings["seed"],
        **matrix.figures, "iou": iou,
        "confusion": matrix.counts.tolist(), "settings": settings, "test": test,
        "initial_sha256": training["initial_sha256"],
        "parameters": sum(p.numel() for p in net.parameters()),
        "receptive_field": net.receptive_field(),
        "train_processes": training["processes"],
        **facts,
        "test_processes": processes.size,
        "test_seconds": round(time.monotonic() - began, 1),
        "test_peak_memory_mib": _peak_mib(device),
        "finished": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "provenance": about,
    }
    outputs.write({result_path: json.dumps(result, indent=1)})


def _stop_with_parent():
    """Interrupt this process when the one that holds the other end of its input is gone."""
    def watch():
        while os.read(sys.stdin.fileno(), 1):
            continue
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=watch, daemon=True).start()


@command
def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--row", required=True)
    parser.add_argument("--tests", required=True, help="rows, separated by commas")
    parser.add_argument("--profile", required=True, choices=PROFILES)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--runs", required=True, type=Path)
    parser.add_argument("--seed", required=True, type=whole(0, 2 ** 31 - 1))
    parser.add_argument("--device", required=True, choices=("cpu", "cuda"))
    parser.add_argument("--workers", required=True, type=whole(0, 1024))
    parser.add_argument("--backbone", type=backbone, action="append", default=[])
    args = parser.parse_args()
    _stop_with_parent()
    run_row(find_row(args.row), PROFILES[args.profile], args.data, args.runs, args.seed,
            [find_row(name) for name in args.tests.split(",")], dict(args.backbone),
            progress=False, device=args.device, workers=args.workers)
    return 0

