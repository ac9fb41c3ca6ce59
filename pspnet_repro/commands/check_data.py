"""pspnet check-data"""

from pspnet_repro.commands.data_options import add_data
from pspnet_repro.commands.options import add_names, processes, whole


def add(commands):
    parser = commands.add_parser(
        "check-data", help="go over a data set: what is wrong, and how to mend it",
        description="Reads every image and label of a data set. Ends with exit code 1 where "
                    "something is wrong.",
        examples=("pspnet check-data --data DIR --classes 11",
                  "pspnet check-data --data cityscapes=DIR --split val"))
    add_data(parser)
    parser.add_argument("--split", help="default: train and val")
    parser.add_argument("--classes", type=whole(1, 254), help="their number, for list files")
    add_names(parser)
    parser.add_argument("--threads", type=processes, default=2, help="that read files")
    parser.set_defaults(work="pspnet_repro.commands.work.check_data")
