"""Which PSPNet or ResNet a network is, read off its graph."""

import math

import numpy as np

from pspnet_repro.resnet import EXPANSION
from prototxt_import.caffe_pb2 import AVE, CAFFE, CUDNN, MAX, EltwiseParameter
from prototxt_import.graph import Unit

_STEMS = {((7, 2),): "classic", ((3, 2), (3, 1), (3, 1)): "deep", ((3, 2),): "mini"}
_POOLS = {AVE: "ave", MAX: "max"}
# What a training net has beside the network itself.
_LOSSES = ("SoftmaxWithLoss", "Accuracy", "Silence")


def shortest(value):
    """The shortest decimal of the same float32: 0.10000000149 -> 0.1."""
    return float(str(np.float32(value)))


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
        self.settings, self.units, self.scores, self._used = {}, {}, {}, set()
        self._dropouts = []
        self.image = self._find_image()
        middle, features = self._read_backbone(whole)
        if whole:
            self._read_head(middle, features)
        self._account(features, whole)

    def _check(self, condition, node, rule):
        self.graph.check(condition, node, rule)

    def _only(self, nodes, node, what):
        self._check(len(nodes) == 1, node, f"must be read by one {what}, is read by {len(nodes)}")
        return nodes[0]

    def _add(self, module, unit, kernel, stride=1, dilation=1, relu=True, dropout=False):
        """Give a unit its place, after checking what it computes."""
        conv, norm, scale = unit.conv, unit.norm, unit.scale
        self._check(norm is not None, conv, "must be followed by BN, or BatchNorm and Scale")
        form = (*self.graph.window(conv), self.graph.dilation(conv))
        wanted = (kernel, stride, kernel // 2 * dilation, dilation if kernel > 1 else form[3])
        self._check(form == wanted, conv, "must have kernel, stride, padding, dilation "
                                          f"{wanted}, has {form}")
        self._check(conv.layer.convolution_param.group == 1, conv, "group must be 1")
        self._check(bool(unit.relu) == relu, conv,
                    f"must be followed by BN and {'' if relu else 'no '}ReLU")
        self._check(not unit.relu or unit.relu.layer.relu_param.negative_slope == 0, unit.relu,
                    "negative_slope must be 0")
        self._check(not unit.dropout or dropout, unit.dropout, "has no place here")
        if scale is not None:
            param = scale.layer.scale_param
            self._check(param.axis == 1 and len(scale.params[0]) == 1, scale,
                        "must scale channels: axis 1, num_axes 1")
        self.units[module] = unit
        self._used.update(unit.nodes)

    def _read_backbone(self, whole):
        node = self.image
        self._used.add(node)
        stem = []
        while len(node.users) == 1 and node.users[0].kind == "Convolution":
            stem.append(Unit(node.users[0]))
            node = stem[-1].end
        pool = self._only([user for user in node.users if user.kind == "Pooling"], node,
                          "convolution, or by pool1")
        kernel, stride, padding = self.graph.window(pool)
        self._check(pool.layer.pooling_param.pool == MAX and (kernel, stride) == (3, 2)
                    and padding in ((1,) if whole else (0, 1)), pool,
                    f"must be MAX 3x3 stride 2 padding {'1' if whole else '0 or 1'}")
        forms = tuple(self.graph.window(unit.conv)[:2] for unit in stem)
        kind = _STEMS.get(forms)
        first = stem[0].conv if stem else pool
        self._check(kind is not None and (whole or kind != "mini"), first,
                    "the layers before pool1 must be a 7x7 convolution of stride 2, or three 3x3 "
                    "of strides 2, 1, 1")
        self._used.add(pool)
        width = stem[0].channels
        self.settings |= {"stem_width": width}
        if kind == "mini":
            return self._read_mini(stem[0], pool)
        self._check([unit.channels for unit in stem] in ([width], [width, width, 2 * width]),
                    stem[-1].conv, f"the stem must have {width}, {width}, {2 * width} channels")
        for k, unit in enumerate(stem):
            self._add(f"backbone.stem.{k}", unit, *forms[k])
        self.settings |= {"stem": kind} | ({} if whole else {"pool_padding": padding})
        return self._read_stages(pool)

    def _find_image(self):
        images = [node for node in self.graph.nodes if node.kind == "Input"
                  and any(user.kind == "Convolution" for user in node.users)]
        self._check(len(images) == 1, self.graph.nodes[0],
                    f"one input must be read by convolutions, {len(images)} are")
        shape = images[0].shape
        self._check(len(shape) == 4 and shape[1] == 3 and shape[2] == shape[3], images[0],
                    f"must be of shape (N, 3, S, S), is {shape}")
        return images[0]

    def _read_mini(self, conv1, pool):
        conv2 = Unit(self._only([user for user in pool.users if user.kind == "Convolution"], pool,
                                "convolution"))
        inner = [user for user in conv2.end.users if user.kind == "Eltwise"]
        join = self._only(inner, conv2.end, "Eltwise")
        branch = [node for node in join.inputs if node is not conv2.end]
        convs = [user for user in conv2.end.users if user.kind == "Convolution"
                 and Unit(user).end in branch]
        conv3 = Unit(self._only(convs, conv2.end, "convolution beside the shortcut"))
        self._add("backbone.conv1", conv1, 3, 2)
        self._add("backbone.conv2", conv2, 3, 2)
        self._add("backbone.conv3", conv3, 3, 1, 2, relu=False)
        wanted = 2 * conv1.channels
        for unit in (conv2, conv3):
            self._check(unit.channels == wanted, unit.conv, f"must have {wanted} channels, twice "
                                                            f"conv1's, has {unit.channels}")
        self.settings["backbone"] = "mini"
        return conv2.end, self._read_join(join)

    def _read_join(self, join):
        """The output of a sum and its ReLU."""
        param = join.layer.eltwise_param
        self._check(param.operation == EltwiseParameter.SUM and set(param.coeff) <= {1.0}
                    and len(join.inputs) == 2, join, "must be the SUM of two")
        relu = self._only(join.users, join, "ReLU")
        self._check(relu.kind == "ReLU" and relu.layer.relu_param.negative_slope == 0, relu,
                    "must be a ReLU without slope, after a sum")
        self._used.update((join, relu))
        return relu

    def _read_blocks(self, pool):
        """Bottlenecks in order: (convolutions, projection or None, output)."""
        ends = {unit.end: unit for unit in map(Unit, (
            node for node in self.graph.nodes if node.kind == "Convolution"))}

        def chain(node):
            units = []
            while node in ends:
                units.insert(0, ends[node])
                node = units[0].source
            return units, node

        starts = {}
        for join in (node for node in self.graph.nodes if node.kind == "Eltwise"):
            end = self._read_join(join)
            (short, start), (long, other) = sorted((chain(node) for node in join.inputs),
                                                   key=lambda branch: len(branch[0]))
            self._check(len(long) == 3 and len(short) <= 1 and start is other, join,
                        "must join three convolutions with their input, or with one convolution "
                        f"of it; it joins {len(long)} and {len(short)}")
            self._check(start not in starts, join, f"begins at {start.name!r}, as another does")
            starts[start] = (long, short[0] if short else None, end)
        blocks, node = [], pool
        while node in starts:
            blocks.append(starts.pop(node))
            node = blocks[-1][2]
        self._check(not starts, next(iter(starts), pool), "begins a bottleneck apart from the rest")
        self._check(blocks, pool, "must begin a bottleneck")
        return blocks

    def _read_stages(self, pool):
        stages = []
        for block in self._read_blocks(pool):
            if block[1] is not None:
                stages.append([])
            self._check(stages, block[0][0].conv, "the first bottleneck must have a projection")
            stages[-1].append(block)
        last = stages[-1][-1][2]
        self._check(len(stages) == 4, last, "must end four stages, each begun by a bottleneck with "
                                            f"a projection; there are {len(stages)}")
        widths, strides, dilations, places = [], [], [], {}
        for stage, blocks in enumerate(stages):
            reduce, spatial, _ = blocks[0][0]
            widths.append(reduce.channels)
            dilations.append(self.graph.dilation(spatial.conv))
            pair = self.graph.window(reduce.conv)[1], self.graph.window(spatial.conv)[1]
            strides.append(math.prod(pair))
            self._check(min(pair) == 1, spatial.conv, f"only one of two strides may be above 1, "
                                                      f"got {pair}")
            if max(pair) > 1:
                places["1x1" if pair[0] > 1 else "3x3"] = reduce
            for k, (units, project, _) in enumerate(blocks):
                self._add_block(f"backbone.stage{stage + 2}.{k}", units, project, widths[-1],
                                pair if k == 0 else (1, 1), dilations[-1])
        self._check(len(places) <= 1, reduce.conv,
                    "the stages' strides must all be in the 1x1 or all in the 3x3 convolutions")
        self.settings |= {"blocks": tuple(map(len, stages)), "widths": tuple(widths),
                          "strides": tuple(strides), "dilations": tuple(dilations),
                          "stride_in": next(iter(places), "1x1")}
        return stages[2][-1][2], last

    def _add_block(self, module, units, project, width, strides, dilation):
        reduce, spatial, increase = units
        for unit, channels in ((reduce, width), (spatial, width), (increase, width * EXPANSION),
                               (project, width * EXPANSION)):
            self._check(unit is None or unit.channels == channels, unit and unit.conv,
                        f"must have {channels} channels")
        self._add(f"{module}.reduce", reduce, 1, strides[0])
        self._add(f"{module}.spatial", spatial, 3, strides[1], dilation)
        self._add(f"{module}.increase", increase, 1, relu=False)
        if project is not None:
            self._add(f"{module}.project", project, 1, math.prod(strides), relu=False)

    def _read_head(self, middle, features):
        concats = [user for user in features.users if user.kind == "Concat"]
        start = features
        self.settings |= {"bins": ()}
        if concats:
            start = self._only(concats, features, "Concat")
            self._read_pyramid(features, start)
        convs = [user for user in start.users if user.kind == "Convolution"]
        head = self._read_classifier("head", self._only(convs, start, "convolution"))
        classes = self.scores["head.score"].params[0][0]
        branch = [user for user in middle.users
                  if user.kind == "Convolution" and user not in self._used]
        aux_width = None
        if branch:
            aux_width = self._read_classifier(
                "auxiliary", self._only(branch, middle, "convolution of an auxiliary branch"))
            score = self.scores["auxiliary.score"]
            self._check(score.params[0][0] == classes, score, f"must have {classes} outputs")
        self._check(len(set(self._dropouts)) == 1, self.scores["head.score"],
                    f"dropout must be alike in both branches, is {self._dropouts}")
        self.settings |= {"classes": classes, "head_width": head, "aux": bool(branch),
                          "aux_width": aux_width, "dropout": self._dropouts[0],
                          "variance": self._variance()}

    def _read_pyramid(self, features, concat):
        self._check(concat.inputs[0] is features, concat, f"must begin with {features.name!r}")
        self._check(concat.layer.concat_param.axis in (1, -3), concat, "axis must be 1")
        ends = {unit.end: unit for unit in map(Unit, (
            node for node in self.graph.nodes if node.kind == "Convolution"))}
        bins, kinds, units = [], set(), []
        side = features.shape[2]
        for interp in reversed(concat.inputs[1:]):
            self._check(interp.kind == "Interp" and interp.shape[2:] == features.shape[2:], interp,
                        f"must be an Interp to {side}x{side} pixels")
            self._check_interp(interp)
            units.append(ends.get(interp.inputs[0]))
            pool = units[-1].source if units[-1] else interp.inputs[0]
            self._check(pool.kind == "Pooling" and pool.inputs[0] is features, pool,
                        f"must be a Pooling of {features.name!r}")
            kernel, stride, padding = self.graph.window(pool)
            self._check(kernel == stride and padding == 0 and side % kernel == 0, pool,
                        f"must pool the {side} pixels of the map into equal bins: kernel and "
                        f"stride the same divisor of {side}, got {kernel} and {stride}")
            self._check(pool.layer.pooling_param.pool in _POOLS, pool, "must be AVE or MAX")
            kinds.add(_POOLS[pool.layer.pooling_param.pool])
            bins.append(side // kernel)
            self._used.update((interp, pool))
        self._check(len(kinds) == 1, concat, "its levels must be alike: AVE or MAX")
        self._check(all(units) or not any(units), concat,
                    "its levels must be alike: all with a convolution or none")
        reduced = features.shape[1] // len(bins)
        for k, unit in enumerate(units):
            if unit is not None:
                self._add(f"pyramid.reduce.{k}", unit, 1)
                self._check(unit.channels == reduced, unit.conv, f"must have {reduced} channels")
        self._used.add(concat)
        self.settings |= {"bins": tuple(bins), "pool": kinds.pop(), "reduce": all(units)}

    def _check_interp(self, node):
        param = node.layer.interp_param
        self._check(param.pad_beg == param.pad_end == 0, node, "padding must be 0")

    def _read_classifier(self, module, conv):
        """3x3 convolution, BN, ReLU, dropout, 1x1 convolution; returns the former's channels."""
        unit = Unit(conv)
        self._add(f"{module}.conv", unit, 3, dropout=True)
        score = self._only(unit.end.users, unit.end, "score convolution")
        self._check(score.kind == "Convolution" and self.graph.window(score) == (1, 1, 0)
                    and len(score.params) == 2 and score.layer.convolution_param.group == 1, score,
                    "must be a 1x1 convolution with bias")
        self.scores[f"{module}.score"] = score
        self._used.add(score)
        ratio = unit.dropout.layer.dropout_param.dropout_ratio if unit.dropout else 0.0
        self._dropouts.append(shortest(ratio))
        size = self.image.shape[2:]
        for user in score.users:
            if user.kind == "Interp":
                self._check_interp(user)
                self._check(user.shape[2:] == size, user,
                            f"must give the input's {size[0]}x{size[1]} pixels, gives "
                            f"{user.shape[2]}x{user.shape[3]}")
                self._used.add(user)
        return unit.channels

    def _variance(self):
        """How BN counts variances, in the layers that say it; see convert.convert."""
        said = {}
        for unit in self.units.values():
            param = unit.norm.layer.bn_param
            kind = None
            if unit.norm.kind == "SyncBN":
                kind = "unbiased"
            elif unit.norm.kind == "BN" and param.engine == CUDNN:
                kind = "torch"
            elif unit.norm.kind == "BN" and (param.engine == CAFFE or not param.frozen):
                kind = "biased"
            if kind:
                said.setdefault(kind, unit.norm)
                self._check(param.frozen or shortest(param.momentum) == 0.95, unit.norm,
                            f"momentum must be 0.95, is {shortest(param.momentum)}")
        for node in list(said.values())[1:]:
            self.graph.fail(node, "counts variances otherwise than the layers before it "
                                  f"({', '.join(said)})")
        return next(iter(said), "unbiased")

    def _account(self, features, whole):
        """Every node is used, or known to be no part of the network."""
        after = {features}
        for node in self.graph.nodes:
            if not whole and after & set(node.inputs):
                after.add(node)
        self.left_out = [node for node in self.graph.nodes if node not in self._used]
        for node in self.left_out:
            label = bool(node.inputs) and all(
                source.kind == "Input" and source not in self._used for source in node.inputs)
            known = (node.kind == "Input" or node in after or node.kind in _LOSSES
                     or (label and node.kind == "Interp"))
            self._check(known, node, f"has no place in a {'PSPNet' if whole else 'ResNet'}")
