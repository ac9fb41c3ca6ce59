"""Types and groups of arguments that commands share."""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from pspnet_repro import PSPNet, checkpoint, distributed, precision
from pspnet_repro.data.benchmarks import Recipe
from pspnet_repro.data.classes import KNOWN, known_classes, numbered_classes, read_classes
from pspnet_repro.errors import UsageError, UserError
from pspnet_repro.evaluation import MULTI_SCALE, Protocol


def numbers(text):
    """"1,2,3" -> (1, 2, 3); "" and "none" -> ()."""
    try:
        return tuple(int(part) for part in text.split(",")) if text not in ("", "none") else ()
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of whole numbers") from error


def whole(low, high):
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


positive = whole(1, 2 ** 31 - 1)
pixels = whole(1, checkpoint.MAX_SIDE)
processes = whole(1, 1024)


def path(text):
    if not text:
        raise argparse.ArgumentTypeError("must not be empty")
    return Path(text)


def add_testing(parser):
    """What tests which images how, and what ports do differently, each as a switch."""
    parser.add_argument("--weights", required=True, nargs="+", type=path, metavar="FILE",
                        help="weights of a training or of python -m prototxt_import convert; or "
                             "NET.prototxt W.caffemodel")
    add_names(parser)
    protocol = parser.add_argument_group("protocol")
    protocol.add_argument("--base-size", type=pixels, help="long side of the resized image, less "
                          "1; default: the benchmark's, or 512")
    protocol.add_argument("--crop-size", type=pixels,
                          help="side of the windows; default: the training's, the benchmark's, or "
                               "473")
    protocol.add_argument("--multi-scale", action="store_true",
                          help=f"average over scales {', '.join(map(str, MULTI_SCALE))}")
    protocol.add_argument("--no-flip", action="store_true", help="without the mirror image")
    ports = parser.add_argument_group("what ports do differently, to measure its cost")
    ports.add_argument("--half-pixel-logits", action="store_true",
                       help="upsample logits without aligned corners")
    ports.add_argument("--no-antialias", action="store_true", help="resize without filtering")
    ports.add_argument("--average-probabilities", action="store_true",
                       help="of an image and its mirror image, in place of the sum of logits")
    ports.add_argument("--no-plus-one", action="store_true", help="long side of just --base-size")
    ports.add_argument("--centre-padding", action="store_true", help="borders on all sides")
    ports.add_argument("--whole-image", action="store_true", help="one pass without windows")
    ports.add_argument("--window-stride", type=pixels, metavar="PIXELS",
                       help="default: two thirds of the crop")
    speed = parser.add_argument_group("speed")
    speed.add_argument("--batch-size", type=whole(1, 4096), default=4,
                       help="windows a pass; as many mirror images go along")
    speed.add_argument("--device", choices=("cpu", "cuda"), default="cpu",
                       help="cuda: one GPU a process")
    speed.add_argument("--no-fusion", action="store_true",
                       help="the network layer by layer, as it is trained: slower, other rounding")
    speed.add_argument("--precision", choices=precision.PRECISIONS, default="float32",
                       help="tf32 (GPUs) and bfloat16 are faster and less exact: how far from "
                            "float32 is measured on the first image and printed")
    speed.add_argument("--threads", type=processes, default=2, help="threads of the computation")


def protocol_of(args, given, recipe=Recipe()):
    """The Protocol that arguments ask for; what they leave open the training or benchmark says.

    Args:
        given: what network_to_test gave.
        recipe: of the data set.
    Raises:
        UsageError: it does not fit the network.
    """
    try:
        protocol = Protocol(
            base_size=args.base_size or recipe.base_size,
            crop_size=args.crop_size or given.crop_size or recipe.crop_size,
            scales=MULTI_SCALE if args.multi_scale else (1.0,), flip=not args.no_flip,
            align_corners=not args.half_pixel_logits, antialias=not args.no_antialias,
            merge="probabilities" if args.average_probabilities else "logits",
            plus_one=not args.no_plus_one, padding="centre" if args.centre_padding else "end",
            whole_image=args.whole_image, stride=args.window_stride)
    except ValueError as error:
        raise UsageError(str(error)) from error
    # At a stride of 1 an image of 2049 pixels has millions of windows.
    if args.window_stride and args.window_stride < protocol.crop_size // 32:
        raise UsageError(f"--window-stride must be at least a 32nd of the crop, "
                         f"{protocol.crop_size // 32}, got {args.window_stride}")
    try:
        given.net.check_crop(protocol.crop_size)
    except ValueError as error:
        raise UsageError(f"--crop-size: {error}") from error
    return protocol


def say_protocol(protocol):
    """Print how images are tested."""
    every = "two thirds of it" if protocol.stride is None else f"{protocol.stride} pixels"
    windows = ("whole images" if protocol.whole_image else
               f"windows of {protocol.crop_size} every {every}")
    print(f"long side {protocol.base_size} x scale{' + 1' * protocol.plus_one}, scales "
          f"{', '.join(map(str, protocol.scales))}, {windows}, "
          f"{'with' if protocol.flip else 'without'} the mirror image", file=sys.stderr)


@dataclass
class Given:
    """What --weights names.

    Attributes:
        net: the PSPNet in eval mode.
        files: paths of its weights: NET.prototxt W.caffemodel, or one file.
        others: what else --weights names.
        crop_size: of its training or of its prototxt, or None.
        data: name of the data set of its training, or None.
    """

    net: PSPNet
    files: list
    others: list
    crop_size: int | None
    data: str | None


def network_to_test(args):
    """The Given that arguments name, on their device.

    Raises:
        UserError: the weights cannot be used, or arguments exclude each other.
    """
    torch.set_num_threads(args.threads)
    if args.output is not None and args.output.exists() and not args.output.is_dir():
        raise UsageError(f"--output must be a folder, got the file {args.output}")
    if args.precision == "tf32" and args.device == "cpu":
        raise UsageError("--precision tf32 needs --device cuda: only GPUs have TF32")
    count = 2 if args.weights[0].suffix == ".prototxt" else 1
    paths, others = args.weights[:count], args.weights[count:]
    net, crop_size, data = _load_network(paths)
    return Given(net.to(distributed.choose_device(args.device)), paths, others, crop_size, data)


def _load_network(paths):
    """(network, crop size or None, name of its training's data or None)."""
    if paths[0].suffix != ".prototxt":
        content = checkpoint.read_model_file(paths[0])
        training = content.get("training")
        return (checkpoint.model_of(content, paths[0]), checkpoint.crop_size_of(content),
                training.get("data") if isinstance(training, dict) else None)
    if len(paths) < 2:
        raise UsageError(f"--weights must name a caffemodel after {paths[0]}")
    # Only here does this package need the importer: for networks in the original's files.
    from prototxt_import.convert import convert_network
    net, _, crop_size = convert_network(*paths)
    return net.eval(), crop_size, None


def network_for_testing(args, given, images_rgb, protocol):
    """The network as --no-fusion and --precision ask for it; `given` loses its own, for memory.

    Returns:
        (network, what precision.agreement says of the first image that can be read): None for
        float32 and without such an image.
    """
    net, given.net = given.net, None
    tested = precision.network_in(net, args.precision, not args.no_fusion)
    image = None if args.precision == "float32" else next(iter(images_rgb), None)
    if image is None:
        return tested, None
    exact = (tested if args.precision == "tf32"
             else precision.network_in(net, "float32", not args.no_fusion))
    return tested, precision.agreement(tested, exact, args.precision, image, protocol,
                                       args.batch_size)


def say_agreement(args, found):
    """Print what network_for_testing measured."""
    if found is not None:
        print(f"{args.precision} against float32 on the first image: same class on "
              f"{100 * found['same_argmax']:.3f}% of the pixels, largest error "
              f"{found['largest_error']:.1e} of the largest logit ({found['windows']} windows)")


def add_names(parser):
    parser.add_argument("--names", type=path, metavar="FILE",
                        help="names and colours of the classes: RED GREEN BLUE NAME a line; or "
                             f"one of {', '.join(KNOWN)}; default: those of the data")


def given_classes(args, data=None):
    """The Classes that --names or the data set names; None where neither does."""
    if args.names is None:
        return data.classes() if data is not None else None
    return (known_classes(args.names.name) if str(args.names) in KNOWN
            else read_classes(args.names))


def classes_of(args, given, data=None):
    """The Classes of a network: those of --names, of the data, or of the benchmark it was trained
    on; numbered where nothing names them.

    Raises:
        UserError: the names are of another number of classes.
    """
    count, found = given.net.classes, given_classes(args, data)
    if found is None and str(given.data) in KNOWN:
        trained = known_classes(str(given.data))
        found = trained if len(trained.names) == count else None
    found = found or numbered_classes(count)
    if len(found.names) != count:
        raise UserError(f"{args.names or data.name}: names {len(found.names)} classes, but the "
                        f"network has {count}")
    return found
