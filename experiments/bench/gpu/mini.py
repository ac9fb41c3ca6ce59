"""Rows of Table 1 of the mini profile, trained on the GPU, beside the CPU's figures."""

import dataclasses
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from pspnet_repro.data import scenes
from pspnet_repro.defaults import ROOT

from ...experiment import Experiment
from ...profiles import PROFILES
from ...rows import BASELINE, FULL, TABLES
from ...run_row import run_row
from .part import Row, Setting

REPORT = ROOT / "experiments" / "results" / "mini" / "report.json"


def work(setting: Setting) -> Iterator[Row]:
    profile, few = PROFILES["mini"], {}
    # The two that matter most first: time may not do for all.
    rows = sorted(TABLES["1"], key=lambda row: (row.name not in (BASELINE, FULL), row.name))
    if setting.small:
        profile = dataclasses.replace(profile, train={**profile.train, "batch_size": 2,
                                                      "max_iter": 2})
        rows, few = rows[:1], {"train": 4, "val": 2}
    known = json.loads(REPORT.read_text(encoding="utf-8"))["results"]
    with tempfile.TemporaryDirectory() as folder:
        data = scenes.write_scenes(Path(folder), **few)
        experiment = Experiment(profile, data, Path(folder, "runs"))
        for row in rows:
            (training,), folders = experiment.plan({"1": [row]}, 1)
            began = time.monotonic()
            run_row(experiment, training, progress=False, device=setting.device)
            result = json.loads((folders[row.name][0] / "result.json").read_text(encoding="utf-8"))
            cpu, = known[row.name][:1]
            yield {"row": row.name, "mean IoU": 100 * result["mean_iou"],
                   "mean IoU on the CPU": 100 * cpu["mean_iou"],
                   "pixel accuracy": 100 * result["pixel_accuracy"],
                   "pixel accuracy on the CPU": 100 * cpu["pixel_accuracy"],
                   "seconds": round(time.monotonic() - began, 1)}
