"""Folders of finished runs with figures that follow from label maps drawn for the purpose."""

import dataclasses
import json

import numpy as np

from experiments.profiles import PROFILES
from experiments.run_row import prediction_name
from pspnet_repro.data.images import png_bytes
from pspnet_repro.data.labels import read_label
from pspnet_repro.data.pairs import read_list
from pspnet_repro.evaluation.metrics import ConfusionMatrix
from pspnet_repro.evaluation.record import CountsFile
from pspnet_repro.files import write_bytes

MINI = PROFILES["mini"]
MACHINE = {"commit": "c" * 40, "python": "3.11", "torch": "2.10", "numpy": "2", "opencv": "5",
           "system": "Linux", "processor": "a processor", "cores": 2}
ABOUT = {
    "settings": {"max_iter": 40, "batch_size": 8, "initial_weights": None},
    "test": {"base_size": 184}, "initial_sha256": "ab" * 32, "train_processes": 1,
    "train_seconds_of_last_sitting": 80.2, "train_peak_memory_mib": 447, "test_seconds": 4.0,
    "test_processes": 1,
    "test_peak_memory_mib": 321, "finished": "2026-01-02T03:04:05+00:00", "provenance": MACHINE,
    "train_provenance": {**MACHINE, "commit": "d" * 40 + "+changes"}}


def result(seed, mean_iou, pixel_accuracy=0.5, profile=MINI, **other):
    """Contents of a result.json with the same IoU for every class."""
    return {**ABOUT, "row": "any", "profile": profile.name, "seed": seed, "mean_iou": mean_iou,
            "pixel_accuracy": pixel_accuracy, "iou": dict.fromkeys(profile.classes, mean_iou),
            **other}


def write_run(folder, content, curve=True):
    """A training folder with one test of `content`; returns the test's folder."""
    steps = content["settings"]["max_iter"]
    test = folder / "test-0123456789"
    test.mkdir(parents=True)
    (test / "result.json").write_text(json.dumps(content), encoding="utf-8")
    losses = [{"iteration": k, "loss": 2 / (k + 1)} for k in range(steps)]
    (folder / "losses.jsonl").write_text("".join(json.dumps(x) + "\n" for x in losses))
    if curve:
        points = [{"iteration": k, "mean_iou": k / 100, "pixel_accuracy": 0.5}
                  for k in (steps // 2, steps)]
        (folder / "curve.jsonl").write_text("".join(json.dumps(x) + "\n" for x in points))
    return test


def write_predictions(test, data, wrong, profile=MINI):
    """Predictions with `wrong[number]` wrong pixels an image, and counts; their ConfusionMatrix."""
    classes = len(profile.classes)
    matrix = ConfusionMatrix(classes)
    with CountsFile(test, {}, classes, len(wrong)) as record:
        for number, pair in enumerate(read_list(data / "val.txt")):
            label = read_label(pair.label, classes)
            predicted = label.copy()
            predicted.flat[:wrong[number]] = (label.flat[:wrong[number]] + 1) % classes
            write_bytes(test / "predictions" / prediction_name(number, pair), png_bytes(predicted))
            before = matrix.counts.copy()
            matrix.update(predicted, label)
            record.append(number, matrix.counts - before)
    return matrix


def write_tested(test, data, wrong):
    """Predictions as write_predictions, and a result.json of their figures."""
    matrix = write_predictions(test, data, wrong)
    (test / "result.json").write_text(json.dumps(result(0, 0, 0) | figures(matrix)))


def figures(matrix, profile=MINI):
    """What result.json holds of a ConfusionMatrix."""
    return {"mean_iou": matrix.mean_iou, "pixel_accuracy": matrix.pixel_accuracy,
            "iou": dict(zip(profile.classes, matrix.iou.tolist(), strict=True)),
            "confusion": matrix.counts.tolist()}


def write_rows(folder, names, seeds, profile=MINI):
    """{row name: test folders} with mean IoU 0.30, 0.31, ... in the order of the names."""
    rng = np.random.default_rng(0)
    return {name: [write_run(folder / f"{name}-seed{seed}-{place:010d}",
                             result(seed, 0.3 + 0.01 * place + 0.005 * rng.random(),
                                    0.5 + 0.01 * place, profile))
                   for seed in range(seeds)]
            for place, name in enumerate(names)}


def renamed(profile=MINI, **changes):
    """The profile with other fields."""
    return dataclasses.replace(profile, **changes)
