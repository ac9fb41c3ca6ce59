"""The data set that options name."""

import os
from argparse import Namespace
from pathlib import Path

from pspnet_repro.data.data_set import DataSet, open_data, open_folders
from pspnet_repro.errors import UsageError


def data_of(args: Namespace) -> DataSet:
    """The data that arguments name. Raises UserError where there are none, UsageError where
    arguments exclude each other."""
    meaning = {"zero_is_void": args.zero_is_void, "label_map": args.label_map,
               "ignore": args.ignore}
    if args.data is not None:
        if args.images is not None or args.labels is not None:
            raise UsageError("give either --data, or --images and --labels")
        return open_data(args.data, data_root=args.data_root, **meaning)
    if args.images is None and args.labels is None:
        raise UsageError("--data must name a data set; or give --images DIR and --labels DIR")
    if args.images is None or args.labels is None:
        raise UsageError("--images and --labels go together: give the other folder too; pictures "
                         "of photographs without labels are made by predict")
    if args.data_root is not None:
        raise UsageError("--data-root is for list files, and --images and --labels are folders")
    return open_folders(args.images, args.labels, **meaning)


def check_apart(output: Path, data: DataSet) -> None:
    """Raise UsageError where results would lie among the files of a DataSet."""
    if any(folder is not None and os.path.realpath(folder) == os.path.realpath(output)
           for folder in (data.root, data.lists, data.labels)):
        raise UsageError(f"--output {output} is a folder of the data: choose another, so that the "
                         "results do not lie among the data")
