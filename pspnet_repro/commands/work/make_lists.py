"""Lists of a data set from its folders."""

from argparse import Namespace

from pspnet_repro.data import mat_labels
from pspnet_repro.data.coco_labels import make_coco
from pspnet_repro.data.make_lists import make_lists
from pspnet_repro.errors import UsageError


def run(args: Namespace) -> None:
    """Write the lists."""
    folders = [args.images, args.labels]
    mat = [name for name in ("sbd", "pascal_context") if getattr(args, name) is not None]
    if len(mat) + (args.coco is not None) + (folders != [None, None]) > 1:
        raise UsageError("give one of IMAGES LABELS, --sbd, --pascal-context and --coco")
    if mat and args.voc is None:
        raise UsageError(f"--{mat[0].replace('_', '-')} needs --voc: the folder with VOC's images "
                         "and lists")
    if not mat and args.voc is not None:
        raise UsageError("--voc goes with --sbd or --pascal-context")
    if not mat and args.coco is None and None in folders:
        raise UsageError("two folders must be named, IMAGES and LABELS; or --sbd and --voc; or "
                         "--pascal-context and --voc; or --coco")
    if args.output.exists() and not args.output.is_dir():
        raise UsageError(f"--output must be a folder, got the file {args.output}")
    if args.sbd is not None:
        mat_labels.make_train_aug(args.sbd, args.voc, args.output)
    elif args.pascal_context is not None:
        mat_labels.make_pascal_context(args.pascal_context, args.voc, args.output)
    elif args.coco is not None:
        make_coco(args.coco, args.output)
    else:
        make_lists(args.images, args.labels, args.output, args.val, args.seed)
