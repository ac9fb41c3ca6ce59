"""Types and groups of options that commands share; nothing here is slow to import."""

import argparse
import re
from collections.abc import Callable
from pathlib import Path

from pspnet_repro.data.classes import KNOWN
from pspnet_repro.defaults import BATCH_SIZE, MAX_SIDE, MULTI_SCALE, PRECISIONS, PROTOCOLS

Weights = Path | tuple[Path, Path]  # a file, or NET.prototxt and W.caffemodel
WEIGHTS = "weights.pt of a training, a file of convert, or NET.prototxt,W.caffemodel"


def shown_as(metavar: str) -> Callable[[Callable], Callable]:
    """Decorate an argument type with the word that stands for its values in the help."""
    def decorate(convert):
        convert.metavar = metavar
        return convert
    return decorate


@shown_as("N,N,...")
def numbers(text: str) -> tuple[int, ...]:
    """"1,2,3" -> (1, 2, 3); "" and "none" -> ()."""
    try:
        return tuple(int(part) for part in text.split(",")) if text not in ("", "none") else ()
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be whole numbers with commas between and no "
                                         f"spaces, such as 1,2,3, or none; got {text!r}") from error


def whole(low: int, high: int, metavar: str = "N") -> Callable[[str], int]:
    """An argument type: whole numbers from low to high."""
    @shown_as(metavar)
    def convert(text):
        try:
            value = int(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from error
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"must be {low} to {high}, got {value}")
        return value
    return convert


positive = whole(1, 2 ** 31 - 1)
pixels = whole(1, MAX_SIDE, "PIXELS")
processes = whole(1, 1024)


def filled(text: str) -> str:
    """An argument type: text that is not empty."""
    if not text:
        raise argparse.ArgumentTypeError("must not be empty")
    return text


@shown_as("DIR")
def path(text: str) -> Path:
    """An argument type: a path that is not empty."""
    return Path(filled(text))


def _true_or_false(text):
    if text not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"must be true or false, got {text!r}")
    return text == "true"


def add_switch(group: argparse._ArgumentGroup, name: str, **words: str) -> None:
    """Add an option that is on or off: NAME, NAME true or NAME false, so that it can take back what
    a settings file says."""
    group.add_argument(name, nargs="?", type=_true_or_false, const=True, default=False,
                       metavar="true|false", **words)


@shown_as("WEIGHTS")
def weights(text: str) -> Weights:
    """"FILE" -> Path; "NET.prototxt,W.caffemodel" -> a pair of Paths, one network."""
    net, comma, caffemodel = text.rpartition(".prototxt,")
    if comma and caffemodel:
        return Path(f"{net}.prototxt"), Path(caffemodel)
    if comma or re.search(r"^,.*\.caffemodel(\.h5)?$|\.caffemodel(\.h5)?,(.*\.prototxt)?$", text):
        raise argparse.ArgumentTypeError(f"must be a file, or NET.prototxt,W.caffemodel in this "
                                         f"order, got {text!r}")
    return path(text)


def add_testing(parser: argparse.ArgumentParser) -> None:
    """What tests which images how, and what ports do differently, each as a switch."""
    parser.add_argument("--weights", required=True, nargs="+", type=weights,
                        help=f"{WEIGHTS}; with several, their probabilities are averaged")
    add_names(parser)
    add = parser.add_argument_group("protocol").add_argument
    add("--protocol", choices=PROTOCOLS,
        help="whose tests: those of the authors' scripts, or of their later program; default: the "
             "one that pspnet convert noted in the weights, else caffe")
    add("--base-size", type=pixels,
        help="resize the image to a long side of this many pixels and one more; "
             "default: the benchmark's, or that of the weights")
    add("--crop-size", type=pixels, help="side of the windows; default: that of the weights")
    add("--multi-scale", action="store_true",
        help="average over the scales "
             + ", ".join(f"{scale:g}" for scale in MULTI_SCALE))
    add("--no-flip", action="store_true", help="leave the mirror image out")
    group = parser.add_argument_group(
        "differences of other programs", "What ports do differently; to measure what it costs.")

    def switch(name, field, value, words):
        """An option that gives a field of Protocol a value."""
        group.add_argument(name, action="append_const", dest="switches", const=(field, value),
                           default=[], help=words)

    switch("--half-pixel-logits", "align_corners", False,
           "upsample logits with half-pixel centres, not aligned corners")
    switch("--opencv-resize", "resize", "opencv",
           "resize by OpenCV in floating point, without rounding to 8 bits")
    switch("--python-rounding", "rounding", "python",
           "round the short side of an image half to even, as Python does")
    switch("--no-antialias", "antialias", False,
           "resize images without the filter against aliasing")
    switch("--average-probabilities", "merge", "probabilities",
           "average the probabilities of an image and its mirror image, not the logits")
    switch("--no-plus-one", "plus_one", False,
           "resize to a long side of --base-size pixels, without one more")
    switch("--centre-padding", "padding", "centre", "pad on all sides, not right and bottom")
    switch("--whole-image", "whole_image", True,
           "one pass over the whole image, without windows")
    group.add_argument("--window-stride", type=pixels,
                       help="from one window to the next; default: two thirds of the crop")
    add = parser.add_argument_group("speed").add_argument
    add("--batch-size", type=whole(1, 4096), default=BATCH_SIZE,
        help="windows per pass of the network, each with its mirror image")
    add("--device", choices=("cpu", "cuda"), default="cpu", help="cuda: one GPU per process")
    add("--cuda-graph", action="store_true",
        help="passes as CUDA graphs, one for each shape of a batch, for which a GPU does not wait")
    add("--no-fusion", action="store_true",
        help="run the network layer by layer, as in training: slower, rounds otherwise")
    add("--precision", choices=PRECISIONS, default="float32",
        help="tf32 (GPUs) and bfloat16 are faster and less exact; the difference "
             "from float32 is measured on the first image and printed")
    add("--threads", type=processes, default=2, help="threads of the computation")


def add_names(parser: argparse.ArgumentParser) -> None:
    """Give a command the option --names."""
    parser.add_argument("--names", type=path, metavar="FILE",
                        help="names and colours of the classes, in lines RED GREEN BLUE NAME; or "
                             f"one of {', '.join(KNOWN)}; default: those of the weights or data")
