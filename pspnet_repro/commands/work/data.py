"""The data set that options name."""

import os

from pspnet_repro.data.data_set import open_data, open_folders
from pspnet_repro.errors import UsageError


def data_of(args):
    """The data.data_set.DataSet that arguments name.

    Raises:
        UsageError: they name none or two, or exclude each other; UserError: there is none.
    """
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


def check_apart(output, data):
    """Raise UsageError where results would lie among the files of a DataSet."""
    folders = [folder for folder in (data.root, data.lists, data.labels) if folder is not None]
    if os.path.realpath(output) in map(os.path.realpath, folders):
        raise UsageError(f"--output {output} is a folder of the data: choose another, so that the "
                         "results do not lie among the data")
