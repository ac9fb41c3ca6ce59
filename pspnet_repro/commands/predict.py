"""pspnet predict"""

from pspnet_repro.commands.options import WEIGHTS, add_testing, path, weights


def add(commands):
    parser = commands.add_parser(
        "predict", help="label maps and pictures of photographs",
        description="Writes for each image NAME.label.png (class indices), NAME.colour.png and "
                    "NAME.overlay.png with a legend of the classes present. NAME is the file's "
                    "without its ending; of files that would meet the whole name, and of those "
                    "that still would, with a number before. Photographs are turned upright as "
                    "their EXIF orientation says. Of 16 bits the upper 8 are used; files of 16 "
                    "bits with no value above 4095 (12 bits or fewer), of floats and of 32-bit "
                    "integers are refused: scale them to 0..255 first. Only files that an earlier "
                    "call wrote are replaced, and of a folder they are left out.",
        examples=("pspnet predict PHOTO.jpg FOLDER --weights RUN/weights.pt -o OUT --html",
                  "pspnet predict FOLDER --weights A.pt --compare-with B.pt -o OUT --html",
                  "pspnet predict PHOTO.jpg --weights NET.prototxt,W.caffemodel -o OUT"))
    parser.add_argument("images", nargs="*", type=path, metavar="IMAGE|DIR",
                        help="image files, and folders of them")
    parser.add_argument("-o", "--output", required=True, type=path, metavar="DIR",
                        help="folder of the results")
    parser.add_argument("--html", action="store_true",
                        help="also write one page, DIR/index.html, that shows all photographs "
                             "under their classes; it needs no network and no server")
    parser.add_argument("--compare-with", type=weights, metavar="WEIGHTS",
                        help=f"a second network, {WEIGHTS}: the page of --html shows its classes "
                             "beside those of --weights, or under a slider")
    add_testing(parser)
    parser.set_defaults(work="pspnet_repro.commands.work.predict")
