"""pspnet predict"""

from pspnet_repro.commands.options import WEIGHTS, add_testing, path, weights
from pspnet_repro.commands.parser import Commands


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "predict", help="label maps and pictures of photographs",
        description="Writes three files for each image NAME.jpg: NAME.label.png (the class index "
                    "of every pixel), NAME.colour.png (the colour of its class) and "
                    "NAME.overlay.png (the image under these colours, with a legend). Images of "
                    "the same NAME keep their ending in it. Photographs are turned upright as "
                    "their EXIF orientation says. Images of 16 bits use the upper 8; images of "
                    "floats, of 32 bits, or of 16 bits with no value above 4095 are refused: "
                    "scale them to 0..255 first. Only files that an earlier call wrote are "
                    "replaced, and they are never read as images.",
        examples=("pspnet predict PHOTO.jpg FOLDER --weights RUN/weights.pt -o OUT --html",
                  "pspnet predict FOLDER --weights NET.prototxt,W.caffemodel -o OUT --html "
                  "--compare-with B.pt"))
    parser.add_argument("images", nargs="*", type=path, metavar="IMAGE|DIR",
                        help="image files, and folders of them")
    parser.add_argument("-o", "--output", required=True, type=path, help="folder of the results")
    parser.add_argument("--html", action="store_true",
                        help="also write one page, DIR/index.html, that shows all photographs "
                             "under their classes; it needs no network and no server")
    parser.add_argument("--compare-with", type=weights,
                        help=f"a second network, {WEIGHTS}: the page of --html shows its classes "
                             "beside those of --weights, or under a slider")
    add_testing(parser)
    parser.set_defaults(work="pspnet_repro.commands.work.predict")
