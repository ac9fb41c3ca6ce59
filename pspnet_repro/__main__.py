"""python -m pspnet_repro {train,evaluate,predict,check-data,make-lists}"""

import argparse
import sys

import cv2

from pspnet_repro import distributed
from pspnet_repro.commands import check_data, evaluate, make_lists, predict, train
from pspnet_repro.errors import REPORTED, UsageError, print_anything, printable, report
from pspnet_repro.run_folder import Interrupted


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m pspnet_repro", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (train, evaluate, predict, check_data, make_lists):
        command.add(commands)
    args = parser.parse_args(argv)
    print_anything()
    # Our own messages name the file.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        code = args.run(args) or 0
        sys.stdout.flush()
        return code
    except (UsageError, distributed.FailedElsewhere) as error:
        distributed.say(f"error: {printable(str(error))}")
        return 2 if isinstance(error, UsageError) else 1
    except REPORTED as error:
        return report(error)
    except (Interrupted, KeyboardInterrupt) as stop:
        distributed.say(f"\n{stop}" if str(stop) else "\nstopped")
        return 130


if __name__ == "__main__":
    sys.exit(main())
