"""Which PSPNet or ResNet a network is, read off its graph."""

from prototxt_import.conversion.backbone import read_backbone
from prototxt_import.conversion.head import read_head

# What a training net has beside the network itself.
_LOSSES = ("SoftmaxWithLoss", "Accuracy", "Silence")


class Structure:
    """The parts of a network, each found by what it reads and computes, never by its name.

    Args:
        graph: a Graph.
        whole: a PSPNet; otherwise its backbone, or any classification ResNet, whatever follows it.
    Attributes:
        image: the node of the network's input.
        settings: keyword arguments of PSPNet, or of ResNet where not `whole`.
        units: {module path: Unit} of every ConvBN.
        scores: {module path: Node} of every score convolution.
        left_out: nodes that are no part of the network (losses, or the classifier).
    Raises:
        UserError: another network; a layer that does not fit is named.
    """

    def __init__(self, graph, whole=True):
        self.graph = graph
        self.image, self.settings, self.units, self.scores = None, {}, {}, {}
        self.used = set()
        classifiers = [node for node in graph.nodes if node.kind == "InnerProduct"]
        if whole and classifiers:
            graph.fail(classifiers[0], "has no place in a PSPNet; `pspnet convert --backbone` "
                       "makes a backbone of a classification network")
        middle, features = read_backbone(self, whole)
        if whole:
            read_head(self, middle, features)
        self._account(features, whole)

    def check(self, condition, node, rule):
        """Raise the UserError of a node that breaks a rule."""
        self.graph.check(condition, node, rule)

    def only(self, nodes, node, what):
        """The one node that reads `node`."""
        self.check(len(nodes) == 1, node, f"must be read by one {what}, is read by {len(nodes)}")
        return nodes[0]

    def add(self, module, unit, kernel, stride=1, dilation=1, relu=True, dropout=False):
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

    def check_own(self, conv):
        """A convolution of one input, without groups, whose weights are its own."""
        self.check(len(conv.inputs) == 1, conv, "must have one bottom")
        self.check(conv.layer.convolution_param.group == 1, conv, "group must be 1")
        shared = [spec.name for spec in conv.layer.param if spec.name]
        self.check(not shared, conv, f"must not share parameters, shares {shared}")

    def _account(self, features, whole):
        """Every node is used, or known to be no part of the network."""
        after = {features}
        for node in self.graph.nodes:
            if not whole and after & set(node.inputs):
                after.add(node)
        self.left_out = [node for node in self.graph.nodes if node not in self.used]
        for node in self.left_out:
            label = bool(node.inputs) and all(
                source.kind == "Input" and source not in self.used for source in node.inputs)
            known = (node.kind == "Input" or node in after or node.kind in _LOSSES
                     or (label and node.kind == "Interp"))
            self.check(known, node, f"has no place in a {'PSPNet' if whole else 'ResNet'}")
