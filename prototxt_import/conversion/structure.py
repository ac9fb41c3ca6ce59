"""Which PSPNet or ResNet a network is, read off its graph."""

from prototxt_import.conversion.backbone import read_backbone
from prototxt_import.conversion.graph import Graph
from prototxt_import.conversion.head import read_head
from prototxt_import.conversion.parts import Parts

# What a training net has beside the network itself.
_LOSSES = ("SoftmaxWithLoss", "Accuracy", "Silence")


def read_parts(graph: Graph, whole: bool = True) -> Parts:
    """The parts of a network, each found by what it reads and computes, never by its name.

    Args:
        whole: a PSPNet; otherwise its backbone, or any classification ResNet, whatever follows it.
    Raises:
        UserError: another network; a layer that does not fit is named.
    """
    classifiers = [node for node in graph.nodes if node.kind == "InnerProduct"]
    if whole and classifiers:
        graph.fail(classifiers[0], "has no place in a PSPNet; `pspnet convert --backbone` "
                   "makes a backbone of a classification network")
    parts = Parts(graph)
    middle, features = read_backbone(parts, whole)
    if whole:
        read_head(parts, middle, features)
    # Every node is used, or known to be no part of the network.
    after = {features}
    for node in graph.nodes:
        if not whole and after & set(node.inputs):
            after.add(node)
    for node in parts.left_out:
        label = bool(node.inputs) and all(
            source.kind == "Input" and source not in parts.used for source in node.inputs)
        known = (node.kind == "Input" or node in after or node.kind in _LOSSES
                 or (label and node.kind == "Interp"))
        parts.check(known, node, f"has no place in a {'PSPNet' if whole else 'ResNet'}")
    return parts
