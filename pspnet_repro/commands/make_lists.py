"""pspnet make-lists"""

import argparse

from pspnet_repro.commands.options import path
from pspnet_repro.commands.parser import Commands


def _share(text):
    try:
        value = float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from error
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 0 and below 1, got {text}")
    return value


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "make-lists", help="write the lists of a data set from its folders",
        description="Pairs images and labels by their names and writes OUT/train.txt and "
                    "OUT/val.txt, for --data OUT. A hash of seed and name chooses the images for "
                    "validation, so every machine chooses the same. --sbd makes VOC 2012's "
                    "train_aug and --pascal-context makes PASCAL Context's labels of 59 classes; "
                    "both need scipy. --coco makes labels of VOC's classes of COCO's instances.",
        examples=("pspnet make-lists IMAGES LABELS -o DATA --val 0.2",
                  "pspnet make-lists --sbd SBD --voc VOCdevkit -o DATA"))
    parser.add_argument("images", nargs="?", type=path, metavar="IMAGES", help="folder of images")
    parser.add_argument("labels", nargs="?", type=path, metavar="LABELS",
                        help="folder of labels: a/x.png for a/x.jpg, or with one ending added to "
                             "all: x_L.png for x.jpg")
    parser.add_argument("-o", "--output", required=True, type=path, metavar="OUT",
                        help="folder of the lists; only files of an earlier call are replaced")
    parser.add_argument("--val", type=_share, default=0.1, metavar="SHARE",
                        help="share of the images that go to val.txt; 0: no val.txt")
    parser.add_argument("--seed", type=int, default=0, help="another seed chooses other images")
    made = parser.add_argument_group("labels of other files")
    made.add_argument("--sbd", type=path,
                      help="benchmark_RELEASE of SBD: makes OUT for --data voc2012=OUT --split "
                           "train_aug")
    made.add_argument("--pascal-context", type=path,
                      help="folder of PASCAL Context's trainval/*.mat: makes OUT for --data "
                           "pascal-context=OUT")
    made.add_argument("--coco", type=path,
                      help="folder of COCO's annotations and train2017 (or train2014): makes OUT "
                           "for --data voc2012=OUT --split coco")
    made.add_argument("--voc", type=path,
                      help="VOC2012 for --sbd, VOC2010 for --pascal-context, or VOCdevkit")
    parser.set_defaults(work="pspnet_repro.commands.work.make_lists")
