"""python -m pspnet_repro train"""

import dataclasses
import sys

from pspnet_repro import distributed
from pspnet_repro.commands.arguments import numbers, path, pixels, positive, processes, whole
from pspnet_repro.commands.data_options import add_data, data_of
from pspnet_repro.data.augment import NO_AUGMENTATION, PADDINGS, Augmentation
from pspnet_repro.errors import UsageError, UserError
from pspnet_repro.freezing import FREEZE_BN
from pspnet_repro.train import TrainSettings, train


AUGMENTATIONS = {"all": Augmentation(), "mirror-resize": Augmentation(rotation=0.0, blur=False),
                 "none": NO_AUGMENTATION}


def add(commands):
    parser = commands.add_parser(
        "train", help="train a PSPNet, or go on with a training",
        description="Trains as the paper does (5.1). An interrupted training goes on where it "
                    "stopped; processes of torchrun share each batch. Of Cityscapes and VOC 2012 "
                    "the paper's crop, steps and augmentation are the defaults; of other data "
                    "ADE20K's are.")
    add_data(parser)
    parser.add_argument("--split", default="train",
                        help="such as train_aug of voc2012; default: %(default)s")
    parser.add_argument("--output", required=True, type=path, help="folder of the training")
    parser.add_argument("--classes", type=whole(1, 254),
                        help="number of classes; default: the benchmark's or that of classes.txt")
    net = parser.add_argument_group(
        "network", "With --initial-weights the defaults are the file's; another structure than the "
                   "file's is refused.")
    net.add_argument("--depth", type=int, help="50, 101, 152 or 269; default: 50")
    net.add_argument("--bins", type=numbers, help='"none": no pyramid; default: 1,2,3,6')
    net.add_argument("--pool", choices=("ave", "max"), help="pooling of the bins; default: ave")
    net.add_argument("--no-reduce", action="store_true", help="no reduction after pooling")
    net.add_argument("--no-aux", action="store_true", help="no auxiliary branch")
    net.add_argument("--stem", choices=("deep", "classic"),
                     help="first layers: three 3x3 convolutions or one 7x7; default: deep")
    net.add_argument("--stem-width", type=positive, help="channels of the stem; default: 64")
    net.add_argument("--width", type=float, help="factor of the stages' channels; default: 1")
    net.add_argument("--blocks", type=numbers,
                     help="four numbers, for miniature networks; default: the depth's")
    net.add_argument("--stride-in", choices=("1x1", "3x3"),
                     help="convolution with the stride; default: as released for the depth")
    net.add_argument("--initial-weights", type=path, metavar="FILE",
                     help="start from the weights of a PSPNet or of a backbone; default: random")
    net.add_argument("--variance", choices=("biased", "unbiased", "torch"), default="unbiased",
                     help="kind of variance in BN; default: %(default)s")
    net.add_argument("--arithmetic", choices=("torch", "original"), default="torch",
                     help='"original": the bits of the original\'s CPU program, several times '
                          "slower; needs --variance biased; default: %(default)s")
    solver = parser.add_argument_group("schedule")
    solver.add_argument("--crop-size", type=pixels,
                        help="pixels; default: the benchmark's, or 473")
    solver.add_argument("--batch-size", type=whole(1, 4096), default=16,
                        help="images a pass, over all processes; default: %(default)s")
    solver.add_argument("--iter-size", type=positive, default=1,
                        help="passes a step; default: %(default)s")
    solver.add_argument("--max-iter", type=positive,
                        help="steps; default: the benchmark's, or 150000")
    solver.add_argument("--base-lr", type=float, default=0.01,
                        help="first learning rate; default: %(default)s")
    solver.add_argument("--aux-weight", type=float, default=0.4,
                        help="of the auxiliary loss; default: %(default)s")
    solver.add_argument("--guidance", choices=("eighth", "full"), default="eighth",
                        help="size of the labels that the loss sees; default: %(default)s")
    solver.add_argument("--augmentation", choices=AUGMENTATIONS,
                        help="beside random crops; all: mirror, resize, rotation, blur; default: "
                             "the benchmark's, or all")
    solver.add_argument("--padding", choices=PADDINGS,
                        help="border of images smaller than the crop: end (right and bottom, as the "
                             "original and its test) or centre (as the authors' later program); "
                             "default: end")
    solver.add_argument("--seed", type=whole(0, 2 ** 63 - 1), default=0,
                        help="of everything random; default: %(default)s")
    tuning = parser.add_argument_group(
        "fine-tuning", "What is frozen stays as --initial-weights has it. By default nothing is.")
    tuning.add_argument("--freeze-bn", choices=FREEZE_BN,
                        help="fix running values, slope and bias of batch normalization, for small "
                             "batches: in the backbone, or in all parts, which then must not start "
                             "afresh")
    tuning.add_argument("--freeze-backbone", action="store_true",
                        help="fix the backbone, running values of its batch normalization "
                             "included: a step takes less time and memory")
    parser.add_argument("--threads", type=processes, default=2,
                        help="threads of the computation; default: %(default)s")
    parser.add_argument("--workers", type=whole(0, 1024), default=0,
                        help="processes that read images; default: %(default)s")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu",
                        help="cuda: one GPU a process; default: %(default)s")
    parser.add_argument("--timeout", type=positive, default=round(distributed.TIMEOUT_SECONDS),
                        help="seconds to wait for a process that does not answer (torchrun); "
                             "default: %(default)s")
    parser.set_defaults(run=run)


def run(args):
    if args.output.exists() and not args.output.is_dir():
        raise UsageError(f"--output must be a folder, got the file {args.output}")
    data = data_of(args)
    recipe, known = data.recipe, data.classes()
    classes = _number_of_classes(args, data, known)
    data.check_classes(classes)
    model = {"classes": classes, "depth": args.depth, "bins": args.bins, "pool": args.pool,
             "reduce": False if args.no_reduce else None, "aux": not args.no_aux,
             "stem": args.stem, "stem_width": args.stem_width, "width": args.width,
             "stride_in": args.stride_in, "variance": args.variance, "blocks": args.blocks,
             "arithmetic": args.arithmetic,
             "head": "literal" if args.arithmetic == "original" else "factorized"}
    model = {name: value for name, value in model.items() if value is not None}
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
        freeze_bn=args.freeze_bn, freeze_backbone=args.freeze_backbone)
    facts = {"base_size": recipe.base_size}
    if known is not None:
        facts |= {"names": known.names, "palette_rgb": known.palette_rgb}
    with distributed.join(args.timeout) as joined:
        if joined.first and (args.output / "weights.pt").exists():
            print("finished before", file=sys.stderr)
        weights = train(settings, pairs, args.output, args.workers, device=args.device,
                        initial_weights=args.initial_weights, facts=facts)
    if joined.first:
        print(weights)


def _number_of_classes(args, data, known):
    """The number of classes. Raises UsageError where it is not known, or is another."""
    if known is None and args.classes is None:
        raise UsageError(f"--classes must say how many classes {data.name} has: it is no known "
                         f"benchmark and has no classes.txt")
    if known is not None and args.classes not in (None, len(known.names)):
        raise UsageError(f"--classes must be {len(known.names)}, the number of classes that "
                         f"{data.name} has, got {args.classes}")
    return args.classes or len(known.names)
