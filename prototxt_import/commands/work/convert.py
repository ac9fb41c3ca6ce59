"""pspnet convert: original files into a file of ours."""

from argparse import Namespace
from collections.abc import Iterator, Sequence

from prototxt_import.commands.work.places import check_places
from prototxt_import.conversion.convert import convert_network
from pspnet_repro.errors import UsageError, printable
from pspnet_repro.files import file_sha256
from pspnet_repro.glibc import give_back_freed_memory
from pspnet_repro.model.resnet import ResNet
from pspnet_repro.outputs import Outputs
from pspnet_repro.weights import model_file
from pspnet_repro.weights.adopt import Conversion, Row
from pspnet_repro.weights.convert import convert_file
from pspnet_repro.words import counted

_SUFFIXES = (".safetensors", ".pt", ".pth")


def run(args: Namespace) -> None:
    give_back_freed_memory()
    if args.output.suffix not in _SUFFIXES:
        raise UsageError(f"--output must end in {', '.join(_SUFFIXES)}, got {args.output}")
    if len(args.files) > 2:
        raise UsageError("needs NET.prototxt and W.caffemodel, or one file, got "
                         f"{counted(len(args.files), 'file')}")
    if len(args.files) == 2:
        check_places("convert", *args.files)
        if args.align_corners:
            raise UsageError("--align-corners is for one file of mmsegmentation: a prototxt says "
                             "how it upsamples")
    outputs = Outputs()
    outputs.claim([args.output], args.files)
    made = (convert_network(*args.files, whole=not args.backbone) if len(args.files) == 2 else
            convert_file(*args.files, args.backbone, args.align_corners))
    facts = {"origin": {path.name: file_sha256(path) for path in args.files},
             "crop_size": made.crop_size, "protocol": made.protocol, **(made.facts or {})}
    outputs.write({args.output: model_file.model_writer(
        args.output, made.model, **{name: fact for name, fact in facts.items()
                                    if fact is not None})})
    for line in report(made):
        print(line)
    if isinstance(made.model, ResNet):
        print(f"to start from it: pspnet train --initial-weights {args.output} ...")
    print(args.output)


def report(made: Conversion) -> Iterator[str]:
    """Lines that say what became of a Conversion's file."""
    if made.rows:
        yield table(made.rows)
    for name, value in made.model.settings.items():
        yield f"{name}: {value}"
    if made.differences:
        yield f"{made.whose} differs from Caffe's program:"
        yield from (f"  {sentence}" for sentence in made.differences)
    if made.assumptions:
        yield "assumed, as the file does not say it:"
        yield from (f"  {sentence}" for sentence in made.assumptions)


def table(rows: Sequence[Row]) -> str:
    """Rows as lines with aligned columns, and their sums."""
    rows = [row._replace(layer=printable(row.layer, 200)) for row in rows]
    widths = [max(len(row[k]) for row in rows) for k in (0, 1)]
    lines = [f"{row.layer:{widths[0]}}  {row.shape:{widths[1]}}  {row.place}" for row in rows]
    left_out = sum(row.place == "left out" for row in rows)
    lines.append(f"{counted(len(rows) - left_out, 'layer')} filled the network, {left_out} left "
                 "out")
    return "\n".join(lines)
