"""Tests of a network on validation images along its training, and the best network so far."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch

from pspnet_repro.data.conventions import IGNORE_INDEX
from pspnet_repro.data.pairs import Pair, read_label_of, read_pair
from pspnet_repro.defaults import BATCH_SIZE
from pspnet_repro.distributed import Processes
from pspnet_repro.errors import Interrupted, UserError
from pspnet_repro.evaluation import precision
from pspnet_repro.evaluation.evaluate import evaluate
from pspnet_repro.evaluation.imresize import imresize
from pspnet_repro.evaluation.metrics import ConfusionMatrix
from pspnet_repro.evaluation.protocol import Protocol
from pspnet_repro.model import image_input as image_inputs
from pspnet_repro.model.pspnet import PSPNet
from pspnet_repro.model.upsampling import upsample2d
from pspnet_repro.outputs import WAY_ON
from pspnet_repro.training.curve import add_point, eval_mode, keep_points
from pspnet_repro.training.progress_log import ProgressLog
from pspnet_repro.training.run_folder import StopRequest, check_same_settings
from pspnet_repro.training.settings import TrainSettings
from pspnet_repro.weights import model_file, plain_file
from pspnet_repro.words import counted

SEEN = 0.5  # the part of an image's pixels that a validation should see
FIGURES = ("mean_iou", "pixel_accuracy", "mean_accuracy")


@dataclasses.dataclass(frozen=True)
class Validation:
    """How a training is tested along its way; the weights do not depend on it."""

    interval: int  # steps between two tests; another comes after the last step
    pairs: list[Pair]  # with labels
    data: dict[str, str]  # plain facts of them: "data", "split", "list_sha256"
    place: str  # where they are, for people
    protocol: Protocol  # sizes and padding, at one scale
    # "sliding": the whole protocol, as `pspnet evaluate` tests; "centre": one window in the middle
    # of each resized image, without the mirror image, its label resized and cut alike. That is
    # quicker, and not the paper's figure.
    windows: str = "centre"

    @property
    def facts(self) -> dict:
        """What a line of validation.jsonl says of the test: figures compare where it is equal."""
        return {**self.data, "windows": self.windows, "base_size": self.protocol.base_size,
                "crop_size": self.protocol.crop_size}

    def __str__(self):
        how = (f"the whole test, windows of {self.protocol.crop_size} pixels that slide over the "
               "image and its mirror image" if self.windows == "sliding" else
               f"one centre window of {self.protocol.crop_size} pixels per image, which is "
               "quicker and not the figure of `pspnet evaluate`")
        every = "step" if self.interval == 1 else f"{self.interval} steps and the last"
        return (f"validation after every {every}: {counted(len(self.pairs), 'image')} of "
                f"{self.place}, {self.data['split']}; {how}; long side {self.protocol.base_size} + "
                "1")

    def check(self, classes: int) -> str:
        """A sentence on what the windows do not see, or "". Raises UserError where a file is
        missing, or no pixel that counts is labelled."""
        for pair in self.pairs:
            for path in (pair.image, pair.label):
                if not path.is_file():
                    raise UserError(f"{path}: no such file, but the validation needs it; "
                                    "`pspnet check-data` lists all problems of the data")
        for pair in self.pairs:
            label = read_label_of(pair, classes)
            share = self._share(*label.shape)
            if self.windows == "centre":
                label = centre_of_label(label, self.protocol)
            if (label < classes).any():
                return "" if share > SEEN else (
                    f"note: the centre windows see {share:.0%} of {pair.image}: what lies outside "
                    "has no part in mean IoU and best.pt; --val-windows sliding tests all of it, "
                    "and a smaller --base-size makes the windows see more")
        where = " in its centre window" if self.windows == "centre" else ""
        raise UserError(f"{self.place}, {self.data['split']}: no validation image has a "
                        f"labelled pixel{where}, so no accuracy is defined; `pspnet check-data` "
                        "says which values the label files hold")

    def _share(self, height, width):
        """The part of an image's pixels that is tested."""
        if self.windows == "sliding":
            return 1.0
        sides = self.protocol.scaled_size(height, width, 1.0)
        return math.prod(min(self.protocol.crop_size, side) / side for side in sides)

    def count(self, net: PSPNet, pairs: Sequence[Pair], each: Callable[[], object],
              failed: Callable[[UserError], object]) -> ConfusionMatrix:
        """Counts of a network in eval mode over some of the pairs.

        Args:
            each: called after every image that was tested.
            failed: called for an image that cannot be used, which is left out.
        """
        if self.windows == "sliding":
            return evaluate(net, pairs, classes=net.classes, protocol=self.protocol,
                            progress=False, on_error=failed, on_prediction=lambda *_: each())
        matrix = ConfusionMatrix(net.classes)
        device = next(net.parameters()).device
        for first in range(0, len(pairs), BATCH_SIZE):
            images, labels = [], []
            for pair in pairs[first:first + BATCH_SIZE]:
                try:
                    image, label = read_pair(pair, net.classes)
                except UserError as error:
                    failed(error)
                    continue
                images.append(centre_of_image(image, self.protocol, net.image_input))
                labels.append(centre_of_label(label, self.protocol))
            if not images:
                continue
            with torch.no_grad():
                logits = net.logits(torch.from_numpy(np.stack(images)).to(device))
                for k, label in enumerate(labels):
                    scores = upsample2d(logits[k:k + 1], label.shape, net.align_corners)
                    matrix.update(scores[0].argmax(0).cpu().numpy(), label)
                    each()
        return matrix


def centre_of_image(image: np.ndarray, protocol: Protocol,
                    image_input: image_inputs.ImageInput = image_inputs.CAFFE) -> np.ndarray:
    """(3, crop, crop) float32, a network's input: the middle of a (H, W, 3) uint8 BGR image at
    scale 1.

    The border of a smaller image has the mean colour, as in training.
    """
    scaled = imresize(image, protocol.scaled_size(*image.shape[:2], 1.0), protocol.antialias)
    window = _centre(image_input(scaled[..., ::-1]), protocol, 0.0)
    return np.ascontiguousarray(window.transpose(2, 0, 1))


def centre_of_label(label: np.ndarray, protocol: Protocol) -> np.ndarray:
    """(crop, crop) uint8: the same pixels of a (H, W) label, each the nearest one's; 255 around."""
    rows, cols = protocol.scaled_size(*label.shape, 1.0)
    scaled = cv2.resize(label, (cols, rows), interpolation=cv2.INTER_NEAREST_EXACT)
    return _centre(scaled, protocol, IGNORE_INDEX)


def _centre(pixels, protocol, border):
    crop = protocol.crop_size
    top, left = (max(size - crop, 0) // 2 for size in pixels.shape[:2])
    window = np.full((crop, crop, *pixels.shape[2:]), border, pixels.dtype)
    part = pixels[top:top + crop, left:left + crop]
    above, before = ((crop - size) // 2 if protocol.padding == "centre" else 0
                     for size in part.shape[:2])
    window[above:above + part.shape[0], before:before + part.shape[1]] = part
    return window


class _Stopped(Exception):
    """A signal came between two images."""


class Validator:
    """Tests a network between the steps of its training: a line of validation.jsonl per test, and
    best.pt, which is replaced where the mean IoU is higher than before.

    The training's state must be saved before `test`: a test that a stop cut off is then repeated,
    so validation.jsonl has one line per step.

    Args:
        asked: None for no tests.
        output: folder of the training.
        start: steps done.
        processes: each tests its share of the images; the first writes.
        facts: what best.pt says beside weights, figures and step.
    """

    def __init__(self, asked: Validation | None, output: Path, settings: TrainSettings, start: int,
                 processes: Processes, device: torch.device, facts: dict):
        self._asked, self._settings, self._facts = asked, settings, facts
        self._processes, self._device = processes, device
        self._lines, self._best_path = output / "validation.jsonl", output / "best.pt"
        self.due_at_start, self._best = False, None
        if asked is not None:
            is_tested, self._best = processes.on_first(lambda: self._read(start))
            self.due_at_start = self.is_due(start) and not is_tested

    def _read(self, start):
        """(whether step `start` was tested, mean IoU of best.pt or None)."""
        best = self._read_best(start)
        points = keep_points(self._lines, start, ("iteration", *FIGURES))
        return any(point["iteration"] == start for point in points), best

    def _read_best(self, start):
        """Mean IoU of best.pt, or None where there is none with which later tests compare. Raises
        UserError for a file of that name that no validation of this training wrote."""
        path = self._best_path
        if not path.exists():
            return None
        try:
            content = plain_file.load(path)
        except UserError as error:
            raise UserError(f"{error}; the validation writes its best network there: "
                            f"{WAY_ON}") from error
        check_same_settings(self._settings, content, path)
        point = content.get("validation")
        if (not isinstance(point, dict) or type(point.get("iteration")) is not int
                or type(point.get("mean_iou")) not in (int, float)):
            raise UserError(f"{path}: is there already, and no validation wrote it; it is not "
                            f"overwritten: {WAY_ON}")
        # Later steps were lost. Another test's figure is not comparable.
        if point["iteration"] > start or not self._asked.facts.items() <= point.items():
            return None
        return point["mean_iou"]

    def is_due(self, steps: int) -> bool:
        """Whether it is time for a test after so many steps."""
        return self._asked is not None and steps > 0 and (
            steps % self._asked.interval == 0 or steps == self._settings.max_iter)

    def test(self, model: PSPNet, steps: int, stop: StopRequest, log: ProgressLog) -> None:
        """Test the network after so many steps; its weights, its mode and random numbers stay.

        Where `stop` has seen a signal after an image it raises Interrupted: nothing of the test is
        kept.
        """
        with log.pause():
            figures, images, failed = self._figures(model, steps, stop, log)
        point = {"iteration": steps, **figures, "images": images, "failed": failed,
                 **self._asked.facts}
        is_best = figures["pixel_accuracy"] is not None and (
            self._best is None or figures["mean_iou"] > self._best)

        def write():
            # First: after a kill between the two, the test is repeated.
            if is_best:
                model_file.save_model(self._best_path, model, **self._facts, iteration=steps,
                                      validation=point)
            add_point(self._lines, point)

        self._processes.on_first(write)
        if is_best:
            self._best = figures["mean_iou"]
        log.validated(steps, figures, images, failed, is_best)

    def _figures(self, model, steps, stop, log):
        """(figures by name, images tested, images that could not be used) of all processes."""
        share = self._processes.shard(self._asked.pairs)
        tested, errors = 0, []

        def each():
            nonlocal tested
            tested += 1
            log.show_test(tested, len(share))
            if stop.signal:
                raise _Stopped

        with eval_mode(model, self._device), precision.use_precision("float32"):
            try:
                matrix = self._asked.count(model.for_inference(), share, each, errors.append)
            except _Stopped:
                matrix = ConfusionMatrix(model.classes)
        for error in errors:
            log.tell(f"left out of the validation: {error}")
        # Nobody stops alone: what all must know is exchanged at once.
        numbers = np.array([*matrix.counts.flat, tested, len(errors), stop.signal], np.int64)
        self._processes.sum_array(numbers)
        *_, tested, failed, signal = numbers.tolist()
        if signal:
            raise Interrupted(f"stopped after step {steps} of {self._settings.max_iter}, in its "
                              "validation; the same command resumes")
        matrix.counts = numbers[:-3].reshape(matrix.counts.shape)
        return {name: matrix.figures[name] for name in FIGURES}, tested, failed
