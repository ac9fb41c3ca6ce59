"""Types and groups of arguments that commands share."""

import argparse
from pathlib import Path

from pspnet_repro import checkpoint, distributed
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
pixels = whole(1, 2 ** 15)
processes = whole(1, 1024)


def path(text):
    if not text:
        raise argparse.ArgumentTypeError("must not be empty")
    return Path(text)


def filled(text):
    if not text:
        raise argparse.ArgumentTypeError("must not be empty")
    return text


def add_protocol(parser):
    """How images are tested, and what ports do differently, each as a switch."""
    protocol = parser.add_argument_group("protocol")
    protocol.add_argument("--base-size", type=pixels, help="long side of the resized image, less "
                          "1; default: the benchmark's, or 512")
    protocol.add_argument("--crop-size", type=pixels,
                          help="side of the windows; default: the benchmark's, or 473")
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
    speed.add_argument("--threads", type=processes, default=2, help="threads of the computation")


def protocol_of(args, net, layout=None):
    """The Protocol that arguments ask for. Raises UsageError where it does not fit the network."""
    try:
        protocol = Protocol(
            base_size=args.base_size or (layout.base_size if layout else 512),
            crop_size=args.crop_size or (layout.crop_size if layout else 473),
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
        net.check_crop(protocol.crop_size)
    except ValueError as error:
        raise UsageError(f"--crop-size: {error}") from error
    return protocol


def take_weights(paths):
    """(paths of the weights, the others): NET.prototxt W.caffemodel are two, any other is one."""
    count = 2 if paths and paths[0].suffix == ".prototxt" else 1
    return paths[:count], paths[count:]


def load_network(paths, device):
    """The network in eval mode from what --weights names. Raises UserError."""
    if paths[0].suffix != ".prototxt":
        net = checkpoint.load_model(paths[0])
    elif len(paths) == 2:
        # Only here does this package need the importer: for networks in the original's files.
        from prototxt_import import convert
        net = convert(*paths).eval()
    else:
        raise UsageError(f"--weights must name a caffemodel after {paths[0]}")
    return net.to(distributed.choose_device(device))


def network_for_testing(args, net):
    """The network itself with --no-fusion, otherwise its fused copy; give up `net` for memory."""
    return net if args.no_fusion else net.for_inference()


def add_names(parser):
    parser.add_argument("--names", type=path, metavar="FILE",
                        help="names and colours of the classes: RED GREEN BLUE NAME a line; or "
                             f"one of {', '.join(KNOWN)}")


def given_classes(args, data=None):
    """The Classes that --names or the data set names; None where neither does."""
    if args.names is None:
        return data.classes() if data is not None else None
    return (known_classes(args.names.name) if str(args.names) in KNOWN
            else read_classes(args.names))


def classes_of(args, count, data=None):
    """The Classes of a network with `count` classes; numbered where nothing names them.

    Raises:
        UserError: the names are of another number of classes.
    """
    found = given_classes(args, data) or numbered_classes(count)
    if len(found.names) != count:
        raise UserError(f"{args.names or data.name}: names {len(found.names)} classes, but the "
                        f"network has {count}")
    return found
