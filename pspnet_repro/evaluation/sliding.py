"""Class probabilities of photographs: scales, sliding windows, mirror."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import torch

from pspnet_repro import ops
from pspnet_repro.defaults import BATCH_SIZE
from pspnet_repro.evaluation.imresize import imresize
from pspnet_repro.evaluation.protocol import Protocol, preset
from pspnet_repro.evaluation.tiles import Tiles
from pspnet_repro.model import image_input as image_inputs
from pspnet_repro.model.upsampling import upsample2d

Network = torch.nn.Module | Callable[[torch.Tensor], torch.Tensor]


@dataclass
class _View:
    """One scale of one image: its pixels, its windows, and the canvas they add up on."""

    tiles: Tiles  # of the photograph
    image: np.ndarray  # (rows, columns, 3) RGB, 0..255
    window: tuple
    tops: list
    lefts: list
    border: np.ndarray  # the network's input outside the image
    image_input: image_inputs.ImageInput
    canvas: torch.Tensor | None = None  # made when the first window arrives
    windows_left: int = field(init=False)

    def __post_init__(self):
        self.windows_left = len(self.tops) * len(self.lefts)

    def pixels(self, top, left):
        """(3, h, w) float32, the network's input of the window at (top, left)."""
        window = np.empty((3, *self.window), np.float32)
        window[:] = self.border[:, None, None]
        rows, cols = (slice(max(start, 0), min(start + size, in_size)) for start, size, in_size
                      in zip((top, left), self.window, self.image.shape))
        part = self.image_input(self.image[rows, cols])
        window[:, rows.start - top:rows.stop - top,
               cols.start - left:cols.stop - left] = part.transpose(2, 0, 1)
        return torch.from_numpy(window)

    def divide_by_counts(self):
        """The canvas' sums over windows become means."""
        if self.windows_left or len(self.tops) * len(self.lefts) == 1:
            return
        counts = []
        for starts, window, size in zip((self.tops, self.lefts), self.window,
                                        self.canvas.shape[1:]):
            count = torch.zeros(size)
            for start in starts:
                count[max(start, 0):start + window] += 1
            counts.append(count.to(self.canvas.device))
        self.canvas /= counts[0][:, None] * counts[1]


def _opencv_resize(image_rgb, size):
    """A (rows, columns, 3) float32, one channel after the other: in float32 a large image takes
    four times its memory."""
    return np.stack([cv2.resize(image_rgb[:, :, k].astype(np.float32), size[::-1],
                                interpolation=cv2.INTER_LINEAR) for k in range(3)], 2)


def _views(image_rgb, protocol, classes, step, image_input):
    """For every scale of an image a function that makes its _View."""
    height, width = image_rgb.shape[:2]
    sizes = [protocol.scaled_size(height, width, scale) for scale in protocol.scales]
    tiles = Tiles((classes, height, width), sizes, protocol.antialias, protocol.resize)

    def make(scaled_size):
        scaled = (imresize(image_rgb, scaled_size, protocol.antialias)
                  if protocol.resize == "matlab" else
                  _opencv_resize(image_rgb, scaled_size))
        rows, cols = scaled.shape[:2]
        window = protocol.window_size(rows, cols, step)
        # The scripts pad a larger image while it is still 8-bit: with the mean, rounded.
        exact = protocol.resize == "opencv" or protocol.fits(rows, cols)
        border = (np.zeros(3, np.float32) if exact else
                  image_input(image_input.mean_rgb.round()))
        return _View(tiles, scaled, window, protocol.window_starts(rows, window[0]),
                     protocol.window_starts(cols, window[1]), border, image_input)

    return [functools.partial(make, size) for size in sizes]


def _made_ahead(tasks):
    """What each function of an iterable returns; a thread runs one while the one before is used."""
    with ThreadPoolExecutor(1) as thread:
        coming = None
        for task in tasks:
            done, coming = coming, thread.submit(task)
            if done is not None:
                yield done.result()
        if coming is not None:
            yield coming.result()


def first_windows(image_rgb: np.ndarray, protocol: Protocol, count: int, step: int = 8,
                  image_input: image_inputs.ImageInput = image_inputs.CAFFE,
                  ) -> tuple[torch.Tensor, list[tuple[slice, slice]]]:
    """What the network sees first of a photograph, at the scale nearest 1.

    Returns:
        ((N, 3, h, w) float32, the network's input, N at most `count`; for each window the slices
        (rows, columns) of it that lie on the image).
    """
    scale = min(protocol.scales, key=lambda scale: abs(scale - 1))
    (make,) = _views(_checked(image_rgb), dataclasses.replace(protocol, scales=(scale,)), 1, step,
                     image_input)
    view = make()
    places = [(top, left) for top in view.tops for left in view.lefts][:count]
    areas = [tuple(slice(max(-start, 0), size - start) for start, size
                   in zip(place, view.image.shape)) for place in places]
    return torch.stack([view.pixels(*place) for place in places]), areas


def _runs(places):
    """(view, slice) for each run of places in the same view."""
    first = 0
    for k in range(1, len(places) + 1):
        if k == len(places) or places[k][0] is not places[first][0]:
            yield places[first][0], slice(first, k)
            first = k


def _add_window(view, top, left, probabilities):
    """Add (classes, h, w) to the view's canvas, less what sticks out of it."""
    rows, cols = (slice(max(-start, 0), size - start) for start, size
                  in zip((top, left), view.canvas.shape[1:]))
    part = probabilities[:, rows, cols]
    top, left = max(top, 0), max(left, 0)
    view.canvas[:, top:top + part.shape[1], left:left + part.shape[2]] += part


@torch.no_grad()
def _run(net, places, protocol, classes, device):
    """Put a batch of (view, top, left) through the network, onto the canvases.

    Returns the Tiles of the photographs that are complete with it.
    """
    count, window = len(places), places[0][0].window
    batch = torch.stack([view.pixels(top, left) for view, top, left in places]).to(device)
    if protocol.flip:
        batch = torch.cat([batch, batch.flip(3)])
    for view, _, _ in places:
        if view.canvas is None:
            view.canvas = torch.zeros(classes, *view.image.shape[:2], device=device)
    logits = getattr(net, "logits", None)
    maps = (logits or net)(batch)
    wanted = classes, *(maps.shape[2:] if logits else window)
    if tuple(maps.shape) != (len(batch), *wanted):
        raise ValueError(f"net must return (N, {', '.join(map(str, wanted))}) for N = "
                         f"{len(batch)}, got {tuple(maps.shape)}")
    aligned = protocol.align_corners and getattr(net, "align_corners", True)
    if logits and aligned and (protocol.merge == "logits" or not protocol.flip):
        for view, run in _runs(places):
            mirrored = maps[count + run.start:count + run.stop] if protocol.flip else None
            ops.scores(view.canvas, maps[run], mirrored, [top for _, top, _ in places[run]],
                       [left for _, _, left in places[run]], window)
    else:
        for k, (view, top, left) in enumerate(places):
            # One window at a time, with its mirror image: scores of full size are large.
            scores = maps[k::count]
            if logits:
                scores = upsample2d(scores, window, aligned)
            _add_window(view, top, left, _merged(scores, protocol))
    return [view.tiles for view, run in _runs(places)
            if _finished(view, run.stop - run.start)]


def _merged(scores, protocol):
    """Probabilities (classes, h, w) of a window's scores and, behind them, its mirror image's."""
    if not protocol.flip:
        return torch.softmax(scores[0], 0)
    once, mirrored = scores[0], scores[1].flip(2)
    if protocol.merge == "logits":
        return torch.softmax(once + mirrored, 0)
    return (torch.softmax(once, 0) + torch.softmax(mirrored, 0)) / 2


def _finished(view, windows):
    """Whether `windows` more windows complete the view's photograph."""
    view.windows_left -= windows
    if view.windows_left:
        return False
    view.divide_by_counts()
    canvas, view.canvas = view.canvas, None
    return view.tiles.add(canvas)


def predict_stream(net: Network, images_rgb: Iterable[np.ndarray], *, classes: int,
                   protocol: Protocol, batch_size: int = BATCH_SIZE) -> Iterator[torch.Tensor]:
    """`predict_tiles` with the tiles of a photograph in one tensor, (classes, H, W) float32."""
    for tiles in predict_tiles(net, images_rgb, classes=classes, protocol=protocol,
                               batch_size=batch_size):
        yield tiles.whole()


def predict_tiles(net: Network, images_rgb: Iterable[np.ndarray], *, classes: int,
                  protocol: Protocol, batch_size: int = BATCH_SIZE) -> Iterator[Tiles]:
    """Class probabilities of photographs, one after the other; windows of several share a batch.

    Args:
        net: a network in eval mode with `.logits` (then nothing of full size but the canvas is
            made, see ops.scores), or any callable; see predict_probabilities.
        images_rgb: (H, W, 3) or (H, W) uint8; the next is read, and resized in a thread, while
            the network sees the one before.
        batch_size: windows a pass of the network; with `flip` as many mirror images go along.
    Yields:
        The Tiles of each image, on the network's device, in the order of the images.
    Raises:
        ValueError: an image, the batch size or what `net` returns is not as above.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    if not protocol.align_corners and not hasattr(net, "logits"):
        raise ValueError("align_corners must be True for a network without .logits: it returns "
                         "scores of full size")
    if hasattr(net, "logits") and getattr(net, "training", False):
        raise ValueError("net must be in eval mode: call .eval()")
    step = getattr(net, "stride", 8) if hasattr(net, "logits") else 8
    image_input = getattr(net, "image_input", image_inputs.CAFFE)
    parameters = net.parameters() if hasattr(net, "parameters") else ()
    device = next((parameter.device for parameter in parameters), torch.device("cpu"))
    views = _made_ahead(make for image in images_rgb for make in
                        _views(_checked(image), protocol, classes, step, image_input))
    windows = ((view, top, left) for view in views
               for top in view.tops for left in view.lefts)
    places = []
    for window in windows:
        if places and (len(places) == batch_size or places[0][0].window != window[0].window):
            yield from _run(net, places, protocol, classes, device)
            places = []
        places.append(window)
    if places:
        yield from _run(net, places, protocol, classes, device)


def _checked(image_rgb):
    image = np.asarray(image_rgb)
    if image.dtype != np.uint8 or image.size == 0 or not (
            image.ndim == 2 or image.ndim == 3 and image.shape[2] == 3):
        raise ValueError(f"image_rgb must be (H, W, 3) or (H, W) uint8, got {image.shape}, "
                         f"{image.dtype}")
    return np.repeat(image[:, :, None], 3, 2) if image.ndim == 2 else image


def predict_probabilities(net: Network, image_rgb: np.ndarray, *, classes: int, base_size: int,
                          crop_size: int, scales: Iterable[float] = (1.0,), flip: bool = True,
                          batch_size: int = BATCH_SIZE, protocol: str = "caffe",
                          **deviations: Any) -> np.ndarray:
    """Class probabilities of a photograph by the authors' protocol, or another program's.

    At each scale the image is resized to a long side of base_size * scale + 1, windows of
    `crop_size` slide over it by two thirds, logits of a window and of its mirror image are summed
    before softmax, probabilities are averaged over windows, resized back and renormalized; scales
    are averaged.

    Args:
        net: a PSPNet in eval mode, or any callable float32 (N, 3, crop, crop) BGR minus mean ->
            (N, classes, crop, crop) logits.
        image_rgb: (H, W, 3) or (H, W) uint8.
        base_size, crop_size, scales, flip: see Protocol.
        batch_size: windows a pass of the network.
        protocol: "caffe" or "semseg", see evaluation.protocol.PRESETS.
        deviations: further fields of Protocol, in place of the preset's.
    Returns:
        (H, W, classes) float32.
    Raises:
        ValueError: the image, a size or what `net` returns is not as above.

    Source: the evaluation scripts of the release.
    """
    test = preset(protocol, base_size, crop_size, scales=scales, flip=flip, **deviations)
    (tiles,) = predict_tiles(net, [image_rgb], classes=classes, protocol=test,
                             batch_size=batch_size)
    probabilities = np.empty((*tiles.shape[1:], classes), np.float32)
    for place, tile in tiles:
        probabilities[place] = tile.permute(1, 2, 0).cpu().numpy()
    return probabilities
