"""python -m prototxt_import export: a PSPNet into original files."""

from pathlib import Path

from pspnet_repro import checkpoint
from pspnet_repro.errors import UsageError, UserError
from pspnet_repro.outputs import Outputs
from prototxt_import.describe import map_size
from prototxt_import.export import SOLVER, TRAIN_NET, export

_CROP_SIZE = 473


def add_parser(commands):
    parser = commands.add_parser("export", help="a PSPNet into a prototxt and a caffemodel")
    parser.add_argument("weights", type=Path, metavar="WEIGHTS",
                        help="file of a training or of convert")
    parser.add_argument("-o", "--output", type=Path, nargs=2, required=True,
                        metavar=("NET.prototxt", "W.caffemodel"), help="files to write")
    parser.add_argument("--crop-size", type=int, metavar="N",
                        help="pixels a side of the network's input (default: that of the training "
                             f"or of the converted prototxt, else {_CROP_SIZE})")
    parser.add_argument("--train", action="store_true",
                        help=f"also write {TRAIN_NET} and {SOLVER} beside NET.prototxt, with the "
                             "training's settings or the paper's")
    parser.set_defaults(run=_run)


def _run(args):
    folder = args.output[0].parent
    paths = [*args.output, *((folder / TRAIN_NET, folder / SOLVER) if args.train else ())]
    outputs = Outputs()
    outputs.claim(paths, [args.weights])
    content = checkpoint.read_model_file(args.weights)
    model = checkpoint.model_of(content, args.weights)
    training = content.get("training", {})
    crop_size = args.crop_size
    if crop_size is None:
        crop_size = checkpoint.crop_size_of(content) or _CROP_SIZE
    else:
        try:
            map_size(model, crop_size)
        except UserError as error:
            raise UsageError(f"--crop-size: {error}") from error
    export(model, crop_size, *args.output, training=training if args.train else None,
           write=outputs.write)
    for path in paths:
        print(path)
