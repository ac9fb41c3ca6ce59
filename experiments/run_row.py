"""Does one training and its tests; run_table.py starts a process of it for each training."""

import contextlib
import dataclasses
import datetime
import json
import time
from pathlib import Path

import numpy as np
import torch

from pspnet_repro import distributed
from pspnet_repro.data.images import png_bytes
from pspnet_repro.data.pairs import Pair
from pspnet_repro.errors import UserError, command, first_line
from pspnet_repro.evaluation.evaluate import evaluate
from pspnet_repro.evaluation.precision import use_precision
from pspnet_repro.evaluation.record import RESULT, CountsFile, claim_results
from pspnet_repro.files import lock_folder, refuse_pipe, write_bytes
from pspnet_repro.outputs import Outputs
from pspnet_repro.training.loop import train, weights_digest
from pspnet_repro.weights import model_file

from .children import read_job
from .experiment import Experiment
from .peak_memory import peak_bytes, reset_peak
from .plan import Training
from .profiles import PROFILES
from .provenance import provenance
from .systems.training import WEIGHTS as SYSTEM_WEIGHTS
from .systems.training import load_system, train_system

CURVE_POINTS, CURVE_IMAGES = 8, 8
TOLD = "training", "initial_sha256", "processes"
FACTS = "train_seconds_of_last_sitting", "train_peak_memory_mib", "train_provenance"


def prediction_name(number: int, pair: Pair) -> str:
    """File name of the label map of pair `number` of a list: unique, and ends as the image's."""
    return f"{number:05d}-{pair.image.stem}.png"


def run_row(experiment: Experiment, training: Training, *, progress: bool = True,
            device: str = "cpu", workers: int = 0) -> None:
    """Do a training and its tests unless that was done before; processes of torchrun call this
    alike.

    What was interrupted is resumed: a training at its last checkpoint, a test at its last image.
    Processes on several machines must all see the training's folder. Other arguments and errors are
    those of `train` and `evaluate`.
    """
    tests = list(training.tests.values())
    try:
        with (distributed.join(command="table") as processes, use_precision("float32"),
              contextlib.ExitStack() as held):
            def missing():
                left = [not test.is_done for test in tests]
                if any(left):
                    held.enter_context(lock_folder(training.folder, ".run.lock"))
                return left

            left = processes.on_first(missing)
            if any(left):
                weights = _train(experiment, training, processes, device=device,
                                 progress=progress, workers=workers)
                for test, is_left in zip(tests, left):
                    if is_left:
                        _test(experiment, test, weights, processes, progress, device)
    except OSError as error:
        raise UserError(f"{error.filename or training.folder}: cannot be written: "
                        f"{first_line(error)}") from error


def _watch(experiment, training, processes):
    """What train's `watch` takes: a few validation images, spread over the list, at some steps."""
    profile, pairs = experiment.profile, experiment.pairs("val")
    chosen = [pairs[number] for number in
              np.linspace(0, len(pairs) - 1, min(CURVE_IMAGES, len(pairs))).round().astype(int)]

    protocol = dataclasses.replace(profile.protocol, crop_size=training.settings.crop_size)

    def look(net):
        matrix = evaluate(net.for_inference(), chosen, classes=net.classes,
                          protocol=protocol,
                          progress=False, processes=processes)
        return {name: matrix.figures[name] for name in ("mean_iou", "pixel_accuracy")}

    return -(-training.steps // CURVE_POINTS), look


def _train(experiment, training, processes, *, device, **how):
    """Path of the weights; trained.json beside them says how they came about."""
    machine, began, profile = provenance(device), time.monotonic(), experiment.profile

    def tell(facts=()):
        contents = round(time.monotonic() - began, 1), peak_bytes(device) // 2 ** 20, machine
        write_bytes(training.folder / "trained.json",
                    json.dumps({**dict(zip(FACTS, contents, strict=True)), **dict(facts)},
                               indent=1))

    reset_peak(device)
    arguments = training.settings, experiment.pairs("train"), training.folder
    how |= {"device": device, "initial_weights": training.initial_weights, "before_weights": tell,
            "watch": _watch(experiment, training, processes)}
    if training.is_system:
        return train_system(*arguments, **how)
    return train(*arguments, **how, facts={"base_size": profile.base_size, "names": profile.classes,
                                           "palette_rgb": profile.palette_rgb})


def _trained(weights, others):
    """The network of a finished training, with `others` among its arguments, what the training was
    (TOLD), and the FACTS beside it; UserError where a file of it is damaged."""
    path, is_system = weights.parent / "trained.json", weights.name == SYSTEM_WEIGHTS
    content = None if is_system else model_file.read_model_file(weights)
    refuse_pipe(path)
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        training = {name: (facts if is_system else content)[name] for name in TOLD}
        if set(facts) != {*FACTS, *(TOLD if is_system else ())}:
            raise ValueError
    except (OSError, ValueError, TypeError, LookupError, RecursionError) as error:
        raise UserError(f"{path} or {weights.name}: missing or damaged; remove the folder to train "
                        "again") from error
    net = load_system(weights.parent) if is_system else model_file.model_of(
        {**content, "settings": {**content["settings"], **others}}, weights)
    return net, training, {name: facts[name] for name in FACTS}


def _test(experiment, test, weights, processes, progress, device):
    began, machine = time.monotonic(), provenance(device)
    reset_peak(device)
    net, trained, facts = _trained(weights, test.network)
    settings, folder, profile = trained["training"], test.folder, experiment.profile
    torch.set_num_threads(settings["threads"])
    net = net.to(distributed.choose_device(device))
    pairs = experiment.pairs("val")
    paths = [folder / "predictions" / prediction_name(*item) for item in enumerate(pairs)]
    outputs, result_path = Outputs(folder), folder / RESULT
    processes.on_first(lambda: claim_results(
        outputs, folder, [*paths, result_path],
        [weights, *(path for pair in pairs for path in (pair.image, pair.label))]))
    about = {**test.protocol.facts(), "fused": True, "list_sha256": test.list_sha256,
             **({"network": test.network} if test.network else {})}
    with CountsFile(folder, {"weights_sha256": weights_digest(net), **about}, net.classes,
                    len(pairs), processes) as record:
        matrix = evaluate(
            net.for_inference(), pairs, classes=net.classes, protocol=test.protocol, record=record,
            progress=progress, processes=processes,
            on_prediction=lambda number, _, predicted: outputs.write(
                {paths[number]: png_bytes(predicted)}))
    if not matrix.counts.any():
        raise UserError(f"{profile.name}: no pixel of the {len(pairs)} test images is labelled")
    if not processes.first:
        return
    result = {
        **({} if test.protocol.name.startswith("caffe") else {"protocol": test.protocol.name}),
        "row": test.row, "profile": profile.name, "seed": settings["seed"], **matrix.figures,
        "iou": dict(zip(profile.classes, matrix.iou.tolist(), strict=True)),
        "confusion": matrix.counts.tolist(), "settings": settings, "test": about,
        "initial_sha256": trained["initial_sha256"],
        "parameters": sum(p.numel() for p in net.parameters()),
        "receptive_field": getattr(net, "receptive_field", lambda: None)(),
        "train_processes": trained["processes"],
        **facts, "test_processes": processes.size,
        "test_seconds": round(time.monotonic() - began, 1),
        "test_peak_memory_mib": peak_bytes(device) // 2 ** 20,
        "finished": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "provenance": machine,
    }
    outputs.write({result_path: json.dumps(result, indent=1)})


def run_job(job: str, progress: bool) -> None:
    """Do the training that Experiment.job wrote; all processes of torchrun call this alike."""
    asked = json.loads(job)
    training = Training.from_json(asked["training"])
    experiment = Experiment(PROFILES[asked["profile"]], Path(asked["data"]), training.folder.parent)
    run_row(experiment, training, progress=progress, device=asked["device"],
            workers=asked["workers"])


@command
def main() -> int:
    run_job(read_job(), progress=False)
    return 0
