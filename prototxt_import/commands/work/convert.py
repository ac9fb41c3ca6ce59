"""pspnet convert: original files into a file of ours."""

from argparse import Namespace
from collections.abc import Sequence

from prototxt_import.commands.work.places import check_places
from prototxt_import.conversion.convert import Row, convert_network
from prototxt_import.conversion.torch_resnet import convert_torch_resnet
from pspnet_repro.errors import UsageError, printable
from pspnet_repro.files import file_sha256
from pspnet_repro.outputs import Outputs
from pspnet_repro.weights import model_file
from pspnet_repro.words import counted

_SUFFIXES = (".safetensors", ".pt", ".pth")


def run(args: Namespace) -> None:
    if args.output.suffix not in _SUFFIXES:
        raise UsageError(f"--output must end in {', '.join(_SUFFIXES)}, got {args.output}")
    if len(args.files) != 2 and not (args.backbone and len(args.files) == 1):
        raise UsageError("needs NET.prototxt and W.caffemodel, or --backbone and one file, got "
                         f"{counted(len(args.files), 'file')}")
    if len(args.files) == 2:
        check_places("convert", *args.files)
    outputs = Outputs()
    outputs.claim([args.output], args.files)
    if len(args.files) == 1:
        model, rows, crop_size = convert_torch_resnet(*args.files)
    else:
        model, rows, crop_size = convert_network(*args.files, whole=not args.backbone)
    origin = {path.name: file_sha256(path) for path in args.files}
    outputs.write({args.output: model_file.model_bytes(args.output, model, origin=origin,
                                                       crop_size=crop_size)})
    print(table(rows))
    for name, value in model.settings.items():
        print(f"{name}: {value}")
    if args.backbone:
        print(f"to start from it: pspnet train --initial-weights {args.output} ...")
    print(args.output)


def table(rows: Sequence[Row]) -> str:
    """Rows as lines with aligned columns, and their sums."""
    rows = [row._replace(layer=printable(row.layer, 200)) for row in rows]
    widths = [max(len(row[k]) for row in rows) for k in (0, 1)]
    lines = [f"{row.layer:{widths[0]}}  {row.shape:{widths[1]}}  {row.place}" for row in rows]
    left_out = sum(row.place == "left out" for row in rows)
    lines.append(f"{counted(len(rows) - left_out, 'layer')} filled the network, {left_out} left "
                 "out")
    return "\n".join(lines)
