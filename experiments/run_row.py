"""Trains and tests one row; run_table.py starts one such process a row and holds its input."""

import argparse
import contextlib
import datetime
import hashlib
import json
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

import cv2
import numpy as np
import torch

from experiments.profiles import PROFILES
from experiments.rows import TABLES
from pspnet_repro import checkpoint, distributed
from pspnet_repro.data.lists import list_digest, read_list
from pspnet_repro.errors import UserError
from pspnet_repro.evaluation import Protocol
from pspnet_repro.evaluation.evaluate import evaluate
from pspnet_repro.memory import peak_bytes
from pspnet_repro.run_folder import Interrupted
from pspnet_repro.train import TrainSettings, train
from pspnet_repro.visualize import write_png


def prediction_name(number, pair):
    """File name of the label map of pair `number` of a list: unique, and ends as the image's."""
    return f"{number:05d}-{pair.image.stem}.png"


def find_row(name):
    """The Row of that name. Raises UserError where no table has it."""
    rows = {row.name: row for table in TABLES.values() for row in table}
    if name not in rows:
        raise UserError(f"no row {name!r}; rows are {', '.join(rows)}")
    return rows[name]


def row_settings(row, profile, folder, seed):
    """TrainSettings of a row in a profile on the data in `folder`."""
    return TrainSettings(
        model={"classes": len(profile.classes), "depth": 50, **profile.model, **row.model},
        data=profile.data, list_sha256=list_digest(folder / "train.txt"), seed=seed,
        zero_is_void=profile.zero_is_void, **profile.train)


def run_folder(runs, row, profile, folder, seed):
    """Where a run lives: its name ends with a digest of everything that affects the result."""
    affects = {"train": row_settings(row, profile, folder, seed).to_json(),
               "test": [profile.base_size, list_digest(folder / "val.txt")]}
    digest = hashlib.sha256(json.dumps(affects, sort_keys=True).encode()).hexdigest()[:10]
    return Path(runs) / f"{row.name}-seed{seed}-{digest}"


def _commit():
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


def provenance():
    """Commit, versions and machine, for the result's file."""
    return {"commit": _commit(), "python": platform.python_version(), "torch": torch.__version__,
            "numpy": np.__version__, "opencv": cv2.__version__, "system": platform.system(),
            "processor": _processor(), "cores": os.cpu_count()}


def run_row(row, profile, folder, runs, seed, checkpoint_seconds=120.0, progress=True,
            device="cpu"):
    """Train and test a row unless that was done before; processes of torchrun call this alike.

    Processes on several machines must all see the folder `runs`.

    Returns:
        The folder of the run; result.json in it holds the figures.
    Raises:
        UserError, Interrupted: as `train` and `evaluate`.
    """
    out = run_folder(runs, row, profile, folder, seed)
    try:
        with distributed.join() as processes, contextlib.ExitStack() as held:
            def finished():
                done = (out / "result.json").exists()
                if not done:
                    held.enter_context(checkpoint.lock_folder(out, ".run.lock"))
                return done

            if not processes.on_first(finished):
                _run(row, profile, folder, out, seed, processes, checkpoint_seconds, progress,
                     device)
            return out
    except OSError as error:
        raise UserError(f"{out}: cannot be written: {error}") from error


def _run(row, profile, folder, out, seed, processes, checkpoint_seconds, progress, device):
    settings = row_settings(row, profile, folder, seed)
    val_pairs = read_list(folder / "val.txt")
    about = provenance()
    began = time.monotonic()
    weights = train(settings, read_list(folder / "train.txt"), out,
                    checkpoint_seconds=checkpoint_seconds, progress=progress, device=device)
    trained = time.monotonic()
    torch.set_num_threads(settings.threads)
    net = checkpoint.load_model(weights).to(distributed.choose_device(device))
    protocol = Protocol(profile.base_size, settings.crop_size)
    matrix = evaluate(
        net, val_pairs, classes=len(profile.classes), protocol=protocol,
        zero_is_void=profile.zero_is_void, progress=progress, processes=processes,
        on_prediction=lambda number, pair, predicted: write_png(
            out / "predictions" / prediction_name(number, pair), predicted))
    if not processes.first:
        return
    iou = dict(zip(profile.classes, matrix.iou.tolist(), strict=True))
    result = {
        "row": row.name, "profile": profile.name, "seed": seed,
        "mean_iou": matrix.mean_iou, "pixel_accuracy": matrix.pixel_accuracy, "iou": iou,
        "confusion": matrix.counts.tolist(), "settings": settings.to_json(),
        "test": {"base_size": protocol.base_size, "scales": list(protocol.scales),
                 "flip": protocol.flip,
                 "list_sha256": list_digest(folder / "val.txt")},
        "initial_sha256": checkpoint.load(weights)["initial_sha256"],
        "parameters": sum(p.numel() for p in net.parameters()),
        "receptive_field": net.receptive_field(),
        "processes": processes.size,
        "train_seconds_of_last_sitting": round(trained - began, 1),
        "test_seconds": round(time.monotonic() - trained, 1),
        "peak_memory_mib": peak_bytes() // 2 ** 20,
        "finished": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "provenance": about,
    }
    checkpoint.write_bytes(out / "result.json", json.dumps(result, indent=1))


def _stop_with_parent():
    """Interrupt this process when the one that holds the other end of its input is gone."""
    def watch():
        while os.read(sys.stdin.fileno(), 1):
            continue
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=watch, daemon=True).start()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--row", required=True)
    parser.add_argument("--profile", required=True, choices=PROFILES)
    parser.add_argument("--folder", required=True, type=Path)
    parser.add_argument("--runs", required=True, type=Path)
    parser.add_argument("--seed", required=True, type=int)
    parser.add_argument("--device", required=True)
    args = parser.parse_args()
    _stop_with_parent()
    try:
        run_row(find_row(args.row), PROFILES[args.profile], args.folder, args.runs, args.seed,
                progress=False, device=args.device)
    except (Interrupted, KeyboardInterrupt) as stop:
        print(stop, file=sys.stderr)
        return 130
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
