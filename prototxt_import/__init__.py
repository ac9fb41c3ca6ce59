"""Original files in, original files out: networks and solvers that run, conversions, and files.

Each name of __all__ has its description in its own module.
"""

import importlib

__import__("pspnet_repro")  # Ctrl-C ends this program with a word from here on

_NAMES = {"net": ("CaffeNet", "load_net"), "solver": ("CaffeSolver", "load_solver"),
          "conversion.convert": ("convert", "convert_backbone"), "conversion.export": ("export",),
          "format.caffemodel": ("read_caffemodel", "write_caffemodel"),
          "format.prototxt": ("read_net", "read_solver", "write_prototxt"),
          "format.solverstate": ("SolverState", "read_solverstate", "write_solverstate")}
_PLACES = {name: module for module, names in _NAMES.items() for name in names}
__all__ = list(_PLACES)


def __getattr__(name):
    """Import a public name when it is first asked for: the commands' --help needs no torch."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)
    globals()[name] = value
    return value
