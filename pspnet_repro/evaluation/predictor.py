"""Label maps of photographs from a file of weights."""

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from pspnet_repro.data.classes import Classes
from pspnet_repro.data.images import read_image
from pspnet_repro.defaults import BATCH_SIZE, PRECISIONS
from pspnet_repro.distributed import choose_device
from pspnet_repro.errors import UsageError
from pspnet_repro.evaluation import precision as precisions
from pspnet_repro.evaluation.graph import GraphedNetwork
from pspnet_repro.evaluation.network_file import NetworkFile, read_network
from pspnet_repro.evaluation.pictures import overlay
from pspnet_repro.evaluation.protocol import PRESETS, Protocol, preset
from pspnet_repro.evaluation.sliding import predict_tiles
from pspnet_repro.evaluation.tiles import Tile

Photo = str | Path | Image.Image | np.ndarray
# A file, a pair (prototxt, caffemodel), or what one of these was read into.
Source = str | Path | tuple[str | Path, str | Path] | NetworkFile


@dataclass(frozen=True)
class Prediction:
    """What a network says of one photograph.

    Attributes:
        labels: (H, W) uint8, the class of every pixel, an index into `names`.
        confidence: (H, W) float32, the probability of that class.
        probabilities: (H, W, classes) float32 where they were asked for, else None.
        names: a word a class.
        colours: (red, green, blue) a class.
        image: (H, W, 3) uint8 RGB, the photograph.
    """

    labels: np.ndarray
    confidence: np.ndarray
    probabilities: np.ndarray | None
    names: Sequence[str]
    colours: Sequence[tuple[int, int, int]]
    image: np.ndarray

    def __repr__(self):
        height, width = self.labels.shape
        return f"Prediction({width}x{height} pixels, {len(self.names)} classes)"

    def overlay(self) -> Image.Image:
        """The photograph under the colours of its classes, with a legend below, as a PIL image."""
        return Image.fromarray(overlay(self.image, self.labels,
                                       Classes(tuple(self.names), tuple(self.colours))))


class Predictor:
    """Parses photographs with the networks of weight files, as their authors test them.

    Classes, names, colours, window and size of the images come from the file, see
    network_file.read_network. Of several networks the probabilities are averaged.

    Args:
        weights: path of a file of weights; a pair (prototxt, caffemodel); a NetworkFile; or a list
            of these.
        device: "cpu" or "cuda".
        precision: "float32", "tf32" (GPUs) or "bfloat16", see pspnet_repro.evaluation.precision.
        protocol: the Protocol of the test, or a name of evaluation.PRESETS with the sizes of the
            first file; None: the one that the first file notes, else the authors'.
        fused: run the copy PSPNet.for_inference, which is faster and rounds otherwise.
        cuda_graph: run passes as CUDA graphs, one for each shape of a batch.
    Raises:
        UserError: a file cannot be used, or files name other classes than the first.
        UsageError: an argument out of range, or a crop that a network cannot take.

    Attributes: `networks`, a list of PSPNet or of their fused copies; `classes`, a
    data.classes.Classes; `protocol`.
    """

    def __init__(self, weights: Source | list[Source], *, device: str = "cpu",
                 precision: str = "float32", protocol: Protocol | str | None = None,
                 fused: bool = True, cuda_graph: bool = False):
        if precision not in PRECISIONS:
            raise UsageError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
        if precision == "tf32" and device == "cpu":
            raise UsageError('precision "tf32" needs device "cuda": only GPUs have TF32')
        if not (protocol is None or isinstance(protocol, Protocol)
                or isinstance(protocol, str) and protocol in PRESETS):
            raise UsageError("protocol must be a pspnet_repro.evaluation.Protocol, or one of "
                             f"{', '.join(PRESETS)}, or None for the weights' own, got "
                             f"{protocol!r}")
        for name, value in (("fused", fused), ("cuda_graph", cuda_graph)):
            if not isinstance(value, bool):
                raise UsageError(f"{name} must be True or False, got {value!r}")
        if cuda_graph and device == "cpu":
            raise UsageError('cuda_graph needs device "cuda": a graph is a GPU\'s')
        files = [each if isinstance(each, NetworkFile) else read_network(each)
                 for each in (weights if isinstance(weights, list) else [weights])]
        if not files:
            raise UsageError("weights must name a file, got an empty list")
        self.classes = files[0].classes
        if isinstance(protocol, str):
            protocol = preset(protocol, files[0].base_size, files[0].crop_size)
        self.protocol = protocol or files[0].protocol
        for file in files:
            file.check_sizes(self.protocol)
        self.precision = precision
        self.networks = []
        for file in files:
            file.check_classes(len(self.classes.names))
            # The file's own goes, for memory.
            net, file.net = file.net.to(choose_device(device)), None
            net = precisions.network_in(net, precision, fused)
            self.networks.append(GraphedNetwork(net) if cuda_graph else net)

    @property
    def names(self) -> list[str]:
        """A word a class."""
        return list(self.classes.names)

    def __call__(self, image: Photo, probabilities: bool = False) -> Prediction:
        """Parse one photograph.

        Args:
            image: path, PIL image, or (H, W, 3) uint8 RGB array; files and PIL images are turned
                upright as their EXIF orientation says.
            probabilities: keep the probability of every class at every pixel.
        Raises:
            UserError: a file that cannot be read.
            UsageError: an image of another kind.
        """
        (prediction,) = self.many([image], probabilities=probabilities)
        return prediction

    def many(self, images: Iterable[Photo], batch_size: int = BATCH_SIZE,
             probabilities: bool = False) -> Iterator[Prediction]:
        """The Predictions of photographs in order, as a call gives them; each photograph is read
        when its turn comes.

        Args:
            batch_size: windows a pass of the network, of one or more photographs; as many mirror
                images go along.
        """
        waiting = deque()

        def read():
            for image in images:
                waiting.append(as_rgb(image))
                yield waiting[-1]

        for tiles in self.stream(read(), batch_size):
            image = waiting.popleft()
            labels = np.empty(image.shape[:2], np.uint8)
            confidence = np.empty(image.shape[:2], np.float32)
            kept = np.empty((*image.shape[:2], len(self.names)), np.float32) if (
                probabilities) else None
            for place, tile in tiles:
                labels[place] = tile.argmax(0).to(torch.uint8).cpu().numpy()
                confidence[place] = tile.amax(0).cpu().numpy()
                if kept is not None:
                    kept[place] = tile.permute(1, 2, 0).cpu().numpy()
            yield Prediction(labels, confidence, kept, self.names,
                             list(self.classes.palette_rgb), image)

    def stream(self, images_rgb: Iterable[np.ndarray],
               batch_size: int = BATCH_SIZE) -> Iterator[Iterable[Tile]]:
        """For each of (H, W, 3) uint8 RGB images the tiles of the networks' mean probabilities, as
        iterating Tiles gives them; read them before the next image's."""
        copies = itertools.tee(images_rgb, len(self.networks))
        streams = [predict_tiles(net, copy, classes=len(self.names), protocol=self.protocol,
                                 batch_size=batch_size)
                   for net, copy in zip(self.networks, copies)]
        for each in self._in_precision(itertools.zip_longest(*streams)):
            yield self._mean(each)

    def _mean(self, each):
        """The tiles of the mean of several networks' Tiles of one photograph."""
        for (place, mean), *others in self._in_precision(zip(*each)):
            for _, other in others:
                mean += other
            if others:
                mean /= len(each)
            yield place, mean

    def _in_precision(self, items):
        """What an iterator gives, made in the networks' precision; between two items the caller's
        code runs in its own."""
        while True:
            with precisions.use_precision(self.precision):
                item = next(items, None)
            if item is None:
                return
            yield item


def as_rgb(image: Photo) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a path, a PIL image or an array; raises as Predictor's call."""
    if isinstance(image, (str, Path)):
        return np.ascontiguousarray(read_image(image, upright=True)[:, :, ::-1])
    if isinstance(image, Image.Image):
        if image.mode in ("I", "F") or ";" in image.mode:
            raise UsageError(f"image must have 8 bits a channel, got a PIL image of mode "
                             f"{image.mode}: scale it to 0..255 and convert it to RGB")
        return np.array(ImageOps.exif_transpose(image).convert("RGB"))
    if not isinstance(image, np.ndarray):
        raise UsageError("image must be a path, a PIL image or a numpy array, got a "
                         f"{type(image).__name__}")
    kind = f"an array of shape {image.shape} and type {image.dtype}"
    ways = ((image.shape[2:] == (4,), "drop its transparency, image[:, :, :3]"),
            (image.ndim == 2, "repeat its one channel, numpy.stack([image] * 3, 2)"),
            (image.ndim == 3 and image.shape[0] == 3 != image.shape[2],
             "move its channels last, image.transpose(1, 2, 0)"))
    for applies, way in ways:
        if applies:
            raise UsageError(f"image must be (H, W, 3) RGB, got {kind}: {way}")
    if image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise UsageError(f"image must be (H, W, 3) RGB with at least one pixel, got {kind}")
    if image.dtype != np.uint8:
        raise UsageError(f"image must be uint8, 0 to 255, got {kind}: scale it to 0..255 and "
                         "convert it, image.astype(numpy.uint8)")
    return np.ascontiguousarray(image)
