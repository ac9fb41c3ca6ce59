"""A network's layers and what each reads, copies and in-place writes resolved."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import torch

from prototxt_import.conversion.written_net import is_caffemodel, written_net
from prototxt_import.format import caffe_pb2
from prototxt_import.layers.base import Shape
from prototxt_import.net import CaffeNet, load_net
from pspnet_repro.errors import UserError


@dataclass(eq=False, repr=False)
class Node:
    """A layer, or an input, in the graph."""

    layer: caffe_pb2.LayerParameter
    inputs: "Sequence[Node]"  # that it reads, in order
    shape: Shape | None  # of its first output, None where it has none
    params: Sequence[Shape] = ()  # shapes of its blobs
    users: "list[Node]" = field(default_factory=list)  # that read it, in the file's order

    def __post_init__(self) -> None:
        for node in self.inputs:
            node.users.append(self)

    @property
    def name(self) -> str:
        return self.layer.name

    @property
    def kind(self) -> str:
        return self.layer.type

    def __str__(self):
        return f"layer {self.name!r} ({self.kind})"


class Graph:
    """The nodes of a prototxt's network, in the file's order.

    Args:
        prototxt: a deploy net or a training net (its phase TRAIN), or a caffemodel that Caffe wrote
            in a training, which holds its layers.
    Raises:
        UserError: a file that load_net refuses.
    """

    def __init__(self, prototxt: Path | str) -> None:
        self.path = prototxt
        with torch.device("meta"):
            net = (CaffeNet(*written_net(prototxt)) if is_caffemodel(prototxt) else
                   load_net(prototxt, phase="TRAIN"))
            # A database leaves the channels of images open; PSPNet's have three.
            colour = {name: tuple(3 if size is None else size for size in shape)
                      for name, shape in net.partial_shapes.items() if shape is not None}
            if net.steps is None and colour and not is_caffemodel(prototxt):
                net = load_net(prototxt, phase="TRAIN", shapes=colour)
        for name, shape in net.input_shapes.items():
            if shape is None:
                raise UserError(f"{prototxt}: the size of input {name!r} is not in the file: bins "
                                "are read from it; give the data layer a crop_size")
        self.nodes = [Node(caffe_pb2.LayerParameter(name=name, type="Input"), (), shape)
                      for name, shape in net.input_shapes.items()]
        makers = {node.name: node for node in self.nodes}
        for step in net.steps:
            inputs = [makers[name] for name in step.layer.bottom]
            if step.layer.type == "Split":
                makers |= dict.fromkeys(step.layer.top, inputs[0])
                continue
            node = Node(step.layer, inputs, *step.built.tops[:1] or [None],
                        [param.shape for param in step.built.params])
            self.check(node.kind != "BN" or len(node.params) == 4, node,
                       "is caffe-segnet's BN, which keeps no statistics: must have 4 blobs")
            self.check(not step.layer.dropout_param.sample_weights_test, node,
                       "sample_weights_test must be false: a PSPNet drops nothing in testing")
            self.nodes.append(node)
            makers |= dict.fromkeys(step.layer.top, node)

    def units(self) -> "dict[Node, Unit]":
        """The Units of all convolutions by their last nodes."""
        return {unit.end: unit for unit in
                (Unit(node) for node in self.nodes if node.kind == "Convolution")}

    def fail(self, node: Node, rule: str) -> NoReturn:
        """Raise the UserError of a layer that breaks a rule."""
        raise UserError(f"{self.path}: {node}: {rule}")

    def check(self, condition: object, node: Node, rule: str) -> None:
        """Fail unless the condition holds."""
        if not condition:
            self.fail(node, rule)

    def window(self, node: Node) -> tuple[int, int, int]:
        """(kernel, stride, padding) of a convolution or a pooling, each the same both ways."""
        param = node.layer.convolution_param if node.kind == "Convolution" else (
            node.layer.pooling_param)
        if node.kind == "Pooling" and param.global_pooling:
            kernel = node.inputs[0].shape[2:]
            self.check(kernel[0] == kernel[1], node, f"its window must be square, is {kernel}")
            return kernel[0], kernel[0], 0
        return tuple(self._side(node, param, *field) for field in (
            ("kernel_size", "kernel", 1), ("stride", "stride", 1), ("pad", "pad", 0)))

    def _side(self, node, param, name, short, default):
        both = [getattr(param, f"{short}_{way}") for way in "hw"
                if param.HasField(f"{short}_{way}")]
        plain = getattr(param, name)
        plain = [plain] if isinstance(plain, int) else list(plain)
        values = set(both or plain or [default])
        self.check(len(values) == 1, node, f"{name} must be the same both ways, is "
                                           f"{sorted(values)}")
        return values.pop()

    def dilation(self, node: Node) -> int:
        """Dilation of a convolution, the same both ways."""
        values = set(node.layer.convolution_param.dilation or [1])
        self.check(len(values) == 1, node, "dilation must be the same both ways")
        return values.pop()


class Unit:
    """A convolution with what follows it alone: BN, or BatchNorm and Scale; ReLU; Dropout."""

    def __init__(self, conv: Node) -> None:
        self.conv, self.nodes = conv, [conv]
        self.norm = self._next("BN", "SyncBN", "BatchNorm")
        self.scale = self._next("Scale") if self.norm and self.norm.kind == "BatchNorm" else None
        self.relu = self._next("ReLU")
        self.dropout = self._next("Dropout")

    def _next(self, *kinds):
        users = self.end.users
        if len(users) != 1 or users[0].kind not in kinds or len(users[0].inputs) != 1:
            return None
        self.nodes.append(users[0])
        return users[0]

    @property
    def end(self) -> Node:
        """The last of its nodes."""
        return self.nodes[-1]

    @property
    def source(self) -> Node:
        """The node that the convolution reads."""
        return self.conv.inputs[0]

    @property
    def channels(self) -> int:
        return self.conv.params[0][0]
