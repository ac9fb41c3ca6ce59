"""What is read off a network's graph, and the checks on the way."""

from collections.abc import Sequence

from prototxt_import.conversion.graph import Graph, Node, Unit


class Parts:
    """The parts of a network that are known so far."""

    def __init__(self, graph: Graph) -> None:
        self.graph, self.check = graph, graph.check
        self.image = None  # the node of the network's input
        self.normalization = None  # that of the convolution in image_input.py, or None
        self.settings = {}  # keyword arguments of PSPNet, or of a ResNet
        self.units = {}  # {module path: Unit} of every ConvBN
        self.scores = {}  # {module path: Node} of every score convolution
        self.used = set()  # the nodes of all of them

    @property
    def left_out(self) -> list[Node]:
        """The nodes that are no part of the network: losses, or a classifier."""
        return [node for node in self.graph.nodes if node not in self.used]

    def only(self, nodes: Sequence[Node], node: Node, what: str) -> Node:
        """The one node that reads `node`."""
        self.check(len(nodes) == 1, node, f"must be read by one {what}, is read by {len(nodes)}")
        return nodes[0]

    def add(self, module: str, unit: Unit, kernel: int, stride: int = 1, dilation: int = 1,
            relu: bool = True, dropout: bool = False) -> None:
        """Give a unit its place, after checking what it computes."""
        conv, norm, scale = unit.conv, unit.norm, unit.scale
        self.check(norm is not None, conv, "must be followed by BN, or BatchNorm and Scale")
        form = (*self.graph.window(conv), self.graph.dilation(conv))
        wanted = (kernel, stride, kernel // 2 * dilation, dilation if kernel > 1 else form[3])
        self.check(form == wanted, conv, "must have kernel, stride, padding, dilation "
                                         f"{wanted}, has {form}")
        self.check_own(conv)
        self.check(bool(unit.relu) == relu, conv,
                    f"must be followed by BN and {'' if relu else 'no '}ReLU")
        self.check(not unit.relu or unit.relu.layer.relu_param.negative_slope == 0, unit.relu,
                    "negative_slope must be 0")
        self.check(not unit.dropout or dropout, unit.dropout, "has no place here")
        if scale is not None:
            param = scale.layer.scale_param
            self.check(param.axis == 1 and len(scale.params[0]) == 1, scale,
                        "must scale channels: axis 1, num_axes 1")
        self.units[module] = unit
        self.used.update(unit.nodes)

    def check_own(self, conv: Node) -> None:
        """A convolution of one input, without groups, whose weights are its own."""
        self.check(len(conv.inputs) == 1, conv, "must have one bottom")
        self.check(conv.layer.convolution_param.group == 1, conv, "group must be 1")
        shared = [spec.name for spec in conv.layer.param if spec.name]
        self.check(not shared, conv, f"must not share parameters, shares {shared}")
