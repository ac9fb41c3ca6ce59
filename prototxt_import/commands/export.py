"""pspnet export"""

import argparse
from pathlib import Path

from pspnet_repro.commands.options import WEIGHTS, weights


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "export", help="write weights for Caffe, ONNX, torch.export or semseg",
        description="Writes a PSPNet as Caffe's files, a deploy net and its weights, with --train "
                    "also a training net and its solver; or as files of other programs.",
        examples=("pspnet export RUN/weights.pt -o NET.prototxt W.caffemodel",
                  "pspnet export RUN/weights.pt -o NET.prototxt W.caffemodel --train",
                  "pspnet export RUN/weights.pt --onnx NET.onnx --crop-size 473"))
    parser.add_argument("weights", type=weights, metavar="WEIGHTS", help=WEIGHTS)
    parser.add_argument("-o", "--output", type=Path, nargs=2,
                        metavar=("NET.prototxt", "W.caffemodel"), help="Caffe's files to write")
    parser.add_argument("--onnx", type=Path, metavar="NET.onnx",
                        help="ONNX file to write, checked in onnxruntime")
    parser.add_argument("--onnx-input", choices=("prepared", "rgb"),
                        help="what the ONNX file takes: the network's input, or RGB images of "
                             "0..255, which it prepares itself; default: prepared")
    parser.add_argument("--onnx-output", choices=("logits", "scores", "labels"),
                        help="what the ONNX file gives: scores at the network's stride, scores of "
                             "every pixel, or classes; default: scores")
    parser.add_argument("--dynamic-size", action="store_true",
                        help="the files of --onnx and --torch-export take images of any size that "
                             "the network allows; default: of the crop size alone")
    parser.add_argument("--torch-export", type=Path, metavar="NET.pt2",
                        help="file for torch.export.load to write")
    parser.add_argument("--semseg", type=Path, metavar="OUT.pth",
                        help="file of weights for semseg's network to write")
    parser.add_argument("--crop-size", type=int, metavar="PIXELS",
                        help="side of the network's input; default: that of the weights")
    parser.add_argument("--train", action="store_true",
                        help="also write train_val.prototxt and solver.prototxt beside "
                             "NET.prototxt, with the training's settings or the paper's")
    parser.set_defaults(work="prototxt_import.commands.work.export")
