"""The training of a system, resumable, and the network that is tested."""

import functools
import itertools
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from google.protobuf.json_format import ParseDict

from prototxt_import.format.caffe_pb2 import SolverParameter
from prototxt_import.format.caffemodel import write_caffemodel
from prototxt_import.format.prototxt import write_prototxt
from prototxt_import.net import CaffeNet, load_net
from prototxt_import.solver import CaffeSolver
from pspnet_repro.data.pairs import Pair
from pspnet_repro.data.training_sequence import TrainingSequence, batches
from pspnet_repro.distributed import ALONE, choose_device
from pspnet_repro.errors import Interrupted, UserError
from pspnet_repro.files import sync, write_bytes
from pspnet_repro.model.upsampling import upsample2d
from pspnet_repro.training import run_folder
from pspnet_repro.training.curve import Curve, Watch
from pspnet_repro.training.divergence import check_losses, check_weights
from pspnet_repro.training.loop import weights_digest
from pspnet_repro.training.progress_log import ProgressLog
from pspnet_repro.training.settings import seed_dropout
from pspnet_repro.words import counted

from .initial import fix_upsampling, load_vgg16
from .network import Network
from .settings import SystemSettings
from .statistics import inference_parameters, median_frequency_weights

WEIGHTS, DEPLOY = "weights.caffemodel", "deploy.prototxt"  # of a finished training
CHECKPOINT = "checkpoint"
STATISTICS_BATCHES = 16  # over which caffe-segnet's BN is averaged for a test
CHECKPOINT_SECONDS = 120.0


class SystemNet(torch.nn.Module):
    """A system's network for testing, of Network.for_testing: (N, 3, crop, crop) BGR minus the mean
    -> scores of that size. Smaller scores are upsampled corner onto corner, as Interp does."""

    def __init__(self, net: CaffeNet):
        super().__init__()
        self.net = net.eval()
        self.image, *self.others = net.input_shapes
        # The scores are made last.
        self.scores = net.steps[-1].layer.top[0]
        self.classes = net.shapes[self.scores][1]

    def for_inference(self) -> "SystemNet":
        """Itself: nothing is fused."""
        return self

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        size = images.shape[2:]
        labels = {name: images.new_zeros(len(images), 1, *size) for name in self.others}
        self.net(**{self.image: images}, **labels)
        scores, self.net.blobs = self.net.blobs[self.scores], {}
        return scores if scores.shape[2:] == size else upsample2d(scores, size, True)


class _Trained(torch.nn.Module):
    """A network in training, which looks at it test: `for_inference` gives the network to test."""

    def __init__(self, net, of_now, classes):
        super().__init__()
        self.net, self.for_inference, self.classes = net, of_now, classes


def load_system(folder: Path) -> SystemNet:
    """The network of a finished training; UserError where its files are missing or damaged."""
    return SystemNet(load_net(folder / DEPLOY, folder / WEIGHTS, arithmetic="torch"))


def build(settings: SystemSettings, pairs: Sequence[Pair] = ()) -> tuple[Network, CaffeSolver]:
    """The network and its solver as the seed and the fillers make them; the labels of `pairs` give
    the weights of classes where a loss lacks them."""
    network = Network(Path(settings.net), settings.classes,
                      (settings.crop_size, settings.batch_size), settings.ours)
    class_weights = (median_frequency_weights(pairs, settings.classes)
                     if pairs and network.wants_weights else [])
    torch.manual_seed(settings.seed)
    param = ParseDict({**settings.solver, "net": settings.net}, SolverParameter())
    return network, CaffeSolver(param, settings.net, network.for_training(class_weights))


def train_system(settings: SystemSettings, pairs: Sequence[Pair], output: Path, *, device: str,
                 workers: int, progress: bool, initial_weights: Path | None, watch: Watch,
                 before_weights: Callable[[dict], object]) -> Path:
    """Train a system, resuming where an earlier call in the same folder stopped.

    Writes to `output` what pspnet_repro.training.loop.train does, with Caffe's files in place of
    its own: checkpoint_iter_N.caffemodel and .solverstate, and when all steps are done
    weights.caffemodel with deploy.prototxt. Each step draws its dropout from the seed and its
    number, so an interruption changes no bit.

    Args:
        before_weights: called with "training", "initial_sha256" and "processes" before
            weights.caffemodel is there, whose path is returned.
        others: as in `train`, and so are the errors.
    """
    weights_path, losses_path = output / WEIGHTS, output / "losses.jsonl"
    run_folder.check_ours(output)
    if weights_path.exists():
        run_folder.check_whole(losses_path, settings.max_iter)
        _remove_checkpoints(output)
        return weights_path
    torch.set_num_threads(settings.threads)
    network, solver = build(settings, pairs)
    net = solver.net
    notes = list(network.notes)
    if initial_weights is not None:
        notes.append(load_vgg16(net, initial_weights))
    if fixed := fix_upsampling(net):
        notes.append(f"fixed bilinear kernels on the diagonal: {', '.join(fixed)}")
    facts = {"training": settings.to_json(), "initial_sha256": weights_digest(net), "processes": 1}
    device = choose_device(device)
    net.to(device)
    start = _restore(output, solver)
    run_folder.cut_losses(losses_path, start)
    write_bytes(output / "settings.json", json.dumps(facts["training"], indent=1))
    curve = Curve(output / "curve.jsonl", watch, start, settings.max_iter, ALONE, device)
    sequence = TrainingSequence(pairs, settings.classes, settings.crop_size, settings.augmentation,
                                settings.seed)
    passes = settings.iter_size
    reader = batches(sequence, settings.batch_size, start * passes, settings.max_iter * passes,
                     workers)

    @functools.lru_cache(maxsize=1)  # the last look and the finished files are of the same step
    def for_test(_steps):
        return _for_test(network, net, sequence, device)

    model = _Trained(net, lambda: _tested(network, *for_test(solver.iteration), device),
                     settings.classes)
    with ProgressLog(output, settings, start, ALONE, progress, 60.0, False) as log, \
            run_folder.StopRequest() as stop, \
            open(losses_path, "a", encoding="utf-8", buffering=1) as losses:
        log.say(f"step {start} of {settings.max_iter}, {counted(len(pairs), 'image')}, "
                f"{sum(p.numel() for p in net.parameters())} parameters")
        for note in notes if start == 0 else ():
            log.tell(note)
        saved_at = time.monotonic()
        for iteration in range(start, settings.max_iter):
            steps, rate = iteration + 1, solver.learning_rate
            loss = _step(network, solver, itertools.islice(reader, passes), settings.seed, device)
            check_losses([[loss] * passes], iteration, rate, sequence, settings)
            line = {"iteration": iteration, "lr": rate, "loss": loss, "loss_aux": None}
            losses.write(json.dumps(line) + "\n")
            curve.look(model, steps)
            log.step(steps, line)
            if stop.signal or steps == settings.max_iter or (
                    time.monotonic() - saved_at > CHECKPOINT_SECONDS):
                check_weights(net, iteration, rate, sequence, settings)
                sync(losses)
                solver.snapshot(output / CHECKPOINT)
                _remove_checkpoints(output, steps)
                saved_at = time.monotonic()
            if stop.signal and steps < settings.max_iter:
                raise Interrupted(f"stopped after step {steps} of {settings.max_iter}; the same "
                                  "command resumes")
        param, weights = for_test(solver.iteration)
        before_weights(facts)
        write_prototxt(output / DEPLOY, param)
        write_caffemodel(weights_path, network.name, weights)
        log.say(f"done: {weights_path.name}")
    _remove_checkpoints(output)
    return weights_path


def _step(network, solver, passes, seed, device):
    """Take a step; the loss of its last pass."""
    seed_dropout(seed, solver.iteration)
    images, labels = zip(*passes)
    solver.step(**{
        network.image: [batch.to(device) for batch in images],
        network.label: [batch.to(device, torch.float32)[:, None] for batch in labels]})
    return solver.net.loss.item()


def _for_test(network, net, sequence, device):
    """(NetParameter, {layer: (type, [arrays])}) of the network that is tested."""
    def seen():
        for first in range(0, STATISTICS_BATCHES * network.batch_size, network.batch_size):
            samples = [sequence[first + k] for k in range(network.batch_size)]
            for sample in samples:
                if isinstance(sample, UserError):
                    raise sample
            images, labels = (torch.stack(parts).to(device) for parts in zip(*samples))
            yield {network.image: images, network.label: labels.float()[:, None]}

    parameters, param = inference_parameters(net, seen()), network.for_testing()
    return param, {layer.name: (layer.type, [tensor.detach().cpu().numpy() for tensor in
                                             parameters[layer.name]])
                   for layer in param.layer if layer.name in parameters}


def _tested(network, param, weights, device):
    copy = CaffeNet(param, network.path, arithmetic="torch")
    for name, (_, arrays) in weights.items():
        for tensor, array in zip(copy.params[name], arrays):
            tensor.data.copy_(torch.from_numpy(array))
    return SystemNet(copy).to(device)


def _checkpoints(output):
    """{steps: path} of the solverstates in a folder."""
    return {int(steps): path for path in output.glob(f"{CHECKPOINT}_iter_*.solverstate")
            if (steps := path.stem.rpartition("_")[2]).isdecimal()}


def _remove_checkpoints(output, but=None):
    """Remove all checkpoints, or all but the one after `but` steps."""
    for steps, path in _checkpoints(output).items():
        if steps != but:
            # A caffemodel without its solverstate is none, so that goes first.
            path.unlink()
            path.with_suffix(".caffemodel").unlink(missing_ok=True)


def _restore(output, solver):
    """Load the last checkpoint into the solver; how many steps it has."""
    steps, path = max(_checkpoints(output).items(), default=(0, None))
    if path is None:
        return 0
    try:
        solver.restore(path)
        if solver.iteration != steps:
            raise UserError(f"{path}: holds {solver.iteration} steps, its name says {steps}")
    except UserError as error:
        raise UserError(f"{error}; remove the folder {output} to train again") from error
    return solver.iteration
