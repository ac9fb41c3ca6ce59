"""A training as its options ask for it."""

import dataclasses
import sys
from argparse import Namespace

from pspnet_repro import distributed
from pspnet_repro.commands.work.data import check_apart, data_of
from pspnet_repro.commands.work.train_tests import commands_that_test, validation_of
from pspnet_repro.data.augment import NO_AUGMENTATION, Augmentation
from pspnet_repro.differences import flat_settings
from pspnet_repro.errors import UsageError, UserError, say
from pspnet_repro.files import file_sha256
from pspnet_repro.model.settings import NetworkSettings
from pspnet_repro.training.loop import train
from pspnet_repro.training.run_folder import WEIGHTS
from pspnet_repro.training.settings import TrainSettings
from pspnet_repro.training.tensorboard import writer_class
from pspnet_repro.weights.source import weights_files, weights_sha256

AUGMENTATIONS = {"all": Augmentation(), "mirror-resize": Augmentation(rotation=0.0, blur=False),
                 "none": NO_AUGMENTATION}


def run(args: Namespace) -> None:
    """Train, or resume."""
    if args.output.exists() and not args.output.is_dir():
        raise UsageError(f"--output must be a folder, got the file {args.output}")
    if args.tensorboard:
        writer_class()
    data = data_of(args)
    check_apart(args.output, data)
    recipe, known = data.recipe, data.classes()
    classes = _number_of_classes(args, data, known)
    data.check_classes(classes)
    if args.variance is args.initial_weights is args.solverstate is None:
        args.variance = NetworkSettings.variance
    model = {name: getattr(args, name) for name in NetworkSettings.arguments()
             if getattr(args, name, None) is not None}
    model |= {"classes": classes, "aux": not args.no_aux,
              "head": "literal" if args.arithmetic == "original" else "factorized"}
    if args.no_reduce:
        model["reduce"] = False
    augmentation = AUGMENTATIONS.get(args.augmentation, recipe.augmentation)
    if args.padding is not None:
        augmentation = dataclasses.replace(augmentation, padding=args.padding)
    pairs = data.pairs(args.split)
    if pairs[0].label is None:
        raise UserError(f"--data: {data.name}, {args.split} has no labels to train on")
    settings = TrainSettings(
        model=model, data=data.name, list_sha256=data.digest(args.split),
        zero_is_void=args.zero_is_void, crop_size=args.crop_size or recipe.crop_size,
        batch_size=args.batch_size, iter_size=args.iter_size,
        max_iter=args.max_iter or recipe.max_iter, base_lr=args.base_lr,
        aux_weight=args.aux_weight, guidance=args.guidance,
        augmentation=augmentation, seed=args.seed, threads=args.threads,
        freeze_bn=args.freeze_bn, freeze_backbone=args.freeze_backbone, precision=args.precision)
    _check_recorded(args, settings)
    validation = validation_of(args, data, settings)
    facts = {"base_size": args.base_size or recipe.base_size}
    if known is not None:
        facts |= {"names": known.names, "palette_rgb": known.palette_rgb}
    with distributed.join(args.timeout, "train") as joined:
        finished = joined.first and (args.output / WEIGHTS).exists()
        try:
            weights = train(
                settings, pairs, args.output, workers=args.workers, device=args.device,
                cuda_graph=args.cuda_graph,
                initial_weights=args.initial_weights, solverstate=args.solverstate, facts=facts,
                validation=validation,
                log_seconds=args.log_interval, tensorboard=args.tensorboard,
                last_words=lambda: commands_that_test(args, data))
        except UsageError as error:
            raise UsageError(_of_option(str(error), args)) from error
    if finished:
        print(f"{args.output} holds this training, finished: nothing is left to do",
              file=sys.stderr)
    if joined.first:
        print(weights)


def _of_option(text, args):
    """What is wrong with a setting, under the name of the option that gave it."""
    name, _, rule = text.partition(" ")
    if getattr(args, name, None) is not None:
        return f"--{name.replace('_', '-')} {rule}"
    if text.startswith("crop sizes "):
        return f"--crop-size: {text}"
    return f"--no-reduce: {text}" if name == "reduce" and args.no_reduce else text


def _number_of_classes(args, data, known):
    """The number of classes. Raises UsageError where it is not known, or is another."""
    if known is None and args.classes is None:
        raise UsageError(f"--classes must say how many classes {data.name} has: it is no known "
                         f"benchmark and has no classes.txt")
    if known is not None and args.classes not in (None, len(known.names)):
        raise UsageError(f"--classes must be {len(known.names)}, the number of classes that "
                         f"{data.name} has, got {args.classes}")
    return args.classes or len(known.names)


def _check_recorded(args, settings):
    """Compare a training with what settings.json of --config says and no option does.

    Other data are a choice, and are said. Raises UsageError where the training would be another,
    whatever the options say.
    """
    ours = flat_settings(settings.to_json())
    for key, (value, option, default) in args.recorded.items():
        if key == "initial_weights":
            _check_start(args, value)
        elif key == "solverstate":
            _check_solverstate(args, value)
        elif key == "list_sha256" and value != ours[key]:
            say(f"note: {args.config} is of a training on other images, or with another "
                "--label-map or --ignore")
        elif key in ("data", "list_sha256") or option and getattr(args, option) != default:
            continue  # the command line asks for others
        elif key.startswith("model.") and (args.initial_weights or args.solverstate) is not None:
            continue  # their file brings the structure
        elif ours.get(key) != value:
            raise UsageError(f"{args.config}: {key} = {value!r}, for which train has no option: "
                             f"here it is {ours.get(key)!r}; write the settings that have options "
                             "into a TOML file")


def _check_start(args, sha256):
    if sha256 is None or args.solverstate is not None and args.initial_weights is None:
        return
    if args.initial_weights is None:
        raise UsageError(f"{args.config}: its training started from weights with SHA-256 {sha256}: "
                         "name their file with --initial-weights")
    if weights_sha256(args.initial_weights) != sha256:
        say(f"note: {args.config} is of a training from other weights than "
            f"{','.join(map(str, weights_files(args.initial_weights)))}")


def _check_solverstate(args, sha256):
    if args.solverstate is None:
        raise UsageError(f"{args.config}: its training resumed a solverstate of Caffe with SHA-256 "
                         f"{sha256}: name its file with --solverstate")
    if file_sha256(args.solverstate) != sha256:
        say(f"note: {args.config} is of a training from another solverstate than "
            f"{args.solverstate}")
