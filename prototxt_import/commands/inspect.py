"""pspnet inspect"""

import argparse
from pathlib import Path


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "inspect", help="list layers, shapes, parameters and multiply-adds of a prototxt",
        description="Lists the layers of any prototxt with their shapes, parameters and "
                    "multiply-adds.",
        examples=("pspnet inspect NET.prototxt", "pspnet inspect NET.prototxt W.caffemodel"))
    parser.add_argument("prototxt", type=Path, metavar="NET.prototxt", help="a network")
    parser.add_argument("caffemodel", type=Path, nargs="?", metavar="W.caffemodel",
                        help="check that these weights fit")
    parser.add_argument("--phase", choices=("TRAIN", "TEST"), default="TEST",
                        help="show the network of this phase")
    parser.add_argument("--stage", action="append", default=[], metavar="NAME",
                        help="a stage that layers ask for; once for each")
    parser.add_argument("--shape", type=_shape, action="append", default=[],
                        metavar="INPUT=N,C,H,W",
                        help="size of an input, in place of the file's; once for each input")
    parser.set_defaults(work="prototxt_import.commands.work.inspect")


def _shape(text):
    name, _, sizes = text.rpartition("=")
    try:
        shape = tuple(map(int, sizes.split(",")))
    except ValueError:
        shape = ()
    if not name or not shape or min(shape) < 1:
        raise argparse.ArgumentTypeError("must be an input's name and its sizes, such as "
                                         f"data=1,3,480,360, got {text!r}")
    return name, shape
