"""pspnet convert"""

import argparse
from pathlib import Path


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "convert", help="make a file of weights from Caffe's files, a PyTorch PSPNet or a ResNet",
        description="Makes a file of weights for predict, evaluate, export and train "
                    "--initial-weights. The content tells the source: a prototxt with its "
                    "caffemodel; a PSPNet of semseg, mmsegmentation or kazuto1011's conversion; an "
                    "ImageNet ResNet (50, 101, 152) of torchvision, timm or mmsegmentation; or a "
                    "file of this program. The command prints which layer went where, what the "
                    "source does otherwise than Caffe's program, and what it assumed.",
        examples=("pspnet convert NET.prototxt W.caffemodel -o OUT.safetensors",
                  "pspnet convert train_epoch_100.pth -o OUT.safetensors",
                  "pspnet convert pspnet_r50-d8_769x769.pth --align-corners -o OUT.safetensors",
                  "pspnet convert --backbone resnet50.pth -o R50.safetensors"))
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE",
                        help="NET.prototxt and W.caffemodel, or one file of PyTorch or safetensors")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT",
                        help="file to write: .safetensors, .pt or .pth")
    parser.add_argument("--backbone", action="store_true",
                        help="take the ResNet alone, without classifier or head")
    parser.add_argument("--align-corners", action="store_true",
                        help="of mmsegmentation's files, which do not tell: the configuration has "
                             "align_corners=True, as those with 769x769 in their names")
    parser.set_defaults(work="prototxt_import.commands.work.convert")
