"""What a training says while it runs: log.txt, the progress bar, TensorBoard's scalars."""

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from pspnet_repro.distributed import Processes
from pspnet_repro.errors import Interrupted, UserError, printable
from pspnet_repro.training.settings import TrainSettings
from pspnet_repro.training.tensorboard import Scalars
from pspnet_repro.words import counted


class ProgressLog(contextlib.AbstractContextManager):
    """The log of a training in the folder `output`, for a with block around the steps after step
    `start`; the first process's alone.

    Args:
        progress: show a progress bar.
        seconds: between two lines of progress in log.txt, at least; the last step has one too.
        tensorboard: write scalars for TensorBoard.
    """

    def __init__(self, output: Path, settings: TrainSettings, start: int, processes: Processes,
                 progress: bool, seconds: float, tensorboard: bool):
        self._settings, self._start, self._seconds = settings, start, seconds
        self._screen = progress
        self._scalars = Scalars(output / "tensorboard", start) if (
            tensorboard and processes.first) else None
        # Names of files may be of other encodings.
        self._file = open(output / "log.txt" if processes.first else os.devnull, "a",
                          encoding="utf-8", errors="backslashreplace", buffering=1)
        self._bar = tqdm(total=settings.max_iter, initial=start, desc=output.name, unit="step",
                         disable=not progress)
        self._began = self._written = time.monotonic()
        self._paused = 0.0

    def __exit__(self, _kind, error, _traceback):
        self._bar.close()
        if isinstance(error, UserError):
            self.say(f"failed: {error}")
        elif isinstance(error, Interrupted):
            self.say(str(error))
        if self._scalars is not None:
            self._scalars.close()
        self._file.close()

    def say(self, text: str) -> None:
        """A line of log.txt."""
        self._file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")

    def tell(self, text: str) -> None:
        """A line of log.txt and of the screen."""
        self.say(text)
        if self._screen:
            tqdm.write(printable(text), file=sys.stderr)

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """A with block that is no part of the steps' time."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._paused += time.monotonic() - began
            self._bar.set_postfix_str("", refresh=False)

    def step(self, steps: int, line: dict) -> None:
        """Tell of a step, with which `steps` are done, by its line of losses.jsonl."""
        self._bar.update()
        self._bar.set_postfix(loss=f"{line['loss']:.3f}", refresh=False)
        if self._scalars is not None:
            self._scalars.add(steps, {"loss/main": line["loss"], "loss/auxiliary": line["loss_aux"],
                                      "learning_rate": line["lr"]})
        now = time.monotonic()
        if now - self._written < self._seconds and steps != self._settings.max_iter:
            return
        self._written = now
        seconds = (now - self._began - self._paused) / (steps - self._start)
        images = self._settings.batch_size * self._settings.iter_size
        aux = "" if line["loss_aux"] is None else f" auxiliary loss {line['loss_aux']:.4f}"
        self.say(f"step {steps} of {self._settings.max_iter}: loss {line['loss']:.4f}{aux} rate "
                 f"{line['lr']:.4g}, {seconds:.3f} s per step, {images / seconds:.3g} images/s, "
                 f"{seconds * (self._settings.max_iter - steps):.0f} s left")

    def show_test(self, tested: int, images: int) -> None:
        """Show in the bar how far a validation is."""
        self._bar.set_postfix_str(f"validation {tested}/{images}")

    def validated(self, steps: int, figures: dict[str, float | None], images: int, failed: int,
                  is_best: bool) -> None:
        """Tell of a validation after so many steps.

        Args:
            figures: by name; None for one that is not defined.
            images, failed: how many were tested, and how many could not be used.
            is_best: whether best.pt is of it.
        """
        shown = {name: "not defined" if figure is None else f"{100 * figure:.2f}"
                 for name, figure in figures.items()}
        left_out = f", {failed} left out" if failed else ""
        self.tell(f"validation after step {steps}: mean IoU {shown['mean_iou']}, pixel accuracy "
                  f"{shown['pixel_accuracy']}, mean class accuracy {shown['mean_accuracy']} "
                  f"({counted(images, 'image')}{left_out}){'; the best so far: best.pt' * is_best}")
        if self._scalars is not None:
            self._scalars.add(steps, {f"validation/{name}": figure
                                      for name, figure in figures.items()})
