"""pspnet run"""

import argparse
import math
from pathlib import Path


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "run", help="run the network of any prototxt on an image and write its blobs",
        description="Runs the network of any prototxt on an image, and writes its blobs or "
                    "compares them with recorded values.",
        examples=("pspnet run NET.prototxt W.caffemodel IMAGE -o OUT.npz --blobs conv5_4,conv6",
                  "pspnet run NET.prototxt W.caffemodel --compare GOLDEN.npz"))
    parser.add_argument("prototxt", type=Path, metavar="NET.prototxt", help="a network")
    parser.add_argument("caffemodel", type=Path, metavar="W.caffemodel", help="its weights")
    parser.add_argument("image", type=Path, nargs="?", metavar="IMAGE",
                        help="resized to the network's input; default: the input in the file of "
                             "--compare")
    parser.add_argument("-o", "--output", type=Path, metavar="OUT.npz",
                        help="file to write blobs to")
    parser.add_argument("--blobs", metavar="NAME,NAME",
                        help="blobs to write; default: the network's outputs")
    parser.add_argument("--mean", type=_mean, default=(103.939, 116.779, 123.68), metavar="B,G,R",
                        help="mean to subtract from the image")
    parser.add_argument("--compare", type=Path, metavar="GOLDEN",
                        help=".npz file of recorded values: name the first blob that deviates")
    parser.add_argument("--tolerance", type=float, default=2e-4,
                        help="largest error over the blob's largest value")
    parser.add_argument("--arithmetic", choices=("original", "torch"), default="original",
                        help="torch: several times faster, equal within rounding; original: "
                             "Caffe's own order of sums")
    parser.set_defaults(work="prototxt_import.commands.work.run")


def _mean(text):
    try:
        mean = tuple(map(float, text.split(",")))
    except ValueError:
        mean = ()
    # Finite as the float32 that is subtracted.
    if len(mean) != 3 or not all(math.isfinite(value) and abs(value) < 3.4e38 for value in mean):
        raise argparse.ArgumentTypeError(f"must be three finite numbers, got {text!r}")
    return mean
