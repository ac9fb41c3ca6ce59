"""pspnet: train, test and use PSPNet as its authors' program does."""

import importlib
import importlib.util
import os
import sys
import warnings
from collections.abc import Sequence

from pspnet_repro import __version__
from pspnet_repro.commands import check_data, demo, evaluate, make_lists, predict, table, train
from pspnet_repro.commands.parser import Parser
from pspnet_repro.errors import OtherProcess, command, imports

JOIN = ".train", ".evaluate", ".run_table"  # the works that processes of torchrun share


def build_parser() -> Parser:
    """The parser of all commands; each command's `work` is the module whose run(args) does it."""
    # Only here does this package need the importer: for its four commands.
    from prototxt_import.commands import convert, export, inspect, run
    parser = Parser(prog="pspnet", description=__doc__.partition(": ")[2],
                    examples=("pspnet predict PHOTO.jpg --weights WEIGHTS -o OUT",
                              "pspnet COMMAND --help"))
    parser.add_argument("--version", action="version", version=f"pspnet-repro {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    for module in (predict, evaluate, train, check_data, make_lists, convert, export, inspect,
                   run, table, demo):
        module.add(commands)
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code."""
    args = build_parser().parse_args(argv)
    if os.environ.get("WORLD_SIZE", "1") != "1" and not args.work.endswith(JOIN):
        _check_alone(args.work.rpartition(".")[2])
    warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
    # Our own messages name the file.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    return _work(args.work).run(args) or 0


def _check_alone(name):
    """Raise UsageError where torchrun started several processes of a command for one."""
    from pspnet_repro.torchrun import world_size
    if (size := world_size()) > 1:
        raise OtherProcess(
            f"{name.replace('_', '-')} is for one process, and WORLD_SIZE is {size}: start it "
            "without torchrun; train, evaluate and table share their work")


def _work(name):
    """The module that does a command's work; an installed package has the harness in itself."""
    installed = name.startswith("experiments.") and importlib.util.find_spec(
        "pspnet_repro.experiments")
    with imports():
        return importlib.import_module(f"pspnet_repro.{name}" if installed else name)


if __name__ == "__main__":
    sys.exit(main())
