"""A PSPNet as an ONNX file, checked in onnxruntime."""

import json
import os
from typing import BinaryIO

import numpy as np
import torch

from pspnet_repro.errors import UserError
from pspnet_repro.model.plain import PlainPSPNet
from pspnet_repro.model.pspnet import PSPNet
from pspnet_repro.protobuf import field
from pspnet_repro.weights.score_check import ScoreCheck, checked_sizes

OUTPUTS = ("logits", "scores", "labels")
_MOST = 2 ** 31 - 1  # bytes of a message of protobuf
_GRAPH, _INITIALIZER, _RAW_DATA = 7, 5, 9  # fields of ModelProto, GraphProto, TensorProto


def require_onnx() -> None:
    """Raise UserError where a package that an OnnxFile needs is missing."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise UserError(f"ONNX needs {error.name}: pip install -r requirements-onnx.txt") from error


class OnnxFile:
    """Content of an ONNX file of a network, for files.write_bytes.

    BN is folded. Operators are ONNX's own, of opset 17; upsampling is a product with matrices, so
    its positions are exactly this program's. N may be any. Metadata hold the settings and the
    Check. It is written once, and needs memory for two networks at most, with `release` for one.

    Args:
        net: in eval mode, on the CPU, with float32 parameters.
        crop_size: pixels a side.
        input_kind: "prepared": `input`, (N, 3, crop_size, crop_size) float32, see PSPNet.prepare;
            "rgb": `image`, the same shape, uint8 with red first, which the file prepares itself.
        output_kind: "scores", (N, classes, crop_size, crop_size) float32; "logits", those before
            the last upsampling; "labels", (N, crop_size, crop_size) int64, the argmax. The output
            has this name.
        dynamic_size: images may have any height and width that the network's check_crop allows; at
            others the file's program stops. crop_size is then one of those that are checked.
        release: let the network's weights go while they are written; it can't be used any more.
    Attributes:
        check: the Check, once the file is written.
    Raises:
        ValueError: another kind.
        UserError: onnx or onnxruntime is missing, a size that the network does not allow, or a
            network too large; when called, scores of onnxruntime that differ from the network's.
    """

    def __init__(self, net: PSPNet, crop_size: int, input_kind: str = "prepared",
                 output_kind: str = "scores", dynamic_size: bool = False,
                 release: bool = False) -> None:
        require_onnx()
        from pspnet_repro.weights.onnx_graph import INPUTS
        for name, kind, kinds in (("input_kind", input_kind, tuple(INPUTS)),
                                  ("output_kind", output_kind, OUTPUTS)):
            if kind not in kinds:
                raise ValueError(f"{name} must be one of {', '.join(kinds)}, got {kind!r}")
        self.sizes = checked_sizes(net, crop_size, dynamic_size)
        size = 4 * sum(parameter.numel() for parameter in net.parameters())
        if size > _MOST:
            raise UserError(f"an ONNX file holds at most 2 GiB, and the network has "
                            f"{size / 2 ** 30:.1f} GiB of weights: use --torch-export NET.pt2")
        self.net, self.release, self.check = net, release, None
        self.arguments = None if dynamic_size else crop_size, input_kind, output_kind

    def __call__(self, file: BinaryIO) -> None:
        """Write to an open file with a name, empty or not."""
        from onnx import ModelProto, helper

        from pspnet_repro.weights.onnx_graph import NetworkGraph
        settings, output = self.net.settings, self.arguments[2]
        check = ScoreCheck(self.net, self.sizes, output == "logits")
        plain = PlainPSPNet(self.net, release=self.release)
        self.net = None
        graph = NetworkGraph(plain, settings, *self.arguments)
        del plain
        places = _write(file, graph.model(output), graph.weights)
        file.flush()
        # Labels are checked beside the scores that they were made of.
        model = graph.model("scores", "labels") if output == "labels" else graph.model(output)
        del graph  # its weights are in the file, of which onnxruntime maps them
        self.check = _run(check, model, file.name, places)
        facts = ModelProto()
        helper.set_model_props(facts, {
            "settings": json.dumps(dict(settings)), "check": json.dumps(self.check._asdict()),
            **{name: json.dumps(getattr(settings, name)) for name in settings.INPUT}})
        file.write(facts.SerializeToString())


def _write(file, model, weights):
    """Write a model with its weights, one after the other; {name: (shape, first byte, bytes)}."""
    from onnx import TensorProto
    arrays = {name: np.ascontiguousarray(tensor.numpy(), "<f4") for name, tensor in weights.items()}
    pieces = [model.graph.SerializeToString()]
    for name, array in arrays.items():
        head = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=array.shape)
        pieces += field(_INITIALIZER, head.SerializeToString(), *field(_RAW_DATA, array.data))
    around = type(model).FromString(model.SerializeToString())
    around.ClearField("graph")
    names, places = {id(array.data.obj): name for name, array in arrays.items()}, {}
    for piece in (around.SerializeToString(), *field(_GRAPH, *pieces)):
        if isinstance(piece, memoryview):
            places[names[id(piece.obj)]] = piece.shape, file.tell(), piece.nbytes
        file.write(piece)
    return places


def _run(check, model, path, places):
    """The Check of a model whose weights lie in a file. Raises UserError as `check`, or for labels
    that are not the argmax."""
    import onnxruntime
    from onnx import TensorProto
    folder, name = os.path.split(os.path.abspath(path))
    for weight, (shape, offset, length) in places.items():
        tensor = model.graph.initializer.add(name=weight, dims=shape, data_type=TensorProto.FLOAT,
                                             data_location=TensorProto.EXTERNAL)
        for key, value in (("location", name), ("offset", offset), ("length", length)):
            tensor.external_data.add(key=key, value=str(value))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.enable_cpu_mem_arena = False
    # Without copies of the weights in another order.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.add_session_config_entry("session.disable_prepacking", "1")
    options.add_session_config_entry("session.model_external_initializers_file_folder_path",
                                     folder)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options,
                                           ["CPUExecutionProvider"])
    given = session.get_inputs()[0]
    program = f"onnxruntime {onnxruntime.__version__}"

    def run(images_rgb, x):
        images = x.numpy() if given.type == "tensor(float)" else np.ascontiguousarray(
            images_rgb.transpose(0, 3, 1, 2))
        scores, *labels = session.run(None, {given.name: images})
        if labels and not np.array_equal(labels[0], scores.argmax(1)):
            raise UserError(f"the exported file's labels in {program} are not the argmax of its "
                            "scores, so nothing is written: use --onnx-output scores")
        return torch.from_numpy(scores)

    return check(program, run)
