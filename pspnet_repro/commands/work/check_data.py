"""What is wrong with a data set, printed."""

from argparse import Namespace

import numpy as np

from pspnet_repro.commands.work.data import data_of
from pspnet_repro.commands.work.testing import given_classes
from pspnet_repro.data.check import check_split
from pspnet_repro.data.classes import numbered_classes
from pspnet_repro.data.labels import IDENTITY
from pspnet_repro.errors import UsageError, UserError, check_printed, printable
from pspnet_repro.words import counted

SHOWN = 5  # files of a kind that are named
DEFAULT = ("train", "val")


def _classes(args, data):
    if args.classes is not None and data.layout is None and args.names is None:
        return numbered_classes(args.classes)
    found = given_classes(args, data)
    if found is None:
        raise UsageError("--classes or --names must say how many classes these lists have, or "
                         "classes.txt in their folder")
    return found


def _splits(args, data):
    """Names of the splits to check. Raises UserError where there is none."""
    if args.split or data.one_split:
        return [args.split or data.name]
    splits = [split for split in DEFAULT if data.has_list(split)]
    if not splits:
        others = data.splits_there()
        way = (f"--split NAME checks another list: {others}" if others else
               "make lists of two folders with pspnet make-lists IMAGES LABELS, or give the "
               "folders as --images and --labels")
        raise UserError(f"{data.lists or data.root}: has neither train.txt nor val.txt; {way}")
    for split in DEFAULT:
        if split not in splits:
            print(f"note: {split} is not checked: there is no {split}.txt")
    return splits


def run(args: Namespace) -> int:
    """Check the data; 0, or 1 where something is wrong."""
    data = data_of(args)
    classes = _classes(args, data)
    data.check_classes(len(classes.names))
    wrong, images, absent = False, {}, []
    for split in _splits(args, data):
        bad_lines = []
        try:
            pairs = data.pairs(split, bad_lines)
        except UserError as error:
            if args.split or data.layout is None:
                raise
            # A benchmark may be there in part.
            absent.append((split, error))
            continue
        labelled = not pairs or pairs[0].label is not None
        print(f"{data.name}, {split}: {counted(len(pairs), 'image')}"
              f"{'' if labelled else ' without labels'}")
        findings = check_split(pairs, len(classes.names), classes.palette_rgb, args.threads,
                               bad_lines)
        if pairs and labelled:
            _print_histogram(findings, classes.names,
                             np.frombuffer(pairs[0].table or IDENTITY, np.uint8))
        wrong |= _print_problems(findings)
        images[split] = {pair.image for pair in pairs}
    if not images:
        raise absent[0][1]
    for split, error in absent:
        print(f"note: {split} is not checked: {error}")
    shared = set.intersection(*images.values()) if len(images) > 1 else ()
    if shared:
        wrong = True
        print(f"wrong: {counted(len(shared), 'image is', 'images are')} in "
              f"{' and in '.join(images)}, for one {min(shared)}\n  to fix: a test on images that "
              "were trained on says nothing: take them out of one list")
    print("something is wrong, see above" if wrong else "nothing wrong was found")
    check_printed()
    return int(wrong)


def _print_histogram(findings, names, meaning):
    """Share of the labelled pixels and number of images of every class."""
    pixels, images = (np.bincount(meaning, weights, 256) for weights
                      in (findings.pixels, findings.occurs))
    classes = len(names)
    labelled = pixels[:classes].sum()
    width = max(map(len, names))
    for k, name in enumerate(names):
        print(f"  {k:3d}  {name:{width}}  {100 * pixels[k] / max(labelled, 1):6.2f}% of the "
              f"labelled pixels, in {counted(int(images[k]), 'image')}")
    print(f"  unlabelled: {100 * pixels[255] / max(pixels.sum(), 1):.2f}% of all pixels")
    absent = [name for k, name in enumerate(names) if not pixels[k]]
    if absent:
        verb = "class never occurs" if len(absent) == 1 else "classes never occur"
        print(f"  note: {len(absent)} {verb}: {', '.join(absent[:10])}"
              f"{' ...' if len(absent) > 10 else ''}")


def _print_problems(findings):
    """Whether there are any."""
    for (noun, what), details in findings.problems.items():
        print(f"wrong: {counted(len(details), noun)} {what}".rstrip())
        for detail in details[:SHOWN]:
            print(f"    {printable(detail)}")
        if len(details) > SHOWN:
            print(f"    and {len(details) - SHOWN} more")
        if (noun, what) in findings.advice:
            print(f"  to fix: {findings.advice[noun, what]}")
    return bool(findings.problems)
