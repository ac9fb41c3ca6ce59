"""PSPNet as its authors' program computes, trains and tests it."""

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
