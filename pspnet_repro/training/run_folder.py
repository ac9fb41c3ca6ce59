"""The files of a training beside its weights: log, losses and the state to resume from."""

import json
import re
import signal
from collections.abc import Iterable
from pathlib import Path

import torch

from pspnet_repro.differences import difference
from pspnet_repro.distributed import Processes
from pspnet_repro.errors import UserError, first_line, say
from pspnet_repro.files import json_lines, refuse_pipe, write_bytes
from pspnet_repro.model.pspnet import PSPNet
from pspnet_repro.outputs import WAY_ON
from pspnet_repro.training.settings import TrainSettings
from pspnet_repro.weights import model_file, plain_file
from pspnet_repro.words import counted

WEIGHTS = "weights.pt"  # of a finished training
_LOG = re.compile(rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d step \d+ of \d+, ")
_STEP = {"iteration", "lr", "loss", "loss_aux"}
_LINE = b'{"iteration": '


class StopRequest:
    """Turns SIGINT and SIGTERM into a flag, so that a step is never cut in the middle."""

    def __enter__(self):
        self.signal = 0
        self.previous = {s: signal.signal(s, self._note) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def _note(self, number, _frame):
        self.signal = number

    def __exit__(self, *_):
        for number, handler in self.previous.items():
            signal.signal(number, handler)


def check_same_settings(settings: TrainSettings, content: dict, path: Path) -> None:
    """Raise UserError where the content of a file is of a training with other settings."""
    saved = content.get("training")
    if not isinstance(saved, dict):
        raise UserError(f"{path}: not a file of a training: lacks its settings")
    try:
        found = difference(settings.to_json(), json.loads(json.dumps(saved)))
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: training: must be plain settings: {first_line(error)}") from error
    if found:
        # Weights of another network would not fit.
        start = ("" if found.startswith(("model.", "initial_weights")) else
                 f", and start there from these weights with --initial-weights {path}")
        way = ("it is finished: " if path.name == WEIGHTS else
               "give the old value to resume it, or ")
        raise UserError(f"{path}: holds a training with {found}; {way}choose another "
                        f"--output{start}")


def check_ours(folder: Path) -> None:
    """Raise UserError for settings.json or log.txt in a training's folder that no training wrote:
    they would be replaced and added to."""
    for name, is_ours in (("settings.json", _is_settings), ("log.txt", _LOG.match)):
        path = folder / name
        refuse_pipe(path)
        try:
            with open(path, "rb") as file:
                start = file.read(2 ** 20)
        except FileNotFoundError:
            continue
        if start and not is_ours(start):
            raise UserError(f"{path}: is there already, and no training of this program wrote it; "
                            f"it is not overwritten: {WAY_ON}")


def _is_settings(data):
    try:
        return {"list_sha256", "max_iter"} <= json.loads(data).keys()
    except (ValueError, AttributeError, RecursionError):
        return False


def cut_losses(path: Path, iteration: int, first: int = 0) -> None:
    """Drop the lines after step `iteration`, which the checkpoint does not have, from a file that
    starts after step `first`.

    Raises UserError where it lacks a step, or a line is not that of its step.
    """
    lines = read_lines(path)
    if len(lines) < iteration - first:
        raise UserError(f"{path}: holds {counted(len(lines), 'step')}, but the checkpoint beside "
                        f"it was saved after {iteration}; remove the folder to train again")
    for number, (_, content) in enumerate(lines, first):
        if content is None or content.keys() != _STEP or content["iteration"] != number:
            way_on = "remove the folder to train again" if number < iteration else WAY_ON
            raise UserError(f"{path}, line {number - first + 1}: not the line of iteration "
                            f"{number}; {way_on}")
    write_lines(path, (line for line, _ in lines[:iteration - first]))


def check_finished(settings: TrainSettings, path: Path, facts: dict) -> None:
    """Raise UserError where finished weights are of a training with other settings, or have another
    base size than RunOptions.facts."""
    content = plain_file.load(path)
    check_same_settings(settings, content, path)
    size = content.get("base_size")
    if facts.get("base_size", size) != size:
        raise UserError(f"{path}: is finished with base_size {size}, got {facts['base_size']}: "
                        "give the old --base-size, and this one to predict and evaluate")


def check_whole(path: Path, steps: int) -> None:
    """Raise UserError where the losses beside finished weights are not those of all steps."""
    lines = read_lines(path)
    if path.exists() and len(lines) != steps:
        raise UserError(f"{path}: holds {counted(len(lines), 'step')}, but the finished training "
                        f"beside it has {steps}; bring the whole file back from a copy, or remove "
                        "the folder to train again")


def read_lines(path: Path) -> list[tuple[str, dict | None]]:
    """json_lines of a file; [] where there is none. Raises UserError where a last line that was cut
    off is none that a training writes."""
    if not path.exists():
        return []
    refuse_pipe(path)
    if path.is_dir():
        raise UserError(f"{path}: must be a file, and is a folder; {WAY_ON}")
    data = path.read_bytes()
    lines, rest = json_lines(data), data.rpartition(b"\n")[2]
    if not (rest.startswith(_LINE) or _LINE.startswith(rest)):
        raise UserError(f"{path}, line {len(lines) + 1}: not the line of an iteration; {WAY_ON}")
    return lines


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Replace a file by lines, whole."""
    write_bytes(path, "".join(line + "\n" for line in lines))


def save_state(path: Path, settings: TrainSettings, model: PSPNet, solver: torch.optim.Optimizer,
               iteration: int, processes: Processes, device: torch.device,
               base_size: int | None = None) -> None:
    """Save what `restore` needs; to be called by all processes, written by the first."""
    rng = processes.gather(torch.get_rng_state() if device.type == "cpu"
                           else torch.cuda.get_rng_state(device))
    if processes.first:
        model_file.save_model(path, model, training=settings.to_json(), solver=solver.state_dict(),
                              rng=rng.flatten(), processes=processes.size, iteration=iteration,
                              base_size=base_size)


def restore(path: Path, settings: TrainSettings, model: PSPNet, solver: torch.optim.Optimizer,
            processes: Processes, device: torch.device, base_size: int | None = None) -> int:
    """Load the state that the first process has a file of, into model, solver and dropout.

    Another base size than the file's, of the tests alone, is said.

    Returns:
        The number of steps done; 0 without a file.
    Raises:
        UserError: the file is damaged, of other settings or of another number of processes.
    """
    data = processes.share_file(path)
    if data is None:
        return 0
    state = plain_file.load(path, data)
    check_same_settings(settings, state, path)
    try:
        if state.get("processes", 1) != processes.size:
            raise ValueError(f"it was saved by {counted(state.get('processes', 1), 'process')}, "
                             f"not {processes.size}")
        _check_state(state, settings)
        model_file.check_weights(state["weights"], path)
        for name, tensor in state["weights"].items():
            if tensor.dtype != torch.float32:
                raise ValueError(f"{name} must be of torch.float32, got {tensor.dtype}")
            _check_finite(name, tensor)
        model.load_state_dict(state["weights"])
        _load_solver(solver, state["solver"], state["iteration"])
        # A copy: torch crashes on a generator's state that starts within a storage.
        rng = state["rng"].view(processes.size, -1)[processes.rank].clone()
        if device.type == "cpu":
            torch.set_rng_state(rng)
        else:
            torch.cuda.set_rng_state(rng, device)
        if state.get("base_size", base_size) != base_size:
            say(f"note: {path} was saved with base_size {state['base_size']}; tests, and "
                f"{WEIGHTS}, have {base_size} from here on")
        return state["iteration"]
    except (LookupError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise UserError(f"{path}: does not fit this training: "
                        f"{' '.join(str(error).split())}") from error


def _check_state(state, settings):
    solver, iteration, rng = state["solver"], state["iteration"], state["rng"]
    if type(iteration) is not int or not 0 <= iteration <= settings.max_iter:
        raise ValueError(f"iteration must be a whole number from 0 to {settings.max_iter}, got "
                         f"{str(iteration)[:40]!r}")
    if not isinstance(rng, torch.Tensor) or rng.dtype != torch.uint8 or rng.dim() != 1:
        raise ValueError(f"rng must be a tensor of bytes, got a {type(rng).__name__}")
    if not isinstance(solver, dict):
        raise ValueError(f"solver must be a dictionary, got a {type(solver).__name__}")


def _load_solver(solver, state, iteration):
    """load_state_dict of a state that must be of this training after that many steps."""
    def options():
        return [{key: value for key, value in group.items() if key not in ("params", "lr")}
                for group in solver.param_groups]

    wanted = options()
    solver.load_state_dict(state)
    if options() != wanted:
        raise ValueError("solver: its groups are not this training's")
    # After a step every parameter has its momentum.
    learned = [p for group in solver.param_groups for p in group["params"]] if iteration else []
    for parameter in {*learned, *solver.state}:
        buffer = solver.state[parameter].get("momentum_buffer")
        if (not isinstance(buffer, torch.Tensor) or buffer.shape != parameter.shape
                or buffer.dtype != parameter.dtype):
            raise ValueError(f"solver: momentum_buffer must be a tensor of shape "
                             f"{tuple(parameter.shape)} and {parameter.dtype}")
        _check_finite("solver: momentum_buffer", buffer)


def _check_finite(name, tensor):
    if not tensor.isfinite().all():
        raise ValueError(f"{name} must be finite, and holds NaN or infinity: the file is damaged; "
                         "remove it to train again from the start")
