"""What is wrong with a data set, printed."""

import numpy as np

from pspnet_repro.commands.work.data import data_of
from pspnet_repro.commands.work.testing import given_classes
from pspnet_repro.data.check import check_split
from pspnet_repro.data.classes import numbered_classes
from pspnet_repro.data.labels import IDENTITY
from pspnet_repro.errors import UsageError, check_printed

SHOWN = 5  # files of a kind that are named


def _classes(args, data):
    if args.classes is not None and data.layout is None and args.names is None:
        return numbered_classes(args.classes)
    found = given_classes(args, data)
    if found is None:
        raise UsageError("--classes or --names must say how many classes these lists have, or "
                         "classes.txt in their folder")
    return found


def run(args):
    """0, or 1 where something is wrong."""
    data = data_of(args)
    classes = _classes(args, data)
    data.check_classes(len(classes.names))
    splits = (args.split,) if args.split else ("train", "val")
    if data.one_split:
        splits = splits[:1] if args.split else (data.name,)
    wrong, images = False, {}
    for split in splits:
        pairs = data.pairs(split)
        print(f"{data.name}, {split}: {len(pairs)} images"
              f"{'' if pairs[0].label else ' without labels'}")
        findings = check_split(pairs, len(classes.names), classes.palette_rgb, args.threads)
        if pairs[0].label is not None:
            _print_histogram(findings, classes.names,
                             np.frombuffer(pairs[0].table or IDENTITY, np.uint8))
        wrong |= _print_problems(findings)
        images[split] = {pair.image for pair in pairs}
    shared = set.intersection(*images.values()) if len(images) > 1 else ()
    if shared:
        wrong = True
        print(f"wrong: {len(shared)} images are in {' and in '.join(images)}, for one "
              f"{min(shared)}\n  mend: a test on images that were trained on says nothing: take "
              f"them out of one list")
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
              f"labelled pixels, in {images[k]:.0f} images")
    print(f"  unlabelled: {100 * pixels[255] / max(pixels.sum(), 1):.2f}% of all pixels")
    absent = [name for k, name in enumerate(names) if not pixels[k]]
    if absent:
        verb = "class never occurs" if len(absent) == 1 else "classes never occur"
        print(f"  note: {len(absent)} {verb}: {', '.join(absent[:10])}"
              f"{' ...' if len(absent) > 10 else ''}")


def _print_problems(findings):
    """Whether there are any."""
    for kind, details in findings.problems.items():
        print(f"wrong: {len(details)} {kind}")
        for detail in details[:SHOWN]:
            print(f"    {detail}")
        if len(details) > SHOWN:
            print(f"    and {len(details) - SHOWN} more")
    for mend in findings.mends:
        print(f"  mend: {mend}")
    return bool(findings.problems)
