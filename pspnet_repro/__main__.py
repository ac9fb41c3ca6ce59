"""python -m pspnet_repro {train,evaluate}"""

import argparse
import json
import sys
from pathlib import Path

import torch

from pspnet_repro import checkpoint, distributed
from pspnet_repro.data.augment import NO_AUGMENTATION, Augmentation
from pspnet_repro.data.lists import list_digest, read_list
from pspnet_repro.errors import UsageError, UserError
from pspnet_repro.evaluation.evaluate import evaluate
from pspnet_repro.run_folder import Interrupted
from pspnet_repro.train import TrainSettings, train

SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)


def _numbers(text):
    """"1,2,3" -> (1, 2, 3); "" and "none" -> ()."""
    try:
        return tuple(int(part) for part in text.split(",")) if text not in ("", "none") else ()
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of whole numbers") from error


def _whole(low, high):
    """An argument type: whole numbers from low to high."""
    def convert(text):
        try:
            value = int(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from error
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"must be {low} to {high}, got {value}")
        return value
    return convert


_positive = _whole(1, 2 ** 31 - 1)
_pixels = _whole(1, 2 ** 15)
_processes = _whole(1, 1024)


def _path(text):
    if not text:
        raise argparse.ArgumentTypeError("must not be empty")
    return Path(text)


def _add_train(commands):
    parser = commands.add_parser("train", help="train a PSPNet, or go on with a training",
                                 formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--data", required=True, type=_path, help="folder with train.txt")
    parser.add_argument("--output", required=True, type=_path, help="folder of the training")
    parser.add_argument("--classes", required=True, type=_whole(1, 254), help="number of classes")
    parser.add_argument("--zero-is-void", action="store_true",
                        help="labels are 0 = void, k + 1 = class k (ADE20K)")
    net = parser.add_argument_group("network")
    net.add_argument("--depth", type=int, default=50, help="50, 101, 152 or 269")
    net.add_argument("--bins", type=_numbers, default=(1, 2, 3, 6), help='"none": no pyramid')
    net.add_argument("--pool", choices=("ave", "max"), default="ave", help="pooling of the bins")
    net.add_argument("--no-reduce", action="store_true", help="no reduction after pooling")
    net.add_argument("--no-aux", action="store_true", help="no auxiliary branch")
    net.add_argument("--stem", choices=("deep", "classic"), default="deep", help="first layers")
    net.add_argument("--stem-width", type=_positive, default=64, help="channels of the stem")
    net.add_argument("--width", type=float, default=1.0, help="factor of the stages' channels")
    net.add_argument("--blocks", type=_numbers, help="four numbers, for miniature networks")
    net.add_argument("--stride-in", choices=("1x1", "3x3"), help="default: as released")
    net.add_argument("--initial-weights", type=_path, metavar="FILE",
                     help="start from the weights of a PSPNet or of a backbone")
    net.add_argument("--variance", choices=("biased", "unbiased", "torch"), default="unbiased",
                     help="kind of variance in BN")
    solver = parser.add_argument_group("schedule")
    solver.add_argument("--crop-size", type=_pixels, default=473, help="pixels")
    solver.add_argument("--batch-size", type=_positive, default=16,
                        help="images a pass, over all processes")
    solver.add_argument("--iter-size", type=_positive, default=1, help="passes a step")
    solver.add_argument("--max-iter", type=_positive, default=150_000, help="steps")
    solver.add_argument("--base-lr", type=float, default=0.01, help="first learning rate")
    solver.add_argument("--aux-weight", type=float, default=0.4, help="of the auxiliary loss")
    solver.add_argument("--guidance", choices=("eighth", "full"), default="eighth",
                        help="size of the labels that the loss sees")
    solver.add_argument("--no-augmentation", action="store_true", help="random crops only")
    solver.add_argument("--seed", type=_whole(0, 2 ** 63 - 1), default=0,
                        help="of everything random")
    parser.add_argument("--threads", type=_processes, default=2, help="threads of the computation")
    parser.add_argument("--workers", type=_whole(0, 1024), default=0,
                        help="processes that read images")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu",
                        help="cuda: one GPU a process")
    parser.add_argument("--timeout", type=_positive, default=round(distributed.TIMEOUT_SECONDS),
                        help="seconds to wait for a process that does not answer (torchrun)")
    parser.set_defaults(run=_train)


def _train(args):
    model = {"classes": args.classes, "depth": args.depth, "bins": args.bins, "pool": args.pool,
             "reduce": not args.no_reduce, "aux": not args.no_aux, "stem": args.stem,
             "stem_width": args.stem_width, "width": args.width, "stride_in": args.stride_in,
             "variance": args.variance, "blocks": args.blocks}
    train_list = args.data / "train.txt"
    pairs = read_list(train_list)
    settings = TrainSettings(
        model=model, data=args.data.resolve().name, list_sha256=list_digest(train_list),
        zero_is_void=args.zero_is_void, crop_size=args.crop_size, batch_size=args.batch_size,
        iter_size=args.iter_size, max_iter=args.max_iter, base_lr=args.base_lr,
        aux_weight=args.aux_weight, guidance=args.guidance,
        augmentation=NO_AUGMENTATION if args.no_augmentation else Augmentation(),
        seed=args.seed, threads=args.threads)
    with distributed.join(args.timeout) as processes:
        weights = train(settings, pairs, args.output, args.workers, device=args.device,
                        initial_weights=args.initial_weights)
    if processes.first:
        print(weights)


def _add_evaluate(commands):
    parser = commands.add_parser("evaluate", help="mean IoU and pixel accuracy of trained weights",
                                 formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--weights", required=True, type=_path,
                        help="file of a training, or of python -m prototxt_import convert")
    parser.add_argument("--data", required=True, type=_path, help="folder with val.txt")
    parser.add_argument("--zero-is-void", action="store_true",
                        help="labels are 0 = void, k + 1 = class k (ADE20K)")
    parser.add_argument("--base-size", type=_pixels, default=512,
                        help="long side of the resized image, less 1")
    parser.add_argument("--crop-size", type=_pixels, default=473, help="side of the windows")
    parser.add_argument("--multi-scale", action="store_true",
                        help=f"average over scales {', '.join(map(str, SCALES))}")
    parser.add_argument("--no-flip", action="store_true", help="without the mirror image")
    parser.add_argument("--threads", type=_processes, default=2, help="threads of the computation")
    parser.add_argument("--output", type=_path, help="JSON file for the figures")
    parser.set_defaults(run=_evaluate)


def _evaluate(args):
    torch.set_num_threads(args.threads)
    if args.output is not None and args.output.is_dir():
        raise UsageError(f"--output must be a file, got the folder {args.output}")
    net = checkpoint.load_model(args.weights)
    try:
        net.check_crop(args.crop_size)
    except ValueError as error:
        raise UsageError(f"--crop-size: {error}") from error
    with distributed.join() as processes:
        matrix = evaluate(net, read_list(args.data / "val.txt"), classes=net.classes,
                          base_size=args.base_size, crop_size=args.crop_size,
                          scales=SCALES if args.multi_scale else (1.0,), flip=not args.no_flip,
                          zero_is_void=args.zero_is_void, processes=processes)
    if not processes.first:
        return
    for k, iou in enumerate(matrix.iou):
        print(f"class {k:3d}  IoU {100 * iou:6.2f}")
    print(f"mean IoU {100 * matrix.mean_iou:.2f}  pixel accuracy "
          f"{100 * matrix.pixel_accuracy:.2f}")
    if args.output is not None:
        figures = {"mean_iou": matrix.mean_iou, "pixel_accuracy": matrix.pixel_accuracy,
                   "iou": matrix.iou.tolist(), "confusion": matrix.counts.tolist()}
        checkpoint.write_bytes(args.output, json.dumps(figures, indent=1))


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m pspnet_repro", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_train(commands)
    _add_evaluate(commands)
    args = parser.parse_args(argv)
    try:
        args.run(args)
    except (UsageError, distributed.FailedElsewhere) as error:
        distributed.say(f"error: {error}")
        return 2 if isinstance(error, UsageError) else 1
    except (UserError, MemoryError) as error:
        print(f"error: {error or 'not enough memory'}", file=sys.stderr)
        return 1
    except (Interrupted, KeyboardInterrupt) as stop:
        distributed.say(f"\n{stop}" if str(stop) else "\nstopped")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
