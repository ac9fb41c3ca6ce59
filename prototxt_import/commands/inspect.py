"""pspnet inspect"""

from pathlib import Path


def add(commands):
    parser = commands.add_parser(
        "inspect", help="layers, shapes, parameters and multiply-adds of a prototxt",
        examples=("pspnet inspect NET.prototxt", "pspnet inspect NET.prototxt W.caffemodel"))
    parser.add_argument("prototxt", type=Path, help="a network")
    parser.add_argument("caffemodel", type=Path, nargs="?", help="weights, to see that they fit")
    parser.add_argument("--phase", choices=("TRAIN", "TEST"), default="TEST",
                        help="which layers are in")
    parser.set_defaults(work="prototxt_import.inspect")
