"""pspnet export: a PSPNet into original files."""

from argparse import Namespace

from prototxt_import.conversion.describe import map_size
from prototxt_import.conversion.export import SOLVER, TRAIN_NET, export
from prototxt_import.conversion.miniature import network_class
from pspnet_repro.errors import UsageError, UserError
from pspnet_repro.outputs import Outputs
from pspnet_repro.weights import model_file
from pspnet_repro.weights.source import read_weights, weights_files, weights_name

_CROP_SIZE = 473
_ENDINGS = [".prototxt", ".caffemodel"]


def run(args: Namespace) -> None:
    folder = args.output[0].parent
    paths = [*args.output, *((folder / TRAIN_NET, folder / SOLVER) if args.train else ())]
    outputs = Outputs()
    outputs.claim(paths, weights_files(args.weights))
    if [path.suffix for path in args.output] != _ENDINGS:
        raise UsageError("--output must be NET.prototxt W.caffemodel in this order, got "
                         f"{' '.join(map(str, args.output))}")
    content = read_weights(args.weights)
    model = model_file.model_of(content, weights_name(args.weights),
                                network_class(content["settings"]))
    training = content.get("training", {})
    crop_size = args.crop_size
    if crop_size is None:
        crop_size = model_file.crop_size_of(content) or _CROP_SIZE
    else:
        try:
            map_size(model, crop_size)
        except UserError as error:
            raise UsageError(f"--crop-size: {error}") from error
    export(model, crop_size, *args.output, training=training if args.train else None,
           write=outputs.write)
    for path in paths:
        print(path)
