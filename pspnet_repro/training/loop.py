"""Training, from the first line to the last."""

import contextlib
import dataclasses
import hashlib
import itertools
import json
import math
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from pspnet_repro import distributed
from pspnet_repro.data.labels import ZERO_IS_VOID, check_classes
from pspnet_repro.data.pairs import Pair
from pspnet_repro.data.training_sequence import TrainingSequence, batches, on_device, spare_cores
from pspnet_repro.defaults import PRECISIONS, TIMEOUT_SECONDS
from pspnet_repro.errors import Interrupted, UsageError, UserError, first_line
from pspnet_repro.evaluation.precision import use_precision
from pspnet_repro.files import lock_folder, sync, write_bytes
from pspnet_repro.model.pspnet import PSPNet
from pspnet_repro.training import initial_weights as initial
from pspnet_repro.training import run_folder
from pspnet_repro.training.curve import Curve
from pspnet_repro.training.divergence import UnreadLosses, check_weights
from pspnet_repro.training.freezing import check_frozen, freeze, learning
from pspnet_repro.training.graph import GraphedPasses, check_place
from pspnet_repro.training.initial_weights import Weights
from pspnet_repro.training.loss import guided_loss
from pspnet_repro.training.memory import check_memory
from pspnet_repro.training.progress_log import ProgressLog
from pspnet_repro.training.replica import one_pass, replicate
from pspnet_repro.training.run_options import RunOptions
from pspnet_repro.training.settings import TrainSettings, seed_dropout
from pspnet_repro.training.snapshot_start import read_start
from pspnet_repro.training.solver import CaffeSGD, parameter_groups, poly_rate
from pspnet_repro.training.tensorboard import writer_class
from pspnet_repro.training.validation import Validator
from pspnet_repro.weights import model_file
from pspnet_repro.weights.source import snapshot_weights
from pspnet_repro.words import check_choice, counted

STEPS_UNREAD = 10  # on a GPU: what a step leaves there is read after so many, with one wait


def weights_digest(model: torch.nn.Module) -> str:
    """SHA-256 over names and bytes of a module's parameters and buffers, in hexadecimal."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _losses(model, images, labels, settings):
    """(total to differentiate, main loss, auxiliary loss or None) of one pass."""
    with torch.autocast(images.device.type, torch.bfloat16,
                        enabled=settings.precision == "bfloat16"):
        outputs = model(images)
    model = getattr(model, "module", model)
    loss, aux_loss = (
        None if logits is None else guided_loss(logits, labels, settings.guidance, model.stride,
                                                arithmetic=model.arithmetic,
                                                align_corners=model.align_corners)
        for logits in outputs)
    return loss if aux_loss is None else loss + settings.aux_weight * aux_loss, loss, aux_loss


def average_backward(model: torch.nn.Module, solver: CaffeSGD,
                     batches: Iterable[tuple[torch.Tensor, torch.Tensor]],
                     settings: TrainSettings) -> list[list[torch.Tensor | None]]:
    """The backward passes of one step, and gradients averaged over the processes.

    Args:
        model: what `replicate` gave.
        batches: (images, labels) of each of settings.iter_size passes; each process has its own,
            and its own VALID normalizer.
    Returns:
        The (total, main, auxiliary or None) losses of each pass in this process, detached.
    """
    solver.zero_grad(set_to_none=True)
    losses = []
    for images, labels in batches:
        with one_pass(model, last=len(losses) + 1 >= settings.iter_size):
            parts = _losses(model, images, labels, settings)
            solver.backward(parts[0])
        losses.append([None if part is None else part.detach() for part in parts])
    return losses


def train(settings: TrainSettings, pairs: Sequence[Pair], output: str | Path, *,
          timeout_seconds: float = TIMEOUT_SECONDS, device: str = "cpu",
          initial_weights: Weights | None = None, solverstate: str | Path | None = None,
          **options: Any) -> Path:
    """Train a PSPNet, resuming where an earlier call in the same folder stopped.

    Writes to `output`: settings.json, log.txt, losses.jsonl (one line a step), checkpoint.pt
    (weights, momentum, position), and weights.pt when all steps are done; what else is asked for
    RunOptions says. On the CPU the weights depend on `settings` and the number of processes only:
    neither on interruptions nor on RunOptions.

    Under torchrun all processes call this alike and share each batch: together they see the images
    that one process would. Gradients are averaged, so are the losses written. The first process
    alone reads and writes `output`; a signal to one stops all.

    Args:
        pairs: the training images.
        output: folder, made where it is missing.
        timeout_seconds: how long a process waits for another that does not answer.
        device: "cpu" or "cuda", see distributed.choose_device.
        initial_weights: what to start from, see `load_initial_weights`; with a solverstate the
            pair (prototxt, caffemodel) of the same snapshot, by default what it names.
        solverstate: path of a solverstate of Caffe's SGD: its steps count as taken, and its
            momentum is that of the next.
        options: attributes of RunOptions.
    Returns:
        The path of weights.pt.
    Raises:
        UserError: bad data, other settings than the folder's, a loss that is not finite, a lost
            process; UsageError: settings are out of range, or TensorBoard is not installed.
        Interrupted: a signal came; the state is saved.
    """
    output, how = Path(output), RunOptions(**options)
    if how.tensorboard:
        writer_class()
    if settings.zero_is_void:  # which the Pairs of a DataSet say themselves
        pairs = [dataclasses.replace(pair, table=pair.table or ZERO_IS_VOID) for pair in pairs]
    settings = dataclasses.replace(settings, initial_weights=None, solverstate=None)
    begun = None
    if solverstate is not None:
        initial_weights = initial_weights or snapshot_weights(solverstate)
        begun = read_start(solverstate, initial_weights, settings)
        settings = dataclasses.replace(settings, solverstate=begun.sha256)
    if initial_weights is not None:
        initial_weights = initial.read_structure(initial_weights)
        settings = dataclasses.replace(
            settings, initial_weights=initial_weights.sha256,
            model=initial.with_structure(settings.model, initial_weights))
    try:
        with (distributed.join(timeout_seconds, "train") as processes,
              use_precision(settings.precision), contextlib.ExitStack() as held):
            def lock():
                run_folder.check_ours(output)
                held.enter_context(lock_folder(output))

            # What the arguments have wrong is found before a folder is made.
            processes.split(settings.batch_size)
            model, solver = _build(settings, processes)
            check_memory(model.settings, settings, processes, device)
            origin = (initial.load_initial_weights(model, initial_weights) if initial_weights else
                      []) + check_frozen(model)
            device = distributed.choose_device(device)
            if how.cuda_graph:
                check_place(device, processes)
            processes.on_first(lock)
            how = dataclasses.replace(how, progress=how.progress and processes.first)
            return _train(settings, pairs, output, processes, device, model, solver, origin, begun,
                          how)
    except OSError as error:
        raise UserError(f"{error.filename or output}: cannot be written: "
                        f"{first_line(error)}") from error


def _build(settings, processes):
    """The network and its solver as they start. Raises UsageError for settings out of range."""
    try:
        if not 0 <= settings.seed < 2 ** 63:
            raise ValueError(f"seed must be 0 to 2^63 - 1, got {settings.seed}")
        for name in ("base_lr", "aux_weight"):
            if not 0 <= getattr(settings, name) < math.inf:
                raise ValueError(f"{name} must be finite and at least 0, got "
                                 f"{getattr(settings, name)}")
        check_choice("precision", settings.precision, PRECISIONS)
        if settings.precision != "float32" and settings.model.get("arithmetic") == "original":
            raise ValueError("precision must be float32 for arithmetic original, got "
                             f"{settings.precision}")
        torch.set_num_threads(settings.threads)
        torch.manual_seed(settings.seed)
        # The original's running variance starts at 0.
        model = PSPNet(**{"initial_running_var": 0.0, **settings.model})
        check_classes(model.classes)
        if model.arithmetic == "original" and processes.size > 1:
            raise ValueError(f"arithmetic original has each process's own statistics: it is for "
                             f"one process, got {processes.size}")
        model.check_crop(settings.crop_size)
        if settings.guidance == "eighth" and (settings.crop_size - 1) % model.stride:
            raise ValueError(f"crop_size must be {model.stride} * k + 1 pixels where guidance is "
                             f"eighth, got {settings.crop_size}: choose another, or guidance full")
        freeze(model, settings.freeze_bn, settings.freeze_backbone)
        solver = CaffeSGD(learning(parameter_groups(model, settings.decay_bn)), settings.base_lr,
                          settings.momentum, settings.weight_decay, settings.iter_size,
                          settings.rate_in_momentum)
    except (TypeError, ValueError, OverflowError, RuntimeError, MemoryError) as error:
        raise UsageError(first_line(error)) from error
    if not processes.first:
        # The same weights, but dropout of its own.
        seed_dropout(settings.seed, processes.rank)
    return model, solver


def _train(settings, pairs, output, processes, device, model, solver, origin, begun, how):
    weights_path, state_path, losses_path = (
        output / name for name in (run_folder.WEIGHTS, "checkpoint.pt", "losses.jsonl"))
    first = begun.iteration if begun else 0
    slots = processes.split(settings.batch_size)

    def finished():
        if weights_path.exists():
            run_folder.check_finished(settings, weights_path, how.facts)
            run_folder.check_whole(losses_path, settings.max_iter - first)
            # A kill can have come between the two.
            state_path.unlink(missing_ok=True)
        return weights_path.exists()

    if processes.on_first(finished):
        return weights_path
    facts = {**how.facts, "training": settings.to_json(), "initial_sha256": weights_digest(model),
             "processes": processes.size}
    processes.check_alike(json.dumps([facts["training"], facts["initial_sha256"]]),
                          "settings and initial weights")
    note = ("" if how.validation is None else
            processes.on_first(lambda: how.validation.check(model.classes)))
    model.train().to(device, memory_format=torch.channels_last if device.type == "cuda" else None)
    origin += begun.load(model, solver) if begun else []
    start = run_folder.restore(state_path, settings, model, solver, processes, device,
                               facts.get("base_size")) or first
    replica = replicate(model, processes)

    def step_passes(batches):
        return average_backward(replica, solver, batches, settings)

    if how.cuda_graph:
        step_passes = GraphedPasses(model, step_passes)

    def prepare():
        run_folder.cut_losses(losses_path, start, first)
        write_bytes(output / "settings.json", json.dumps(settings.to_json(), indent=1))

    processes.on_first(prepare)
    curve = Curve(output / "curve.jsonl", how.watch, start, settings.max_iter, processes, device)
    validator = Validator(how.validation, output, settings, start, processes, device, facts)
    sequence = TrainingSequence(pairs, model.classes, settings.crop_size, settings.augmentation,
                                settings.seed, model.image_input)
    passes = settings.iter_size
    workers = (spare_cores(device, settings.threads, len(slots) * settings.crop_size ** 2)
               if how.workers is None else how.workers)
    reader = on_device(batches(sequence, settings.batch_size, start * passes,
                               settings.max_iter * passes, workers, slots), device)
    interval = how.steps_unread or (STEPS_UNREAD if device.type == "cuda" else 1)
    unread = UnreadLosses(model, sequence, settings, processes)
    with ProgressLog(output, settings, start, processes, how.progress, how.log_seconds,
                     how.tensorboard) as log:
        log.say(f"step {start} of {settings.max_iter}, {counted(len(pairs), 'image')}, "
                f"{sum(p.numel() for p in model.parameters())} parameters, processes: "
                f"{processes.size}")
        for line in origin:
            (log.tell if start == first else log.say)(line)
        if how.validation is not None:
            log.say(str(how.validation))
        if note:
            log.tell(note)
        saved_at = time.monotonic()
        with run_folder.StopRequest() as stop, open(
                losses_path if processes.first else os.devnull, "a", encoding="utf-8",
                buffering=1) as losses:
            if validator.due_at_start:
                validator.test(model, start, stop, log)
            for iteration in range(start, settings.max_iter):
                steps = iteration + 1
                rate = poly_rate(settings.base_lr, iteration, settings.max_iter, settings.power)
                solver.set_rate(rate)
                unread.add(iteration, rate, step_passes(itertools.islice(reader, passes)))
                solver.step()
                test = validator.is_due(steps)
                if not (test or curve.is_due(steps) or steps % interval == 0
                        or steps == settings.max_iter):
                    continue
                # Nobody stops or saves alone. First, as a GPU's step never ends without a partner.
                told = processes.gather_numbers(
                    [stop.signal, time.monotonic() - saved_at > how.checkpoint_seconds])
                signal = int(max(number for number, _ in told))
                save = bool(told[0][1]) or signal or test
                lines = unread.read()
                check_weights(model, iteration, rate, sequence, settings)
                losses.writelines(json.dumps(line) + "\n" for line in lines)
                curve.look(model, steps)
                for line in lines:
                    log.step(line["iteration"] + 1, line)
                if save:
                    if processes.first:
                        sync(losses)
                    run_folder.save_state(state_path, settings, model, solver, steps, processes,
                                          device, facts.get("base_size"))
                    saved_at = time.monotonic()
                if signal:
                    processes.wait()
                    raise Interrupted(f"stopped after step {steps} of {settings.max_iter}; the "
                                      "same command resumes")
                if test:
                    validator.test(model, steps, stop, log)

        def save_weights():
            how.before_weights()
            model_file.save_model(weights_path, model, **facts)

        processes.on_first(save_weights)
        log.say(f"done: {weights_path.name}")
        for line in how.last_words() if processes.first else ():
            log.tell(line)
    if processes.first:
        state_path.unlink(missing_ok=True)
    return weights_path
