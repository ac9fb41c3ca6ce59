"""pspnet: train, test and use PSPNet as its authors' program does."""

import importlib
import os
import sys
import warnings

from pspnet_repro import __version__
from pspnet_repro.commands import check_data, evaluate, predict, train
from pspnet_repro.commands.parser import Parser
from pspnet_repro.errors import UserError, command


def build_parser() -> Parser:
    """The parser of all commands; each command's `work` is the module whose run(args) does it."""
    # Only here does this package need the importer: for its four commands.
    from prototxt_import.commands import convert, export, inspect, run
    parser = Parser(prog="pspnet", description=__doc__.partition(": ")[2],
                    examples=("pspnet predict PHOTO.jpg --weights WEIGHTS -o OUT",
                              "pspnet COMMAND --help"))
    parser.add_argument("--version", action="version", version=f"pspnet-repro {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    for module in (predict, evaluate, train, check_data, convert, export, inspect, run):
        module.add(commands)
    commands.add_parser("table", help="train and test the rows of the paper's tables",
                        add_help=False)
    return parser


@command
def main(argv=None):
    """Run a command; returns its exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    if argv[:1] == ["table"]:
        return _table(argv[1:])
    args = build_parser().parse_args(argv)
    warnings.showwarning = _print_warning
    # Our own messages name the file.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    return importlib.import_module(args.work).run(args) or 0


def _print_warning(message, *_):
    print(f"warning: {message}", file=sys.stderr)


def _table(argv):
    try:
        run_table = importlib.import_module("experiments.run_table")
    except ModuleNotFoundError as error:
        if error.name not in ("experiments", "experiments.run_table"):
            raise
        raise UserError("the harness of the tables is not installed with the package: run "
                        "experiments/run_table.py of a checkout") from error
    return run_table.main(argv)


if __name__ == "__main__":
    sys.exit(main())
