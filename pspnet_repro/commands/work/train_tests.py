"""How a training's networks are tested: along its way, and by a command at its end."""

import shlex
from argparse import Namespace

from pspnet_repro.data.data_set import DataSet, open_data
from pspnet_repro.errors import UsageError, UserError
from pspnet_repro.evaluation.protocol import Protocol
from pspnet_repro.training.run_folder import WEIGHTS
from pspnet_repro.training.settings import TrainSettings
from pspnet_repro.training.validation import Validation
from pspnet_repro.words import counted

VAL = "val"
_OFF = "or train without a validation, --val-interval 0"


def validation_of(args: Namespace, data: DataSet, settings: TrainSettings) -> Validation | None:
    """The Validation that a training's arguments ask for, or None. Raises UsageError where the
    images to be tested are not there, or have no labels."""
    if args.val_interval is None and (args.val_data or args.val_split):
        raise UsageError("--val-data and --val-split need --val-interval STEPS, which says how "
                         "often they are tested")
    if not args.val_interval:
        return None
    split = args.val_split or VAL
    if args.val_data is None and data.one_split:
        raise UsageError("--val-data must name the images of the validation, as the training's "
                         "are one split alone: write lists with pspnet make-lists IMAGES LABELS "
                         f"-o DIR and give --data DIR, or give --val-data LIST; {_OFF}")
    try:
        tested = data if args.val_data is None else open_data(
            args.val_data, data_root=args.data_root, zero_is_void=args.zero_is_void,
            label_map=args.label_map, ignore=args.ignore)
        pairs, classes = tested.pairs(split), tested.classes()
        tested.check_classes(settings.model["classes"])
        digest = tested.digest(split)
    except UserError as error:
        raise UsageError(f"--val-interval {args.val_interval}: {error}; {_OFF}") from error
    if pairs[0].label is None:
        raise UsageError(f"--val-split: {tested.name}, {split} has no labels to compare with; "
                         f"name another split, {_OFF}")
    if classes is not None and len(classes.names) != settings.model["classes"]:
        raise UsageError(f"--val-data: {tested.name} has {counted(len(classes.names), 'class')}, "
                         f"and the training {settings.model['classes']}")
    base_size = args.base_size or (tested if tested.layout else data).recipe.base_size
    return Validation(
        args.val_interval, pairs, {"data": tested.name, "split": split, "list_sha256": digest},
        args.val_data or args.data,
        Protocol(base_size, settings.crop_size, padding=settings.augmentation.padding),
        args.val_windows)


def commands_that_test(args: Namespace, data: DataSet) -> list[str]:
    """Lines that say how weights.pt, and best.pt where it is there, are tested."""
    words, split, note = _where(args, data)
    options = ["--split", split] + ["--centre-padding"] * (args.padding == "centre")
    for name, default in (("device", "cpu"), ("threads", 2)):
        if getattr(args, name) != default:
            options += [f"--{name}", str(getattr(args, name))]
    lines = [["--weights", str(args.output / WEIGHTS)]]
    if (args.output / "best.pt").exists():
        # Beside weights.pt's, whose folder is named by the data alone.
        lines.append(["--weights", str(args.output / "best.pt"),
                      "--output", str(args.output / "evaluation-best")])
    return [f"test it{note}: {shlex.join(['pspnet', 'evaluate', *line, *words, *options])}"
            for line in lines]


def _where(args, data):
    """(options that name the data of a test, split, note on them)."""
    meaning = ["--zero-is-void"] * args.zero_is_void
    for name in ("data_root", "label_map"):
        if getattr(args, name) is not None:
            meaning += [f"--{name.replace('_', '-')}", str(getattr(args, name))]
    if args.ignore:
        meaning += ["--ignore", ",".join(map(str, args.ignore))]
    if args.val_data is not None:
        return ["--data", args.val_data, *meaning], args.val_split or VAL, ""
    words = (["--data", args.data] if args.data is not None else
             ["--images", str(args.images), "--labels", str(args.labels)])
    split = args.val_split or VAL
    if not data.one_split and _has(data, split):
        return [*words, *meaning], split, ""
    return ([*words, *meaning], args.split,
            " on the images that it learned from, or name others with --data")


def _has(data, split):
    try:
        return data.pairs(split)[0].label is not None
    except UserError:
        return False
