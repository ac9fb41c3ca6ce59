"""pspnet: train, test and use PSPNet as its authors' program does."""

import importlib
import importlib.util
import os
import sys
import warnings
from pathlib import Path

from pspnet_repro import __version__
from pspnet_repro.commands import check_data, evaluate, make_lists, predict, train
from pspnet_repro.commands.parser import Parser
from pspnet_repro.errors import command

# Commands of the harness, which parses their options itself: modules and words of help.
HARNESS = {"table": ("run_table", "train and test the rows of the paper's tables"),
           "demo": ("demo", "train two small networks on drawn scenes and show what they see")}


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
                   run):
        module.add(commands)
    for name, (_, words) in HARNESS.items():
        commands.add_parser(name, help=words, add_help=False)
    return parser


@command
def main(argv=None):
    """Run a command; returns its exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    if argv and argv[0] in HARNESS:
        return _harness(argv[0], argv[1:])
    args = build_parser().parse_args(argv)
    warnings.showwarning = _print_warning
    # Our own messages name the file.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    return importlib.import_module(args.work).run(args) or 0


def _print_warning(message, *_):
    print(f"warning: {message}", file=sys.stderr)


def _harness(name, argv):
    package, root = "pspnet_repro.experiments", Path(__file__).resolve().parents[1]
    if importlib.util.find_spec(package) is None:  # a checkout, which has the folder beside this
        package = "experiments"
        if str(root) != sys.path[0]:
            sys.path.insert(0, str(root))
    return importlib.import_module(f"{package}.{HARNESS[name][0]}").main(argv)


if __name__ == "__main__":
    sys.exit(main())
