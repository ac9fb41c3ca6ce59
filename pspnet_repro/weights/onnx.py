"""A PSPNet as an ONNX file, checked in onnxruntime."""

import copy
import json

import numpy as np
import torch
from torch import nn

import pspnet_repro
from pspnet_repro.errors import UserError
from pspnet_repro.model.plain import bin_edges
from pspnet_repro.model.pspnet import PSPNet
from pspnet_repro.model.upsampling import upsample2d
from pspnet_repro.weights.score_check import Check, compare, drawn_images, drawn_input

OPSET, _IR_VERSION = 17, 8
INPUTS = {"prepared": "input", "rgb": "image"}  # by kind, the input's name
OUTPUTS = ("logits", "scores", "labels")


def require_onnx() -> None:
    """Raise UserError where a package that `onnx_bytes` needs is missing."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise UserError(f"ONNX needs {error.name}: pip install -r requirements-onnx.txt") from error


def onnx_bytes(net: PSPNet, crop_size: int, input_kind: str = "prepared",
               output_kind: str = "scores") -> tuple[bytes, Check]:
    """The content of an ONNX file of a network, and how it was checked.

    BN is folded. Operators are ONNX's own, of opset OPSET; upsampling is a product with constant
    matrices, so its positions are exactly this program's. N may be any. Metadata hold the settings
    and the Check.

    Args:
        net: in eval mode, on the CPU, with float32 parameters.
        crop_size: pixels a side.
        input_kind: "prepared": `input`, (N, 3, crop_size, crop_size) float32, see PSPNet.prepare;
            "rgb": `image`, the same shape, uint8 with red first, which the file prepares itself.
        output_kind: "scores", (N, classes, crop_size, crop_size) float32; "logits", those before
            the last upsampling; "labels", (N, crop_size, crop_size) int64, the argmax. The output
            has this name.
    Raises:
        ValueError: another kind.
        UserError: onnx or onnxruntime is missing, a size that the network does not allow, or
            scores of onnxruntime that differ from the network's.
    """
    for name, kind, kinds in (("input_kind", input_kind, tuple(INPUTS)),
                              ("output_kind", output_kind, OUTPUTS)):
        if kind not in kinds:
            raise ValueError(f"{name} must be one of {', '.join(kinds)}, got {kind!r}")
    require_onnx()
    import onnx
    try:
        net.check_crop(crop_size)
    except ValueError as error:
        raise UserError(str(error)) from error
    graph = _Graph(net, crop_size, input_kind, output_kind)
    model = graph.model(output_kind)
    onnx.checker.check_model(model, full_check=True)
    # Labels are checked beside the scores that they were made of.
    checked = graph.model("scores", "labels") if output_kind == "labels" else model
    check = check_scores(checked.SerializeToString(), net, crop_size)
    settings = net.settings
    onnx.helper.set_model_props(model, {
        "settings": json.dumps(dict(settings)), "check": json.dumps(check._asdict()),
        **{name: json.dumps(getattr(settings, name)) for name in settings.INPUT}})
    return model.SerializeToString(), check


def check_scores(content: bytes, net: PSPNet, crop_size: int) -> Check:
    """Compare an ONNX file in onnxruntime with the network that it was made of, in float64.

    Its first output must be scores or logits; a second one must be labels.

    Raises:
        UserError: as score_check.compare, or labels that are not the argmax.
    """
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, ["CPUExecutionProvider"])
    x, name = drawn_input(net, crop_size), session.get_inputs()[0].name
    scores, *labels = session.run(None, {
        name: x.numpy() if name == INPUTS["prepared"] else
        np.ascontiguousarray(drawn_images(crop_size).transpose(0, 3, 1, 2))})
    # In float64: in float32 a deep network's own rounding may exceed the tolerance.
    exact = copy.deepcopy(net).double()
    exact = exact.logits if session.get_outputs()[0].name == "logits" else exact
    with torch.inference_mode():
        wanted = torch.cat([exact(image[None].double()) for image in x])
    program = f"onnxruntime {onnxruntime.__version__}"
    if labels and not np.array_equal(labels[0], scores.argmax(1)):
        raise UserError(f"the exported file's labels in {program} are not the argmax of its "
                        "scores, so nothing is written: use --onnx-output scores")
    return compare(program, torch.from_numpy(scores), wanted)


class _Graph:
    """The nodes and constants of a network, from its plain copy."""

    def __init__(self, net, crop_size, input_kind, output_kind):
        self.plain, self.size, self.input_kind = (net.for_inference(plain=True), crop_size,
                                                  input_kind)
        self.nodes, self.constants, self.names = [], [], set()
        with torch.inference_mode():
            x = INPUTS[input_kind]
            if input_kind == "rgb":
                x = self._prepared(x, net.settings)
            self._network(x, output_kind)

    def model(self, *outputs):
        from onnx import TensorProto, helper
        size, reduced = self.size, self._map_size()
        shapes = {"logits": (self.plain.classes, reduced, reduced),
                  "scores": (self.plain.classes, size, size), "labels": (size, size)}
        kind = TensorProto.UINT8 if self.input_kind == "rgb" else TensorProto.FLOAT
        image = helper.make_tensor_value_info(INPUTS[self.input_kind], kind, ["N", 3, size, size])
        results = [helper.make_tensor_value_info(
            name, TensorProto.INT64 if name == "labels" else TensorProto.FLOAT,
            ["N", *shapes[name]]) for name in outputs]
        graph = helper.make_graph(self.nodes, "pspnet", [image], results, self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)],
                                 ir_version=_IR_VERSION, producer_name="pspnet-repro",
                                 producer_version=pspnet_repro.__version__)

    def _map_size(self):
        return (self.size - 1) // self.plain.stride + 1

    def _prepared(self, x, settings):
        """As ImageInput, step by step."""
        from onnx import TensorProto
        x = self._add("Cast", [x], to=TensorProto.FLOAT)
        if settings.input_order == "bgr":
            x = self._add("Gather", [x, self._constant("bgr", torch.tensor([2, 1, 0]))], axis=1)
        mean, std = (torch.tensor(values).view(3, 1, 1)
                     for values in (settings.input_mean, settings.input_std))
        x = self._add("Sub", [x, self._constant("input_mean", mean)])
        return x if (std == 1).all() else self._add("Div", [x, self._constant("input_std", std)])

    def _add(self, kind, inputs, name=None, **attributes):
        from onnx import helper
        output = name or f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def _constant(self, name, tensor):
        """The name of a constant, which is made once."""
        from onnx import numpy_helper
        if name not in self.names:
            self.names.add(name)
            self.constants.append(numpy_helper.from_array(
                np.ascontiguousarray(tensor.numpy()), name))
        return name

    def _module(self, x, path, module, output=None):
        if isinstance(module, nn.Sequential):
            for name, part in module.named_children():
                x = self._module(x, f"{path}.{name}", part)
            return x
        if isinstance(module, nn.ReLU):
            return self._add("Relu", [x])
        if isinstance(module, nn.MaxPool2d):
            # At sizes that check_crop allows, ceil_mode changes nothing: they leave an odd map.
            return self._add("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2],
                             pads=[module.padding] * 4)
        constants = [self._constant(f"{path}.{kind}", getattr(module, kind))
                     for kind in ("weight", "bias")]
        return self._add("Conv", [x, *constants], output, kernel_shape=list(module.kernel_size),
                         strides=list(module.stride), pads=list(module.padding) * 2,
                         dilations=list(module.dilation))

    def _network(self, x, output_kind):
        plain, size = self.plain, self._map_size()
        x = self._module(x, "stem", plain.stem)
        for k, block in enumerate(plain.blocks):
            shortcut = x if block.project is None else self._module(
                x, f"blocks.{k}.project", block.project)
            x = self._add("Relu", [self._add("Add", [
                shortcut, self._module(x, f"blocks.{k}.branch", block.branch)])])
        levels = [self._upsampled(self._module(self._pooled(x, bins, size), f"levels.{k}", level),
                                  bins, size)
                  for k, (bins, level) in enumerate(zip(plain.bins, plain.levels))]
        if levels:
            x = self._add("Concat", [x, *reversed(levels)], axis=1)
        x = self._module(self._module(x, "head", plain.head), "score", plain.score, "logits")
        if output_kind != "logits":
            x = self._upsampled(x, size, self.size, "scores")
        if output_kind == "labels":
            self._add("ArgMax", [x], "labels", axis=1, keepdims=0)

    def _pooled(self, x, bins, size):
        """As model.plain.pooled, for a square map."""
        kind = "ReduceMean" if self.plain.pool == "ave" else "ReduceMax"
        for axis in (2, 3):
            parts = [self._add(kind, [self._slice(x, axis, *edges)], axes=[axis], keepdims=1)
                     for edges in bin_edges(size, bins)]
            x = self._add("Concat", parts, axis=axis) if bins > 1 else parts[0]
        return x

    def _slice(self, x, axis, begin, end):
        return self._add("Slice", [x, *(self._constant(f"index_{index}", torch.tensor([index]))
                                        for index in (begin, end, axis))])

    def _upsampled(self, x, size, out_size, output=None):
        """Rows, then columns, of upsample2d, each by a matrix."""
        unit = torch.eye(size).view(1, size, size, 1)
        rows = upsample2d(unit, (out_size, 1), self.plain.align_corners)[0, :, :, 0].T
        name = f"interpolation_{size}_{out_size}"
        x = self._add("MatMul", [self._constant(f"{name}_rows", rows), x])
        return self._add("MatMul", [x, self._constant(f"{name}_columns", rows.T)], output)
