"""pspnet export: a PSPNet into original files and those of other programs."""

from argparse import Namespace

from prototxt_import.conversion.describe import map_size
from prototxt_import.conversion.export import SOLVER, TRAIN_NET, export
from prototxt_import.conversion.miniature import network_class
from pspnet_repro.errors import UsageError, UserError
from pspnet_repro.glibc import give_back_freed_memory
from pspnet_repro.outputs import Outputs
from pspnet_repro.weights import model_file
from pspnet_repro.weights.onnx import OnnxFile, require_onnx
from pspnet_repro.weights.plain_file import writer
from pspnet_repro.weights.semseg import state_for_semseg
from pspnet_repro.weights.source import read_weights, weights_files, weights_name
from pspnet_repro.weights.torch_export import TorchExportFile

_CROP_SIZE = 473
_ENDINGS = [".prototxt", ".caffemodel"]
_OTHERS = {"onnx": ".onnx", "torch_export": ".pt2", "semseg": ".pth"}


def run(args: Namespace) -> None:
    give_back_freed_memory()
    paths = _caffes_paths(args)
    if args.onnx:
        require_onnx()
    others = {name: path for name in _OTHERS if (path := getattr(args, name))}
    paths += others.values()
    if not paths:
        raise UsageError("needs a file to write: --output or one of "
                         f"{', '.join(map(_option, _OTHERS))}")
    onnx_options = {f"{name}_kind": kind for name in ("input", "output")
                    if (kind := getattr(args, f"onnx_{name}"))}
    if onnx_options and not args.onnx:
        raise UsageError("--onnx-input and --onnx-output need --onnx NET.onnx")
    if args.dynamic_size and not (args.onnx or args.torch_export):
        raise UsageError("--dynamic-size needs --onnx NET.onnx or --torch-export NET.pt2")
    outputs = Outputs()
    outputs.claim(paths, weights_files(args.weights))
    if args.output and [path.suffix for path in args.output] != _ENDINGS:
        raise UsageError("--output must be NET.prototxt W.caffemodel in this order, got "
                         f"{' '.join(map(str, args.output))}")
    for name, path in others.items():
        if path.suffix != _OTHERS[name]:
            raise UsageError(f"{_option(name)} must end in {_OTHERS[name]}, got {path}")
    content = read_weights(args.weights)
    model = model_file.model_of(content, weights_name(args.weights),
                                network_class(content["settings"]))
    crop_size = args.crop_size
    if crop_size is None:
        crop_size = model_file.crop_size_of(content) or _CROP_SIZE
    contents, checked, lines = {}, [], []
    if args.output:
        _check_crop_size(args.crop_size, map_size, model, crop_size)
        export(model, crop_size, *args.output,
               training=content.get("training", {}) if args.train else None,
               write=contents.update)
    for path, make, options in ((args.onnx, OnnxFile, onnx_options),
                                (args.torch_export, TorchExportFile, {})):
        if path:
            _check_crop_size(args.crop_size, model.check_crop, crop_size)
            contents[path] = make(model, crop_size, dynamic_size=args.dynamic_size,
                                  release=len(paths) == 1, **options)
            checked.append(contents[path])
    if args.semseg:
        contents[args.semseg] = writer({"state_dict": state_for_semseg(model)})
        settings = model.settings
        lines.append(f"semseg's network computes the same of this input: {settings.input_order}, "
                     f"minus {settings.input_mean}, divided by {settings.input_std}")
    del model  # for memory: the files let it go, too
    outputs.write(contents)
    for line in [*(file.check for file in checked), *lines, *paths]:
        print(line)


def _option(name):
    return f"--{name.replace('_', '-')}"


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
