"""Commands of pspnet, called in this process, and what they must give."""

from pspnet_repro.__main__ import main
from pspnet_repro.data.images import read_image
from pspnet_repro.evaluation import predict_probabilities

# The network of networks.MODEL as options of train, but for its classes.
SMALL = ("--width", 0.125, "--stem", "classic", "--stem-width", 8, "--blocks", "1,1,1,1")
SIZES = ("--base-size", "96", "--crop-size", "89", "--threads", "1")


def run(capfd, *words):
    """(exit code, standard output, standard error) of a command."""
    try:
        code = main([str(word) for word in words])
    except SystemExit as stop:
        code = stop.code
    return code, *capfd.readouterr()


def labels_by_hand(net, path, **changes):
    """The label map that predict must write of an image, with SIZES."""
    settings = {"classes": 4, "base_size": 96, "crop_size": 89} | changes
    return predict_probabilities(net, read_image(path)[..., ::-1], **settings).argmax(2)
