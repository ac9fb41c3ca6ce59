"""pspnet export: a PSPNet into original files and those of other programs."""

from argparse import Namespace

from prototxt_import.conversion.describe import map_size
from prototxt_import.conversion.export import SOLVER, TRAIN_NET, export
from prototxt_import.conversion.miniature import network_class
from pspnet_repro.errors import UsageError, UserError
from pspnet_repro.outputs import Outputs
from pspnet_repro.weights import model_file
from pspnet_repro.weights.onnx import onnx_bytes, require_onnx
from pspnet_repro.weights.source import read_weights, weights_files, weights_name

_CROP_SIZE = 473
_ENDINGS = [".prototxt", ".caffemodel"]


def run(args: Namespace) -> None:
    paths = _caffes_paths(args)
    if args.onnx:
        require_onnx()
        paths.append(args.onnx)
    if not paths:
        raise UsageError("needs a file to write: --output or --onnx")
    outputs = Outputs()
    outputs.claim(paths, weights_files(args.weights))
    if args.output and [path.suffix for path in args.output] != _ENDINGS:
        raise UsageError("--output must be NET.prototxt W.caffemodel in this order, got "
                         f"{' '.join(map(str, args.output))}")
    if args.onnx and args.onnx.suffix != ".onnx":
        raise UsageError(f"--onnx must end in .onnx, got {args.onnx}")
    content = read_weights(args.weights)
    model = model_file.model_of(content, weights_name(args.weights),
                                network_class(content["settings"]))
    crop_size = args.crop_size
    if crop_size is None:
        crop_size = model_file.crop_size_of(content) or _CROP_SIZE
    contents, lines = {}, []
    if args.output:
        _check_crop_size(args.crop_size, map_size, model, crop_size)
        export(model, crop_size, *args.output,
               training=content.get("training", {}) if args.train else None,
               write=contents.update)
    if args.onnx:
        _check_crop_size(args.crop_size, model.check_crop, crop_size)
        contents[args.onnx], check = onnx_bytes(model, crop_size)
        lines.append(f"onnxruntime {check.onnxruntime}: scores differ by at most "
                     f"{check.largest_error:.1e} of the largest, argmax on {check.other_argmax} "
                     f"of {check.pixels} pixels")
    outputs.write(contents)
    for line in [*lines, *paths]:
        print(line)


def _caffes_paths(args):
    """Of all files of --output and --train."""
    if not args.output:
        if args.train:
            raise UsageError("--train needs --output NET.prototxt W.caffemodel")
        return []
    folder = args.output[0].parent
    return [*args.output, *((folder / TRAIN_NET, folder / SOLVER) if args.train else ())]


def _check_crop_size(option, check, *arguments):
    try:
        check(*arguments)
    except (UserError, ValueError) as error:
        raise (UserError(f"{error}; choose another --crop-size") if option is None else
               UsageError(f"--crop-size: {error}")) from error
