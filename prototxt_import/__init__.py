"""Original files in, original files out.

load_net(prototxt, caffemodel=None, phase="TEST") -> CaffeNet, a torch module;
load_solver(path) -> CaffeSolver; convert(prototxt, caffemodel) -> PSPNet;
convert_backbone(prototxt, caffemodel) -> ResNet; export(model, crop_size, prototxt_path,
caffemodel_path). Files:
read_net(path) -> NetParameter and read_solver(path) -> SolverParameter: prototxt files (messages of
caffe_pb2); write_prototxt(path, message). read_caffemodel(path) -> {layer name: (type, [float32
arrays])} in the file's order; write_caffemodel(path, name, layers) takes the same mapping.
"""

from prototxt_import.caffemodel import read_caffemodel, write_caffemodel
from prototxt_import.convert import convert, convert_backbone
from prototxt_import.export import export
from prototxt_import.net import CaffeNet, load_net
from prototxt_import.prototxt import read_net, read_solver, write_prototxt
from prototxt_import.solver import CaffeSolver, load_solver

__all__ = ["CaffeNet", "CaffeSolver", "convert", "convert_backbone", "export", "load_net",
           "load_solver", "read_caffemodel", "read_net", "read_solver", "write_caffemodel",
           "write_prototxt"]
