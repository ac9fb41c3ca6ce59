"""Training, from the first line to the last."""

import dataclasses
import hashlib
import json
import math
import os
import signal
import sys
import time
from pathlib import Path

import torch
from tqdm import tqdm

from pspnet_repro import checkpoint
from pspnet_repro.data.augment import Augmentation
from pspnet_repro.data.dataset import TrainingSequence, batches
from pspnet_repro.data.lists import check_classes
from pspnet_repro.errors import UsageError, UserError, first_line
from pspnet_repro.initial_weights import load_initial_weights
from pspnet_repro.loss import guided_loss
from pspnet_repro.pspnet import PSPNet
from pspnet_repro.solver import CaffeSGD, parameter_groups, poly_rate


@dataclasses.dataclass(frozen=True)
class TrainSettings:
    """Everything that a training's result depends on.

    Attributes:
        model: keyword arguments of PSPNet.
        data: name of the data set, for people.
        list_sha256: of the training list's bytes, see data.lists.list_digest.
        zero_is_void: label files hold 0 = void, k + 1 = class k (ADE20K).
        crop_size, batch_size: pixels a side; images a backward pass.
        iter_size: backward passes a step.
        max_iter: steps.
        base_lr, power, momentum, weight_decay: the solver's (paper, 5.1).
        aux_weight: of the auxiliary branch's loss.
        guidance: "eighth" or "full", see loss.guided_loss.
        augmentation: what is drawn for each image.
        seed: of initial weights, order, augmentation and dropout.
        threads: of the computation; sums, and so bits, can depend on it.
        initial_weights: SHA-256 of the file that the weights start from, set by `train`.
    """

    model: dict
    data: str
    list_sha256: str
    zero_is_void: bool = False
    crop_size: int = 473
    batch_size: int = 16
    iter_size: int = 1
    max_iter: int = 150_000
    base_lr: float = 0.01
    power: float = 0.9
    momentum: float = 0.9
    weight_decay: float = 1e-4
    aux_weight: float = 0.4
    guidance: str = "eighth"
    augmentation: Augmentation = Augmentation()
    seed: int = 0
    threads: int = 2
    initial_weights: str | None = None

    def to_json(self):
        """Plain data, the same after a round trip through JSON."""
        return json.loads(json.dumps(dataclasses.asdict(self)))


class Interrupted(Exception):
    """Training was stopped by a signal after saving its state."""


class _StopRequest:
    """Turns SIGINT and SIGTERM into a flag, so that a step is never cut in the middle."""

    def __enter__(self):
        self.signal = None
        self.previous = {s: signal.signal(s, self._note) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def _note(self, number, _frame):
        self.signal = number

    def __exit__(self, *_):
        for number, handler in self.previous.items():
            signal.signal(number, handler)


def weights_digest(model):
    """SHA-256 over names and bytes of a module's parameters and buffers, in hexadecimal."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


class _Log:
    """Lines with their time at the end of a text file."""

    def __init__(self, path):
        self.file = open(path, "a", encoding="utf-8", buffering=1)

    def info(self, text):
        self.file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")


def _check_same_settings(settings, content, path):
    """Raise UserError where the content of a file is of a training with other settings."""
    saved = content.get("training")
    if not isinstance(saved, dict):
        raise UserError(f"{path}: not a file of a training: lacks its settings")
    ours, saved = _flat(settings.to_json()), _flat(saved)
    for key in sorted(set(ours) | set(saved)):
        if ours.get(key) != saved.get(key):
            raise UserError(f"{path}: holds a training with {key} = {saved.get(key)!r}, not "
                            f"{ours.get(key)!r}; choose another folder or remove this one")


def _flat(settings, prefix=""):
    """{"model": {"width": 1}} -> {"model.width": 1}."""
    flat = {}
    for key, value in settings.items():
        flat |= (_flat(value, f"{prefix}{key}.") if isinstance(value, dict)
                 else {prefix + key: value})
    return flat


def _cut_losses(path, iteration):
    """Drop the lines of steps that the checkpoint does not have."""
    kept = []
    if path.exists():
        kept = path.read_text(encoding="utf-8", errors="replace").splitlines()[:iteration]
    if len(kept) < iteration:
        raise UserError(f"{path}: holds {len(kept)} steps, but the checkpoint beside it was saved "
                        f"after {iteration}")
    checkpoint.write_bytes(path, "".join(line + "\n" for line in kept))


def _restore(path, settings, model, solver):
    """Load a checkpoint into model and solver and set dropout's generator; returns its step."""
    state = checkpoint.load(path)
    _check_same_settings(settings, state, path)
    try:
        model.load_state_dict(state["weights"])
        solver.load_state_dict(state["solver"])
        torch.set_rng_state(state["rng"])
        return int(state["iteration"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{path}: does not fit this training: "
                        f"{' '.join(str(error).split())}") from error


def _losses(model, images, labels, settings):
    """(total to differentiate, main loss, auxiliary loss or None) of one pass."""
    logits, aux_logits = model(images)
    loss = guided_loss(logits, labels, settings.guidance, model.stride)
    if aux_logits is None:
        return loss, loss, None
    aux_loss = guided_loss(aux_logits, labels, settings.guidance, model.stride)
    return loss + settings.aux_weight * aux_loss, loss, aux_loss


def train(settings, pairs, output, workers=0, checkpoint_seconds=120.0, progress=True,
          initial_weights=None):
    """Train a PSPNet, resuming where an earlier call in the same folder stopped.

    Writes to `output`: settings.json, log.txt, losses.jsonl (one line a step), checkpoint.pt
    (weights, momentum, position), and weights.pt when all steps are done. On the CPU the result
    depends on `settings` only: neither on interruptions nor on `workers`.

    Args:
        settings: TrainSettings.
        pairs: the training images, list of data.lists.Pair.
        output: folder, made where it is missing.
        workers: processes that read images ahead.
        checkpoint_seconds: least time between checkpoints.
        progress: show a progress bar.
        initial_weights: a file to start from, see `load_initial_weights`.
    Returns:
        The path of weights.pt.
    Raises:
        UserError: bad data, settings that differ from the folder's, a loss that is not finite;
            UsageError where settings are out of range.
        Interrupted: a signal came; the state is saved.
    """
    output = Path(output)
    settings = dataclasses.replace(
        settings, initial_weights=initial_weights and checkpoint.file_sha256(initial_weights))
    try:
        with checkpoint.lock_folder(output):
            return _train(settings, pairs, output, workers, checkpoint_seconds, progress,
                          initial_weights)
    except OSError as error:
        raise UserError(f"{output}: cannot be written: {error}") from error


def _build(settings):
    """The network and its solver as they start. Raises UsageError for settings out of range."""
    try:
        if not 0 <= settings.seed < 2 ** 63:
            raise ValueError(f"seed must be 0 to 2^63 - 1, got {settings.seed}")
        if not 0 <= settings.aux_weight < math.inf:
            raise ValueError(f"aux_weight must be finite and at least 0, got "
                             f"{settings.aux_weight}")
        torch.set_num_threads(settings.threads)
        torch.manual_seed(settings.seed)
        # The original's running variance starts at 0.
        model = PSPNet(**{"initial_running_var": 0.0, **settings.model})
        check_classes(model.classes)
        model.check_crop(settings.crop_size)
        solver = CaffeSGD(parameter_groups(model), settings.base_lr, settings.momentum,
                          settings.weight_decay, settings.iter_size)
    except (TypeError, ValueError, OverflowError, RuntimeError, MemoryError) as error:
        raise UsageError(first_line(error)) from error
    return model, solver


def _train(settings, pairs, output, workers, checkpoint_seconds, progress, initial_weights):
    weights_path, state_path = output / "weights.pt", output / "checkpoint.pt"
    losses_path = output / "losses.jsonl"
    model, solver = _build(settings)
    if weights_path.exists():
        _check_same_settings(settings, checkpoint.load(weights_path), weights_path)
        return weights_path
    origin = load_initial_weights(model, initial_weights) if initial_weights else []
    initial_digest = weights_digest(model)
    model.train()
    start = _restore(state_path, settings, model, solver) if state_path.exists() else 0
    _cut_losses(losses_path, start)
    checkpoint.write_bytes(output / "settings.json", json.dumps(settings.to_json(), indent=1))

    def save_state(iteration):
        checkpoint.save_model(state_path, model, training=settings.to_json(),
                              solver=solver.state_dict(), rng=torch.get_rng_state(),
                              iteration=iteration)

    sequence = TrainingSequence(pairs, model.classes, settings.crop_size, settings.augmentation,
                                settings.seed, settings.zero_is_void)
    passes = settings.iter_size
    reader = batches(sequence, settings.batch_size, start * passes, settings.max_iter * passes,
                     workers)
    log = _Log(output / "log.txt")
    log.info(f"step {start} of {settings.max_iter}, {len(pairs)} images, "
             f"{sum(p.numel() for p in model.parameters())} parameters")
    for line in origin:
        log.info(line)
        if progress and start == 0:
            print(line, file=sys.stderr)
    bar = tqdm(total=settings.max_iter, initial=start, desc=output.name, unit="step",
               disable=not progress)
    began = saved_at = time.monotonic()
    try:
        with _StopRequest() as stop, open(
                losses_path, "a", encoding="utf-8", buffering=1) as losses, bar:
            for iteration in range(start, settings.max_iter):
                rate = poly_rate(settings.base_lr, iteration, settings.max_iter, settings.power)
                solver.set_rate(rate)
                solver.zero_grad(set_to_none=True)
                for k in range(passes):
                    images, labels = next(reader)
                    total, loss, aux_loss = _losses(model, images, labels, settings)
                    if not math.isfinite(total.item()):
                        first = (iteration * passes + k) * settings.batch_size
                        names = ", ".join(str(sequence.pair(p).image)
                                          for p in range(first, first + settings.batch_size))
                        raise UserError(f"loss is {total.item()} at iteration {iteration}, "
                                        f"images {names}")
                    total.backward()
                solver.step()
                line = {"iteration": iteration, "lr": rate, "loss": loss.item(),
                        "loss_aux": None if aux_loss is None else aux_loss.item()}
                losses.write(json.dumps(line) + "\n")
                bar.update()
                bar.set_postfix(loss=f"{line['loss']:.3f}", refresh=False)
                if (iteration + 1) % 50 == 0:
                    seconds = (time.monotonic() - began) / (iteration + 1 - start)
                    left = seconds * (settings.max_iter - iteration - 1)
                    log.info(f"step {iteration + 1} loss {line['loss']:.4f}, {seconds:.3f} s a "
                             f"step, {left:.0f} s left")
                if stop.signal is not None or time.monotonic() - saved_at > checkpoint_seconds:
                    losses.flush()
                    os.fsync(losses.fileno())
                    save_state(iteration + 1)
                    saved_at = time.monotonic()
                if stop.signal is not None:
                    log.info(f"stopped by signal {stop.signal} after step {iteration + 1}")
                    raise Interrupted(f"stopped after step {iteration + 1} of "
                                      f"{settings.max_iter}; the same command goes on from there")
        checkpoint.check_finite(model, "after the last step")
        checkpoint.save_model(weights_path, model, training=settings.to_json(),
                              initial_sha256=initial_digest)
        log.info(f"done: {weights_path.name}")
    except UserError as error:
        log.info(f"failed: {error}")
        raise
    finally:
        log.file.close()
    state_path.unlink(missing_ok=True)
    return weights_path
