"""The nodes of a PSPNet in ONNX's operators, for images of one size or of any."""

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import nn

import pspnet_repro
from pspnet_repro.model.plain import PlainPSPNet
from pspnet_repro.model.settings import NetworkSettings

OPSET, _IR_VERSION = 17, 8
INPUTS = {"prepared": "input", "rgb": "image"}  # by kind, the input's name


class NetworkGraph:
    """The nodes and constants of a plain copy, PSPNet.for_inference(plain=True).

    The same nodes are for any size, and nodes of constants alone are computed here: of a fixed size
    what follows from it is constant.

    Args:
        size: pixels a side; None for images of any size that the network allows.
        input_kind, output_kind: see weights.onnx.OnnxFile.
    Attributes:
        weights: {name: tensor} of the convolutions, which `model` leaves out.
    """

    def __init__(self, plain: PlainPSPNet, settings: NetworkSettings, size: int | None,
                 input_kind: str, output_kind: str) -> None:
        self.plain, self.size, self.input_kind = plain, size, input_kind
        self.weights, self._nodes, self._constants, self._names = {}, [], {}, {}
        x = INPUTS[input_kind]
        shape = None if size else self._op("Shape", x)
        # Height and width of the image, and of the map at the network's stride.
        self._sides, self._map = [], []
        for axis, name in ((2, "height"), (3, "width")):
            side = self._constant(size) if size else self._op("Gather", shape, axis)
            less = self._op("Sub", side, 1)
            small = self._op("Add", self._op("Div", less, plain.stride), 1)
            wrong = self._op("Less", small, max(plain.bins, default=1))
            if not plain.any_size:
                wrong = self._op("Or", wrong, self._op("Greater", self._op(
                    "Mod", less, plain.stride), 0))
            # An image that the network would refuse stops the program here, by an index too high.
            zero = self._op("Gather", np.zeros(1, np.int64), self._op(
                "Cast", wrong, to=TensorProto.INT64), name=self._rule(name))
            self._sides.append(self._op("Add", side, zero))
            self._map.append(self._op("Add", small, zero))
        if input_kind == "rgb":
            x = self._prepared(x, settings)
        self._network(x, output_kind)

    def _rule(self, name):
        step, least = self.plain.stride, max(self.plain.bins, default=1)
        least = step * (least - 1) + 1
        return f"{name}_must_be_at_least_{least}" + f"_and_{step}k_plus_1" * (
            not self.plain.any_size)

    def model(self, *outputs: str) -> ModelProto:
        """With these outputs, of "logits", "scores" and "labels"."""
        size, classes = self.size, self.plain.classes
        sides, reduced = ([size] * 2, [(size - 1) // self.plain.stride + 1] * 2) if size else (
            ["H", "W"], ["h", "w"])
        shapes = {"logits": [classes, *reduced], "scores": [classes, *sides], "labels": sides}
        kind = TensorProto.UINT8 if self.input_kind == "rgb" else TensorProto.FLOAT
        image = helper.make_tensor_value_info(INPUTS[self.input_kind], kind, ["N", 3, *sides])
        results = [helper.make_tensor_value_info(
            name, TensorProto.INT64 if name == "labels" else TensorProto.FLOAT,
            ["N", *shapes[name]]) for name in outputs]
        used = {name for node in self._nodes for name in node.input}
        graph = helper.make_graph(self._nodes, "pspnet", [image], results, [
            numpy_helper.from_array(array, name) for name, array in self._constants.items()
            if name in used])
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)],
                                 ir_version=_IR_VERSION, producer_name="pspnet-repro",
                                 producer_version=pspnet_repro.__version__)

    def _constant(self, value):
        """The name of an array or a whole number; equal ones are one."""
        array = np.asarray(value, None if isinstance(value, (np.ndarray, np.generic)) else np.int64)
        name = self._names.setdefault((array.dtype, array.shape, array.tobytes()),
                                      f"constant_{len(self._names)}")
        self._constants[name] = array
        return name

    def _op(self, kind, *inputs, name=None, **attributes):
        """The output of a node; its inputs are names or what `_constant` takes."""
        inputs = [value if isinstance(value, str) else self._constant(value) for value in inputs]
        output = name or f"{kind}_{len(self._nodes)}"
        node: NodeProto = helper.make_node(kind, inputs, [output], name=output, **attributes)
        if all(value in self._constants for value in inputs):
            return self._constant(ReferenceEvaluator(node).run(None, {
                value: self._constants[value] for value in inputs})[0])
        self._nodes.append(node)
        return output

    def _float(self, x):
        return self._op("Cast", x, to=TensorProto.FLOAT)

    def _prepared(self, x, settings):
        """As ImageInput, step by step."""
        x = self._float(x)
        if settings.input_order == "bgr":
            x = self._op("Gather", x, np.array([2, 1, 0]), axis=1)
        mean, std = (np.array(values, np.float32).reshape(3, 1, 1)
                     for values in (settings.input_mean, settings.input_std))
        x = self._op("Sub", x, mean)
        return x if (std == 1).all() else self._op("Div", x, std)

    def _module(self, x, path, module, name=None):
        if isinstance(module, nn.Sequential):
            for part_name, part in module.named_children():
                x = self._module(x, f"{path}.{part_name}", part)
            return x
        if isinstance(module, nn.ReLU):
            return self._op("Relu", x)
        if isinstance(module, nn.MaxPool2d):
            # At sizes that check_crop allows, ceil_mode changes nothing: they leave an odd map.
            return self._op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2],
                            pads=[module.padding] * 4)
        weights = {f"{path}.{kind}": getattr(module, kind) for kind in ("weight", "bias")}
        self.weights |= weights
        return self._op("Conv", x, *weights, name=name, kernel_shape=list(module.kernel_size),
                        strides=list(module.stride), pads=list(module.padding) * 2,
                        dilations=list(module.dilation))

    def _network(self, x, output_kind):
        plain = self.plain
        x = self._module(x, "stem", plain.stem)
        for k, block in enumerate(plain.blocks):
            shortcut = x if block.project is None else self._module(
                x, f"blocks.{k}.project", block.project)
            x = self._op("Relu", self._op("Add", shortcut, self._module(
                x, f"blocks.{k}.branch", block.branch)))
        levels = [self._upsampled(self._module(self._pooled(x, bins), f"levels.{k}", level),
                                  [self._constant(bins)] * 2, self._map)
                  for k, (bins, level) in enumerate(zip(plain.bins, plain.levels))]
        if levels:
            x = self._op("Concat", x, *reversed(levels), axis=1)
        x = self._module(self._module(x, "head", plain.head), "score", plain.score, "logits")
        if output_kind != "logits":
            x = self._upsampled(x, self._map, self._sides, "scores")
        if output_kind == "labels":
            self._op("ArgMax", x, name="labels", axis=1, keepdims=0)

    def _pooled(self, x, bins):
        """As ops.pyramid_pool2d: bin i is from i * size // bins to the next one's, rounded up."""
        kind = "ReduceMean" if self.plain.pool == "ave" else "ReduceMax"
        for axis, size in ((2, self._map[0]), (3, self._map[1])):
            parts = []
            for i in range(bins):
                begin = self._op("Div", self._op("Mul", size, i), bins)
                end = self._op("Div", self._op("Add", self._op("Mul", size, i + 1), bins - 1), bins)
                edges = (self._op("Reshape", edge, np.array([1])) for edge in (begin, end))
                parts.append(self._op(kind, self._op("Slice", x, *edges, np.array([axis])),
                                      axes=[axis], keepdims=1))
            x = self._op("Concat", *parts, axis=axis) if bins > 1 else parts[0]
        return x

    def _upsampled(self, x, sizes, out_sizes, name=None):
        """As upsample2d, by a matrix for the rows, then one for the columns."""
        rows, columns = map(self._interpolation, sizes, out_sizes)
        x = self._op("MatMul", rows, x)
        return self._op("MatMul", x, self._op("Transpose", columns, perm=[1, 0]), name=name)

    def _interpolation(self, size, out_size):
        """(out_size, size) weights; positions in float32, in the order of upsample2d's steps."""
        one, half = np.float32(1), np.float32(0.5)
        places = self._float(self._op("Range", 0, out_size, 1))
        last = self._op("Sub", size, 1)
        if self.plain.align_corners:
            steps = self._op("Max", self._op("Sub", out_size, 1), 1)
            ratio = self._op("Div", self._float(last), self._float(steps))
            position = self._op("Mul", places, ratio)
        else:
            ratio = self._op("Div", self._float(size), self._float(out_size))
            position = self._op("Sub", self._op("Mul", self._op("Add", places, half), ratio), half)
            position = self._op("Max", self._op("Min", position, self._float(last)), np.float32(0))
        distance = self._op("Abs", self._op(
            "Sub", self._op("Reshape", position, np.array([-1, 1])),
            self._float(self._op("Range", 0, size, 1))))
        return self._op("Relu", self._op("Sub", one, distance))
