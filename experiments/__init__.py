"""The harness of the tables."""

__import__("pspnet_repro")  # Ctrl-C ends this program with a word from here on
