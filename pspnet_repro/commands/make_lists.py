"""pspnet make-lists"""

import argparse

from pspnet_repro.commands.data_options import path
from pspnet_repro.errors import UsageError


def _share(text):
    try:
        value = float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from error
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 0 and below 1, got {text}")
    return value


def add(commands):
    parser = commands.add_parser(
        "make-lists", help="write the lists of a data set from its folders",
        description="Pairs images and labels by their names and writes OUT/train.txt and "
                    "OUT/val.txt, for --data OUT; paths in them start from OUT. Which images are "
                    "for validation is drawn by a hash of seed and name, so it is the same on "
                    "every machine. With --sbd it makes VOC 2012's train_aug, with "
                    "--pascal-context PASCAL Context's labels of 59 classes: these need scipy.")
    parser.add_argument("images", nargs="?", type=path, metavar="IMAGES", help="folder of images")
    parser.add_argument("labels", nargs="?", type=path, metavar="LABELS",
                        help="folder of labels: a/x.png of a/x.jpg, or all with the same addition")
    parser.add_argument("-o", "--output", required=True, type=path, metavar="OUT",
                        help="folder of the lists; only files of an earlier call are replaced")
    parser.add_argument("--val", type=_share, default=0.1, metavar="SHARE",
                        help="share of the images for val.txt; 0: no val.txt; default: %(default)s")
    parser.add_argument("--seed", type=int, default=0,
                        help="of the draw; default: %(default)s")
    made = parser.add_argument_group("labels in .mat files")
    made.add_argument("--sbd", type=path, metavar="DIR",
                      help="benchmark_RELEASE of SBD: makes OUT for --data voc2012=OUT --split "
                           "train_aug")
    made.add_argument("--pascal-context", type=path, metavar="DIR",
                      help="folder of PASCAL Context's trainval/*.mat: makes OUT for --data "
                           "pascal-context=OUT")
    made.add_argument("--voc", type=path, metavar="DIR",
                      help="VOC2012 for --sbd, VOC2010 for --pascal-context, or VOCdevkit")
    parser.set_defaults(run=run)


def run(args):
    """Write the lists."""
    folders = [args.images, args.labels]
    mat = [name for name in ("sbd", "pascal_context") if getattr(args, name) is not None]
    if len(mat) > 1 or mat and folders != [None, None]:
        raise UsageError("give one of IMAGES LABELS, --sbd and --pascal-context")
    if mat and args.voc is None:
        raise UsageError(f"--{mat[0].replace('_', '-')} needs --voc: the folder with VOC's images "
                         "and lists")
    if not mat and args.voc is not None:
        raise UsageError("--voc goes with --sbd or --pascal-context")
    if not mat and None in folders:
        raise UsageError("two folders must be named, IMAGES and LABELS; or --sbd and --voc; or "
                         "--pascal-context and --voc")
    if args.output.exists() and not args.output.is_dir():
        raise UsageError(f"--output must be a folder, got the file {args.output}")
    from pspnet_repro.data import make_lists, mat_labels  # slow
    if args.sbd is not None:
        mat_labels.make_train_aug(args.sbd, args.voc, args.output)
    elif args.pascal_context is not None:
        mat_labels.make_pascal_context(args.pascal_context, args.voc, args.output)
    else:
        make_lists.make_lists(args.images, args.labels, args.output, args.val, args.seed)
