"""What a file of weights knows of how its network is tested."""

from dataclasses import dataclass
from pathlib import Path

from pspnet_repro.data.benchmarks import LAYOUTS, Recipe
from pspnet_repro.data.classes import KNOWN, MAX_NAME, Classes, known_classes, numbered_classes
from pspnet_repro.defaults import MAX_SIDE
from pspnet_repro.errors import UsageError, UserError
from pspnet_repro.evaluation.memory import wrong_sizes
from pspnet_repro.evaluation.protocol import PRESETS, Protocol, preset
from pspnet_repro.model.pspnet import PSPNet
from pspnet_repro.weights.model_file import crop_size_of, model_of
from pspnet_repro.weights.source import read_weights, weights_name
from pspnet_repro.words import counted

# The released networks, by their number of classes: their files name none.
_RELEASED = {150: "ade20k", 21: "voc2012", 19: "cityscapes"}


@dataclass
class NetworkFile:
    """A network and how it is tested."""

    path: Path  # of its weights
    net: PSPNet | None  # in eval mode; None once a Predictor has taken it over
    classes: Classes
    crop_size: int  # pixels, see evaluation.Protocol
    base_size: int
    data: str | None  # name of the data set that it was trained on
    preset: str = "caffe"  # of evaluation.protocol.PRESETS, which `pspnet convert` notes

    @property
    def protocol(self) -> Protocol:
        """The test of the program that made the network, with the sizes of the file."""
        return preset(self.preset, self.base_size, self.crop_size)

    def check_sizes(self, protocol: Protocol) -> None:
        """Raise UserError where a test needs too much memory, or a crop that the network cannot
        take: of the file where the size is its own, else a UsageError of the size."""
        for name, why in wrong_sizes(self.net.settings, protocol).items():
            size = getattr(protocol, name)
            if size == getattr(self, name):
                raise UserError(f"{self.path}: {name} {size}: {why}; give a smaller "
                                f"--{name.replace('_', '-')}, or a protocol with one")
            raise UsageError(f"{name}: {size} pixels: {why}; choose a smaller one")
        try:
            self.net.check_crop(protocol.crop_size)
        except ValueError as error:
            if protocol.crop_size == self.crop_size:
                raise UserError(f"{self.path}: {error}, its crop_size; give --crop-size, or a "
                                "protocol with another") from error
            raise UsageError(f"crop_size: {error}") from error

    def check_classes(self, count: int) -> None:
        """Raise UserError for a network of another number of classes."""
        if self.net.classes != count:
            raise UserError(f"{self.path}: has {counted(self.net.classes, 'class')}, "
                            f"must have {count} as the other weights")


def read_network(weights: str | Path | tuple) -> NetworkFile:
    """The network of a file of weights, and what the file says of its test.

    The crop is that of the training or of the prototxt. Names, colours and base size are those that
    the training stored, else the benchmark's that it was trained on, else, of the original's files,
    those of the released network with as many classes; else classes are numbered and the sizes are
    ADE20K's.

    Args:
        weights: path of a file of model_file.save_model, or a pair (prototxt, caffemodel).
    Raises:
        UserError: a file cannot be read or holds no PSPNet.
        UsageError: a prototxt without a caffemodel.
    """
    content, path = read_weights(weights), Path(weights_name(weights))
    net = model_of(content, path)
    if content.get("protocol") not in (None, *PRESETS):
        raise UserError(f"{path}: protocol must be one of {', '.join(PRESETS)}, got "
                        f"{str(content['protocol'])[:40]!r}: convert it again")
    data = _data(content, net.classes)
    recipe = LAYOUTS[data].recipe if data in LAYOUTS else Recipe()
    base_size = content.get("base_size")
    if type(base_size) is not int or not 1 <= base_size <= MAX_SIDE:
        base_size = recipe.base_size
    return NetworkFile(path, net.eval(), _classes(content, net.classes, data, path),
                       crop_size_of(content) or recipe.crop_size, base_size, data,
                       content.get("protocol") or "caffe")


def _data(content, count):
    training = content.get("training")
    if isinstance(training, dict):
        name = training.get("data")
        return name if isinstance(name, str) else None
    return _RELEASED.get(count)


def _classes(content, count, data, path):
    if "names" in content or "palette_rgb" in content:
        return _stored_classes(content.get("names"), content.get("palette_rgb"), count, path)
    if data in KNOWN and len(known_classes(data).names) == count:
        return known_classes(data)
    return numbered_classes(count)


def _stored_classes(names, palette_rgb, count, path):
    rules = [
        (isinstance(names, (list, tuple)) and len(names) == count and all(
            isinstance(name, str) and name.isprintable() and 0 < len(name) <= MAX_NAME
            for name in names),
         f"names must be {counted(count, 'name')} of at most {MAX_NAME} printable characters"),
        (isinstance(palette_rgb, (list, tuple)) and len(palette_rgb) == count and all(
            isinstance(colour, (list, tuple)) and len(colour) == 3
            and all(type(part) is int and 0 <= part <= 255 for part in colour)
            for colour in palette_rgb),
         f"palette_rgb must be {count} times three numbers from 0 to 255")]
    for fulfilled, message in rules:
        if not fulfilled:
            raise UserError(f"{path}: {message}")
    return Classes(tuple(names), tuple(tuple(colour) for colour in palette_rgb))
