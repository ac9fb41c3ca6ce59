"""Small networks in the original's files, for the tests of convert and export."""

import re

import numpy as np
import torch

from helpers.golden import assert_same_bits
from prototxt_import import export, load_solver, read_caffemodel, write_caffemodel
from pspnet_repro import PSPNet

NSFW = "models/open_nsfw"  # a folder of the shared data
MINI = {"width": 0.125, "stem_width": 8, "blocks": (1, 2, 1, 1)}


def drawn(net, seed=0):
    """A network whose every tensor is drawn; variances are positive."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            value = torch.rand(tensor.shape, generator=generator)
            tensor.copy_(value + 0.5 if name.endswith("running_var") else value - 0.5)
    return net.eval()


def small_network(folder):
    """A small PSPNet, its prototxt's text and its caffemodel's layers."""
    net = drawn(PSPNet(3, 50, **MINI))
    export(net, 89, folder / "net.prototxt", folder / "w.caffemodel")
    return net, (folder / "net.prototxt").read_text(), read_caffemodel(folder / "w.caffemodel")


def write_files(folder, text, weights):
    """Paths of a prototxt and a caffemodel."""
    (folder / "net.prototxt").write_text(text)
    write_caffemodel(folder / "w.caffemodel", "net", weights)
    return folder / "net.prototxt", folder / "w.caffemodel"


def seeded_weights(net, arrays):
    """Weights of a golden/net file, layer by layer in the order of the prototxt."""
    random = np.random.RandomState(int(arrays["seed"]))
    weights = {}
    for step in net.steps:
        name, kind, params = step.layer.name, step.layer.type, step.params
        if kind == "Convolution":
            shape = tuple(params[0].shape)
            blobs = [random.randn(*shape) * np.sqrt(2 / np.prod(shape[1:]))]
            blobs += [random.randn(shape[0]) * 0.1 for _ in params[1:]]
        elif kind == "BN":
            shape = tuple(params[0].shape)
            blobs = [random.uniform(0.5, 1.5, shape), random.randn(*shape) * 0.1,
                     arrays[f"mean/{name}"].reshape(shape), arrays[f"var/{name}"].reshape(shape)]
        else:
            continue
        weights[name] = (kind, [blob.astype(np.float32) for blob in blobs])
    return weights


def assert_same_network(one, other):
    """Equal settings, names and bits."""
    assert one.settings == other.settings
    assert list(one.state_dict()) == list(other.state_dict())
    for name, tensor in other.state_dict().items():
        assert_same_bits(one.state_dict()[name], tensor.numpy())


def change_layer(name, old, new):
    """A function that replaces in the text of one layer."""
    def change(text):
        parts = re.split(r"(?m)^(?=layer \{)", text)
        found = [k for k, part in enumerate(parts) if f'  name: "{name}"\n' in part]
        assert len(found) == 1 and old in parts[found[0]]
        parts[found[0]] = parts[found[0]].replace(old, new)
        return "".join(parts)
    return change


# One weight w, a loss that is its sum over two inputs: the gradient is the sum of the inputs.
IP_NET = """
layer { name: "data" type: "Input" top: "x" input_param { shape { dim: 2 dim: 1 } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y" loss_weight: 1 %s
        inner_product_param { num_output: 1 bias_term: false
                              weight_filler { type: "constant" value: 2 } } }
"""


def solver_of(tmp_path, text, net=IP_NET % ""):
    """The CaffeSolver of the text of its file and of its network's, net.prototxt."""
    (tmp_path / "net.prototxt").write_text(net)
    path = tmp_path / "solver.prototxt"
    path.write_text(text)
    return load_solver(path)
