"""What predict and evaluate share: the networks of --weights, and how they test."""

import sys
from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from pspnet_repro.commands.options import Weights
from pspnet_repro.data.benchmarks import Recipe
from pspnet_repro.data.classes import KNOWN, Classes, known_classes, read_classes
from pspnet_repro.data.data_set import DataSet
from pspnet_repro.defaults import MULTI_SCALE
from pspnet_repro.errors import UsageError, UserError
from pspnet_repro.evaluation import precision as precisions
from pspnet_repro.evaluation.network_file import NetworkFile, read_network
from pspnet_repro.evaluation.predictor import Predictor
from pspnet_repro.evaluation.protocol import Protocol, preset
from pspnet_repro.words import counted

_WEIGHTS = (".pt", ".pth", ".safetensors")


def split_weights(values: Iterable[Weights]) -> tuple[list[Weights], list[Path]]:
    """(weights, images) of what follows --weights.

    The first names weights, and so does each after it up to the first that is no pair and has no
    ending of weights. NET.prototxt and W.caffemodel may also be two values; raises UsageError for a
    prototxt without a caffemodel.
    """
    weights, rest = [], list(values)
    while rest and (not weights or isinstance(rest[0], tuple)
                    or rest[0].suffix in (*_WEIGHTS, ".prototxt")):
        value = rest.pop(0)
        if not isinstance(value, tuple) and value.suffix == ".prototxt":
            before = weights[-1] if weights else None
            if isinstance(before, Path) and before.suffix == ".caffemodel" and not (
                    rest and isinstance(rest[0], Path) and rest[0].suffix == ".caffemodel"):
                raise UsageError(f"--weights: put the prototxt first: {value},{before}")
            if not rest or isinstance(rest[0], tuple):
                raise UsageError(f"--weights must name a caffemodel after {value}: "
                                 f"{value},W.caffemodel")
            value = value, rest.pop(0)
        weights.append(value)
    return weights, rest


def files_of(weights: Iterable[Weights]) -> list[Path]:
    """The paths that values of --weights name."""
    return [path for each in weights for path in (each if isinstance(each, tuple) else (each,))]


def read_networks(args: Namespace, weights: Iterable[Weights]) -> list[NetworkFile]:
    """The networks of values of --weights, for a command with options.add_testing. Raises UserError
    where weights cannot be used, or arguments exclude each other."""
    if args.output is not None and args.output.exists() and not args.output.is_dir():
        raise UsageError(f"--output must be a folder, got the file {args.output}")
    if args.precision == "tf32" and args.device == "cpu":
        raise UsageError("--precision tf32 needs --device cuda: only GPUs have TF32")
    if args.cuda_graph and args.device == "cpu":
        raise UsageError("--cuda-graph needs --device cuda: a graph is a GPU's")
    torch.set_num_threads(args.threads)
    return [read_network(each) for each in weights]


def tested(args: Namespace, files: list[NetworkFile], recipe: Recipe | None = None) -> Predictor:
    """The Predictor that arguments of a command with options.add_testing ask for.

    Args:
        files: of read_networks; their networks become the Predictor's.
        recipe: of a benchmark that is tested on, whose base size comes before the weights'.
    Raises:
        UsageError: a crop that a network cannot take, or another setting of the test.
    """
    try:
        return Predictor(files, device=args.device, precision=args.precision,
                         protocol=_protocol(args, files[0], recipe), fused=not args.no_fusion,
                         cuda_graph=args.cuda_graph)
    except UsageError as error:
        name, colon, rest = str(error).partition(":")
        if not name.endswith("_size"):
            raise
        raise UsageError(f"--{name.replace('_', '-')}{colon}{rest}") from error


def _protocol(args, file, recipe):
    try:
        protocol = preset(
            args.protocol or file.preset,
            base_size=args.base_size or (recipe or file).base_size,
            crop_size=args.crop_size or file.crop_size,
            scales=MULTI_SCALE if args.multi_scale else (1.0,), flip=not args.no_flip,
            stride=args.window_stride, **dict(args.switches))
    except ValueError as error:
        raise UsageError(str(error)) from error
    # At a stride of 1 an image of 2049 pixels has millions of windows.
    if args.window_stride and args.window_stride < protocol.crop_size // 32:
        raise UsageError(f"--window-stride must be at least a 32nd of the crop, "
                         f"{protocol.crop_size // 32}, got {args.window_stride}")
    return protocol


def say_protocol(protocol: Protocol) -> None:
    """Print how images are tested."""
    one = len(protocol.scales) == 1
    sides = ", ".join(str(protocol.scaled_size(1, 1, scale)[0]) for scale in protocol.scales)
    scales = ", ".join(f"{scale:g}" for scale in protocol.scales)
    windows = ("whole, without windows" if protocol.whole_image else
               f"windows of {protocol.crop_size} pixels "
               + ("overlap by a third" if protocol.stride is None else
                  f"every {counted(protocol.stride, 'pixel')}"))
    other = "" if protocol.name.startswith("caffe") else f"protocol {protocol.name}: "
    print(f"{other}resized to {'a long side' if one else 'long sides'} of "
          f"{sides} ({protocol.base_size} x {scales}{' + 1' * protocol.plus_one}); {windows}; "
          f"{'averaged with' if protocol.flip else 'without'} the mirror image", file=sys.stderr)


def agreement(args: Namespace, weights: Iterable[Weights], predictor: Predictor,
              images_rgb: Iterable[np.ndarray]) -> dict | None:
    """How far the networks are from themselves in float32 on the first image, printed.

    Returns what precision.agreement says of the network that differs most; None for float32 and
    without an image.
    """
    image = None if args.precision == "float32" else next(iter(images_rgb), None)
    if image is None:
        return None
    exact = predictor if args.precision == "tf32" else Predictor(
        list(weights), device=args.device, protocol=predictor.protocol, fused=not args.no_fusion)
    measured = [precisions.agreement(net, same, args.precision, image, predictor.protocol,
                                     args.batch_size)
                for net, same in zip(predictor.networks, exact.networks, strict=True)]
    worst = max(measured, key=lambda each: each["largest_error"])
    print(f"{args.precision} against float32 on the first image: same class on "
          f"{100 * worst['same_argmax']:.3f}% of the pixels, largest error "
          f"{worst['largest_error']:.1e} of the largest logit "
          f"({counted(worst['windows'], 'window')})")
    return worst


def given_classes(args: Namespace, data: DataSet | None = None) -> Classes | None:
    """Classes that --names or the data set names; None where neither does."""
    if args.names is None:
        return data.classes() if data is not None else None
    return known_classes(str(args.names)) if str(args.names) in KNOWN else read_classes(args.names)


def classes_of(args: Namespace, predictor: Predictor, data: DataSet | None = None) -> Classes:
    """Classes of --names, of the data, or of the weights. Raises UserError where they are not as
    many as the network's."""
    classes = given_classes(args, data) or predictor.classes
    if len(classes.names) != len(predictor.names):
        raise UserError(f"{args.names or data.name}: names {counted(len(classes.names), 'class')}, "
                        f"but the network has {len(predictor.names)}")
    return classes
