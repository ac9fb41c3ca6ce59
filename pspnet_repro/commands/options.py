"""Types and groups of options that commands share; nothing here is slow to import."""

import argparse
import re
from pathlib import Path

from pspnet_repro.data.classes import KNOWN
from pspnet_repro.defaults import BATCH_SIZE, MAX_SIDE, MULTI_SCALE, PRECISIONS

WEIGHTS = "weights.pt of a training, a file of convert, or NET.prototxt,W.caffemodel"


def shown_as(metavar):
    """Decorate an argument type with the word that stands for its values in the help."""
    def decorate(convert):
        convert.metavar = metavar
        return convert
    return decorate


@shown_as("N,N,...")
def numbers(text):
    """"1,2,3" -> (1, 2, 3); "" and "none" -> ()."""
    try:
        return tuple(int(part) for part in text.split(",")) if text not in ("", "none") else ()
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be whole numbers with commas between and no "
                                         f"spaces, such as 1,2,3, or none; got {text!r}") from error


def whole(low, high, metavar="N"):
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


def path(text):
    if not text:
        raise argparse.ArgumentTypeError("must not be empty")
    return Path(text)


def filled(text):
    if not text:
        raise argparse.ArgumentTypeError("must not be empty")
    return text


def _true_or_false(text):
    if text not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"must be true or false, got {text!r}")
    return text == "true"


def add_switch(group, name, **words):
    """Add an option that is on or off: NAME, NAME true or NAME false, so that it can take back what
    a settings file says."""
    group.add_argument(name, nargs="?", type=_true_or_false, const=True, default=False,
                       metavar="true|false", **words)


@shown_as("WEIGHTS")
def weights(text):
    """"FILE" -> Path; "NET.prototxt,W.caffemodel" -> a pair of Paths, one network."""
    net, comma, caffemodel = text.rpartition(".prototxt,")
    if comma and caffemodel:
        return Path(f"{net}.prototxt"), Path(caffemodel)
    if comma or re.search(r"^,.*\.caffemodel$|\.caffemodel,(.*\.prototxt)?$", text):
        raise argparse.ArgumentTypeError(f"must be a file, or NET.prototxt,W.caffemodel in this "
                                         f"order, got {text!r}")
    return path(text)


def add_testing(parser):
    """What tests which images how, and what ports do differently, each as a switch."""
    parser.add_argument("--weights", required=True, nargs="+", type=weights,
                        help=f"{WEIGHTS}; with several, their probabilities are averaged")
    add_names(parser)
    protocol = parser.add_argument_group("protocol")
    protocol.add_argument("--base-size", type=pixels,
                          help="resize the image to a long side of this many pixels and one more; "
                               "default: the benchmark's, or that of the weights")
    protocol.add_argument("--crop-size", type=pixels,
                          help="side of the windows; default: that of the weights")
    protocol.add_argument("--multi-scale", action="store_true",
                          help="average over the scales "
                               + ", ".join(f"{scale:g}" for scale in MULTI_SCALE))
    protocol.add_argument("--no-flip", action="store_true", help="leave the mirror image out")
    ports = parser.add_argument_group(
        "differences of other programs", "What ports do differently; to measure what it costs.")
    ports.add_argument("--half-pixel-logits", action="store_true",
                       help="upsample logits with half-pixel centres, not aligned corners")
    ports.add_argument("--no-antialias", action="store_true",
                       help="resize images without the filter against aliasing")
    ports.add_argument("--average-probabilities", action="store_true",
                       help="average the probabilities of an image and its mirror image, not the "
                            "logits")
    ports.add_argument("--no-plus-one", action="store_true",
                       help="resize to a long side of --base-size pixels, without one more")
    ports.add_argument("--centre-padding", action="store_true",
                       help="pad on all sides, not right and bottom")
    ports.add_argument("--whole-image", action="store_true",
                       help="one pass over the whole image, without windows")
    ports.add_argument("--window-stride", type=pixels,
                       help="from one window to the next; default: two thirds of the crop")
    speed = parser.add_argument_group("speed")
    speed.add_argument("--batch-size", type=whole(1, 4096), default=BATCH_SIZE,
                       help="windows per pass of the network, each with its mirror image")
    speed.add_argument("--device", choices=("cpu", "cuda"), default="cpu",
                       help="cuda: one GPU per process")
    speed.add_argument("--no-fusion", action="store_true",
                       help="run the network layer by layer, as in training: slower, rounds "
                            "otherwise")
    speed.add_argument("--precision", choices=PRECISIONS, default="float32",
                       help="tf32 (GPUs) and bfloat16 are faster and less exact; the difference "
                            "from float32 is measured on the first image and printed")
    speed.add_argument("--threads", type=processes, default=2,
                       help="threads of the computation")


def add_names(parser):
    parser.add_argument("--names", type=path, metavar="FILE",
                        help="names and colours of the classes, in lines RED GREEN BLUE NAME; or "
                             f"one of {', '.join(KNOWN)}; default: those of the weights or data")
