"""python -m pspnet_repro train"""

import argparse

from pspnet_repro import distributed
from pspnet_repro.commands.arguments import (filled, numbers, path, pixels, positive, processes,
                                             whole)
from pspnet_repro.data.augment import NO_AUGMENTATION, Augmentation
from pspnet_repro.data.datasets import LAYOUTS, open_data
from pspnet_repro.errors import UsageError, UserError
from pspnet_repro.train import TrainSettings, train


def add(commands):
    parser = commands.add_parser("train", help="train a PSPNet, or go on with a training",
                                 formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--data", required=True, type=filled,
                        help=f"folder with train.txt, a list file, or NAME=DIR with NAME of "
                             f"{', '.join(LAYOUTS)}")
    parser.add_argument("--split", default="train", help="such as train_aug of voc2012")
    parser.add_argument("--output", required=True, type=path, help="folder of the training")
    parser.add_argument("--classes", required=True, type=whole(1, 254), help="number of classes")
    parser.add_argument("--zero-is-void", action="store_true",
                        help="labels are 0 = void, k + 1 = class k (ADE20K)")
    net = parser.add_argument_group("network")
    net.add_argument("--depth", type=int, default=50, help="50, 101, 152 or 269")
    net.add_argument("--bins", type=numbers, default=(1, 2, 3, 6), help='"none": no pyramid')
    net.add_argument("--pool", choices=("ave", "max"), default="ave", help="pooling of the bins")
    net.add_argument("--no-reduce", action="store_true", help="no reduction after pooling")
    net.add_argument("--no-aux", action="store_true", help="no auxiliary branch")
    net.add_argument("--stem", choices=("deep", "classic"), default="deep", help="first layers")
    net.add_argument("--stem-width", type=positive, default=64, help="channels of the stem")
    net.add_argument("--width", type=float, default=1.0, help="factor of the stages' channels")
    net.add_argument("--blocks", type=numbers, help="four numbers, for miniature networks")
    net.add_argument("--stride-in", choices=("1x1", "3x3"), help="default: as released")
    net.add_argument("--initial-weights", type=path, metavar="FILE",
                     help="start from the weights of a PSPNet or of a backbone")
    net.add_argument("--variance", choices=("biased", "unbiased", "torch"), default="unbiased",
                     help="kind of variance in BN")
    solver = parser.add_argument_group("schedule")
    solver.add_argument("--crop-size", type=pixels, default=473, help="pixels")
    solver.add_argument("--batch-size", type=whole(1, 4096), default=16,
                        help="images a pass, over all processes")
    solver.add_argument("--iter-size", type=positive, default=1, help="passes a step")
    solver.add_argument("--max-iter", type=positive, default=150_000, help="steps")
    solver.add_argument("--base-lr", type=float, default=0.01, help="first learning rate")
    solver.add_argument("--aux-weight", type=float, default=0.4, help="of the auxiliary loss")
    solver.add_argument("--guidance", choices=("eighth", "full"), default="eighth",
                        help="size of the labels that the loss sees")
    solver.add_argument("--no-augmentation", action="store_true", help="random crops only")
    solver.add_argument("--seed", type=whole(0, 2 ** 63 - 1), default=0,
                        help="of everything random")
    parser.add_argument("--threads", type=processes, default=2, help="threads of the computation")
    parser.add_argument("--workers", type=whole(0, 1024), default=0,
                        help="processes that read images")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu",
                        help="cuda: one GPU a process")
    parser.add_argument("--timeout", type=positive, default=round(distributed.TIMEOUT_SECONDS),
                        help="seconds to wait for a process that does not answer (torchrun)")
    parser.set_defaults(run=run)


def run(args):
    if args.output.exists() and not args.output.is_dir():
        raise UsageError(f"--output must be a folder, got the file {args.output}")
    model = {"classes": args.classes, "depth": args.depth, "bins": args.bins, "pool": args.pool,
             "reduce": not args.no_reduce, "aux": not args.no_aux, "stem": args.stem,
             "stem_width": args.stem_width, "width": args.width, "stride_in": args.stride_in,
             "variance": args.variance, "blocks": args.blocks}
    data = open_data(args.data, args.zero_is_void)
    pairs = data.pairs(args.split)
    if pairs[0].label is None:
        raise UserError(f"--data: {data.name}, {args.split} has no labels to train on")
    settings = TrainSettings(
        model=model, data=data.name, list_sha256=data.digest(args.split),
        zero_is_void=args.zero_is_void, crop_size=args.crop_size, batch_size=args.batch_size,
        iter_size=args.iter_size, max_iter=args.max_iter, base_lr=args.base_lr,
        aux_weight=args.aux_weight, guidance=args.guidance,
        augmentation=NO_AUGMENTATION if args.no_augmentation else Augmentation(),
        seed=args.seed, threads=args.threads)
    with distributed.join(args.timeout) as joined:
        weights = train(settings, pairs, args.output, args.workers, device=args.device,
                        initial_weights=args.initial_weights)
    if joined.first:
        print(weights)
