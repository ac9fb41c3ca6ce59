"""pspnet evaluate"""

from pspnet_repro.commands.data_options import add_data
from pspnet_repro.commands.options import add_testing, path
from pspnet_repro.commands.parser import Commands


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "evaluate", help="mean IoU and pixel accuracy of trained weights on a data set",
        description="Tests weights as the authors' scripts do. The same command resumes an "
                    "interrupted test; processes of torchrun share the images. Of a split without "
                    "labels it writes predictions, in the form that the benchmark's server takes.",
        examples=("pspnet evaluate --weights RUN/weights.pt --data cityscapes=DIR --multi-scale",
                  "pspnet evaluate --weights NET.prototxt,W.caffemodel --data ade20k=DIR"))
    add_data(parser)
    parser.add_argument("--split", default="val", metavar="NAME",
                        help="train, val, test or another list of the data")
    parser.add_argument("-o", "--output", type=path,
                        help="folder of the results; default: beside the weights, named after data "
                             "and split")
    parser.add_argument("--save-predictions", action="store_true",
                        help="write predictions of a split with labels, too")
    add_testing(parser)
    parser.set_defaults(work="pspnet_repro.commands.work.evaluate")
