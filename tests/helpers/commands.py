"""Commands of pspnet, called in this process."""

from pspnet_repro.__main__ import main

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
