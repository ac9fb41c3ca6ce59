"""PSPNet as its authors' program computes, trains and tests it."""

import os
import sys


def _is_program():
    """Whether this process is a program of ours, of which this is the first code to run."""
    if sys.argv[:1] != ["-m"]:  # which stands there until `python -m` has found its module
        return os.path.basename(sys.argv[0]) in ("pspnet", "run_table.py") if sys.argv else False
    words = sys.orig_argv
    module = words[words.index("-m") + 1] if "-m" in words[:-1] else ""
    return module.partition(".")[0] in ("pspnet_repro", "prototxt_import", "experiments")


if _is_program():
    try:
        from pspnet_repro.errors import stop_on_interrupt
        stop_on_interrupt()
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr, flush=True)
        os._exit(130)

import importlib

__version__ = "0.1.0"
__all__ = ["PSPNet", "Predictor", "SyncBatchNorm2d", "__version__", "load_model"]

_PLACES = {"PSPNet": "model.pspnet", "Predictor": "evaluation.predictor",
           "SyncBatchNorm2d": "sync_bn", "load_model": "weights.model_file"}


def __getattr__(name):
    """Import a public name when it is first asked for: the commands' --help needs no torch."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)
    return globals()[name]


def __dir__():
    return sorted({*globals(), *_PLACES})
