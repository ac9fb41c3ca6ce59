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
    parser.set_defaults(work="prototxt_import.commands.work.inspect")
