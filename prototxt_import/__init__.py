"""Original files in, original files out.

load_net(prototxt, caffemodel=None, phase="TEST") -> CaffeNet, a torch module;
load_solver(path) -> CaffeSolver; convert(prototxt, caffemodel) -> PSPNet;
convert_backbone(prototxt, caffemodel) -> ResNet; export(model, crop_size, prototxt_path,
caffemodel_path). Files:
read_net(path) -> NetParameter and read_solver(path) -> SolverParameter: prototxt files (messages of
format.caffe_pb2); write_prototxt(path, message). read_caffemodel(path) -> {layer name: (type,
[float32 arrays])} in the file's order; write_caffemodel(path, name, layers) takes the same mapping.
read_solverstate(path) -> SolverState and write_solverstate(path, state).
"""

import importlib

__import__("pspnet_repro")  # Ctrl-C ends this program with a word from here on

_PLACES = {"CaffeNet": "net", "CaffeSolver": "solver", "SolverState": "format.solverstate",
           "convert": "conversion.convert",
           "convert_backbone": "conversion.convert", "export": "conversion.export",
           "load_net": "net", "load_solver": "solver",
           "read_caffemodel": "format.caffemodel", "read_net": "format.prototxt",
           "read_solver": "format.prototxt", "read_solverstate": "format.solverstate",
           "write_caffemodel": "format.caffemodel",
           "write_prototxt": "format.prototxt", "write_solverstate": "format.solverstate"}
__all__ = list(_PLACES)


def __getattr__(name):
    """Import a public name when it is first asked for: the commands' --help needs no torch."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)
    globals()[name] = value
    return value
