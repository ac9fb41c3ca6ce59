"""The options that name a data set; nothing here is slow to import."""

import argparse

from pspnet_repro.commands.options import add_switch, filled, path, shown_as
from pspnet_repro.data.classes import KNOWN


@shown_as("VALUE,...")
def _label_values(text):
    """"0,255" -> (0, 255)."""
    words = text.split(",")
    if not all(w.isascii() and w.isdigit() and len(w) < 4 and int(w) < 256 for w in words):
        raise argparse.ArgumentTypeError(f"must be label values 0 to 255 with commas between, "
                                         f"such as 0,255; got {text!r}")
    return tuple(map(int, words))


def add_data(parser: argparse.ArgumentParser) -> None:
    """Which data set, and what its labels mean."""
    data = parser.add_argument_group(
        "data", "Give --data, or --images and --labels. In lists, separate image and label by a "
        "tab if their names hold spaces.")
    data.add_argument("--data", type=filled, metavar="DATA",
                      help=f"NAME=DIR with NAME of {', '.join(KNOWN)}; or a folder with train.txt, "
                           "val.txt and perhaps classes.txt; or a list file with a line IMAGE "
                           "LABEL for each pair. pspnet make-lists writes such folders")
    data.add_argument("--images", type=path, help="folder of images")
    data.add_argument("--labels", type=path,
                      help="folder of their labels, with the same names and subfolders: a/x.png "
                           "for a/x.jpg; or with one ending added to all: x_L.png for x.jpg")
    data.add_argument("--data-root", type=path,
                      help="folder that the paths in lists start from; default: the lists' own")
    add_switch(data, "--zero-is-void",
               help="labels are 0 = void, k + 1 = class k (ADE20K); for lists and folders")
    data.add_argument("--label-map", type=path, metavar="FILE",
                      help="text file that says what labels mean, with lines VALUE CLASS, or RED "
                           "GREEN BLUE CLASS for labels in colours. CLASS is a number from 0, or "
                           "the word ignore. Other values keep their meaning in a benchmark or "
                           "with --zero-is-void; otherwise all but 255 are refused")
    data.add_argument("--ignore", type=_label_values, default=(),
                      help="label values that mean unlabelled, besides 255; such as 0,254; "
                           "default: none")
