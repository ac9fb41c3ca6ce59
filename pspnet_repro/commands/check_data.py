"""pspnet check-data"""

from pspnet_repro.commands.data_options import add_data
from pspnet_repro.commands.options import add_names, processes, whole
from pspnet_repro.commands.parser import Commands


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "check-data", help="read a whole data set and say what is wrong with it",
        description="Reads every image and label of a data set and lists each problem with its "
                    "remedy. The exit code is 1 if there is a problem.",
        examples=("pspnet check-data --data DIR --classes 11",
                  "pspnet check-data --data cityscapes=DIR --split val"))
    add_data(parser)
    parser.add_argument("--split", metavar="NAME",
                        help="train, val, test or another list of the data; default: train and val")
    parser.add_argument("--classes", type=whole(1, 254),
                        help="number of classes; default: the benchmark's or that of classes.txt")
    add_names(parser)
    parser.add_argument("--threads", type=processes, default=2, help="threads that read files")
    parser.set_defaults(work="pspnet_repro.commands.work.check_data")
