"""pspnet demo"""

from pspnet_repro.commands.options import path
from pspnet_repro.commands.parser import Commands
from pspnet_repro.commands.table import add_folders


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "demo", help="train two small networks on drawn scenes and show what they see",
        description="Trains two small networks, a baseline and a PSPNet, on drawn scenes, unless "
                    "that was done before, and writes a page of what they see in six new scenes. "
                    "It takes two minutes on two cores.",
        examples=("pspnet demo", "pspnet demo -o OUT"))
    parser.add_argument("-o", "--output", type=path,
                        help="folder of the page; default: demo in --runs")
    add_folders(parser)
    parser.set_defaults(work="experiments.demo")
