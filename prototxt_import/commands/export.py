"""pspnet export"""

import argparse
from pathlib import Path

from pspnet_repro.commands.options import WEIGHTS, weights


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "export", help="write weights as Caffe's prototxt and caffemodel",
        description="Writes a PSPNet as Caffe's files: a deploy net and its weights; with --train "
                    "also a training net and its solver.",
        examples=("pspnet export RUN/weights.pt -o NET.prototxt W.caffemodel",
                  "pspnet export RUN/weights.pt -o NET.prototxt W.caffemodel --train"))
    parser.add_argument("weights", type=weights, metavar="WEIGHTS", help=WEIGHTS)
    parser.add_argument("-o", "--output", type=Path, nargs=2, required=True,
                        metavar=("NET.prototxt", "W.caffemodel"), help="files to write")
    parser.add_argument("--crop-size", type=int, metavar="PIXELS",
                        help="side of the network's input; default: that of the weights")
    parser.add_argument("--train", action="store_true",
                        help="also write train_val.prototxt and solver.prototxt beside "
                             "NET.prototxt, with the training's settings or the paper's")
    parser.set_defaults(work="prototxt_import.commands.work.export")
