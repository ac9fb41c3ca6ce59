"""python -m prototxt_import {inspect,convert,export,run}"""

import argparse
import sys
import warnings

from pspnet_repro.errors import command
from prototxt_import import convert_command, export_command, inspect, run

# Each module adds its subcommand with add_parser(commands).
COMMANDS = (inspect, convert_command, export_command, run)


@command
def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m prototxt_import",
                                     description="Original files in, original files out.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for module in COMMANDS:
        module.add_parser(commands)
    args = parser.parse_args(argv)
    warnings.showwarning = _print_warning
    args.run(args)
    return 0


def _print_warning(message, *_):
    print(f"warning: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
