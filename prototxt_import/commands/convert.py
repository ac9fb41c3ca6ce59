"""pspnet convert"""

import argparse
from pathlib import Path


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "convert", help="make a file of weights from Caffe's files or a torchvision ResNet",
        description="Makes a file of weights from a prototxt and a caffemodel, for predict, "
                    "evaluate, export and train --initial-weights. With --backbone the network is "
                    "an ImageNet ResNet; its classifier is left out.",
        examples=("pspnet convert NET.prototxt W.caffemodel -o OUT.safetensors",
                  "pspnet convert --backbone resnet50.pth -o R50.safetensors"))
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE",
                        help="NET.prototxt and W.caffemodel; or, with --backbone, one file with "
                             "the state dict of a torchvision ResNet")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT",
                        help="file to write: .safetensors, .pt or .pth")
    parser.add_argument("--backbone", action="store_true",
                        help="the network is a classification ResNet: leave its classifier out")
    parser.set_defaults(work="prototxt_import.commands.work.convert")
