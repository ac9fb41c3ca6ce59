"""pspnet inspect: a network as a table."""

from argparse import Namespace

from prototxt_import.commands.work.places import check_places
from prototxt_import.format.caffemodel import read_caffemodel
from prototxt_import.net import CaffeNet, load_net
from pspnet_repro.errors import UserError, check_printed, printable
from pspnet_repro.words import counted

_HEAD = ("layer", "type", "shape", "parameters", "numbers", "multiply-adds", "reads", "writes")
_MOST_NAMES = 8
_RIGHT = ("numbers", "multiply-adds")


def table(net: CaffeNet) -> list[str]:
    """Lines of text: a row for every input and layer, and the totals.

    Multiply-adds are those of convolutions and inner products, for the sizes in the file.
    """
    rows = [_HEAD]
    rows += [("", "input", _shape(shape), "", "", "", "", name)
             for name, shape in net.input_shapes.items()]
    for step in net.steps:
        layer, built = step.layer, step.built
        rows.append((layer.name, layer.type, _names([_shape(shape) for shape in built.tops]),
                     " ".join(_shape(param.shape) for param in built.params),
                     _number(sum(p.numel() for p in step.params)), _number(built.multiply_adds),
                     _names(layer.bottom), _names(layer.top)))
    # A shared parameter counts once.
    rows.append(("total", counted(len(net.steps), "layer"), "", "",
                 _number(sum(p.numel() for p in net.parameters())),
                 _number(sum(step.built.multiply_adds for step in net.steps)), "", ""))
    rows = [[printable(cell, 200) for cell in row] for row in rows]
    widths = [max(len(row[k]) for row in rows) for k in range(len(_HEAD))]
    return ["  ".join(cell.rjust(width) if name in _RIGHT else cell.ljust(width)
                      for name, cell, width in zip(_HEAD, row, widths)).rstrip() for row in rows]


def _open(shape):
    """A shape as --shape wants it, with the open sizes as letters."""
    shape = [None] * 4 if shape is None else shape
    return ",".join(letter if size is None else str(size) for letter, size in zip("NCHW", shape))


def _names(names):
    """The names of a cell, the first of them where they are many."""
    many = len(names) > _MOST_NAMES
    return " ".join(names[:_MOST_NAMES]) + (f" and {len(names) - _MOST_NAMES:,} more" if many else
                                            "")


def _shape(shape):
    return "x".join(map(str, shape)) if shape else "1"


def _number(value):
    return f"{value:,}" if value else ""


def run(args: Namespace) -> None:
    check_places("inspect", args.prototxt, args.caffemodel)
    net = load_net(args.prototxt, args.caffemodel, args.phase, dict(args.shape),
                   stages=args.stage)
    if net.steps is None:
        unknown = [name for name, shape in net.input_shapes.items() if shape is None]
        options = " ".join(f"--shape {name}={_open(net.partial_shapes[name])}" for name in unknown)
        raise UserError(f"{net.path}: the sizes of {', '.join(unknown)} are not in the file: give "
                        f"them with {options}")
    print(*table(net), sep="\n")
    if args.caffemodel is not None:
        unused = [name for name, (_, blobs) in read_caffemodel(args.caffemodel).items()
                  if blobs and name not in net.params]
        print(f"{args.caffemodel} fits; layers of it that the network lacks: "
              f"{printable(', '.join(unused)) or 'none'}")
    check_printed()
