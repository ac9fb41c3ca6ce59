"""Stem and stages of a ResNet, read off a graph."""

import math

from prototxt_import.conversion.graph import Node, Unit
from prototxt_import.conversion.image_input import SHAPE
from prototxt_import.conversion.parts import Parts
from prototxt_import.format.caffe_pb2 import MAX, EltwiseParameter
from pspnet_repro.model.settings import EXPANSION

_STEMS = {((7, 2),): "classic", ((3, 2), (3, 1), (3, 1)): "deep", ((3, 2),): "mini"}


def read_backbone(parts: Parts, whole: bool) -> tuple[Node, Node]:
    """Read stem and stages into `parts`; returns the outputs of stage 4 and stage 5."""
    node = parts.image = _find_image(parts)
    parts.used.add(node)
    node = _read_normalization(parts, node)
    stem = []
    while len(node.users) == 1 and node.users[0].kind == "Convolution":
        stem.append(Unit(node.users[0]))
        node = stem[-1].end
    pool = parts.only([user for user in node.users if user.kind == "Pooling"], node,
                      "convolution, or by pool1")
    kernel, stride, padding = parts.graph.window(pool)
    parts.check(pool.layer.pooling_param.pool == MAX and (kernel, stride) == (3, 2)
                and padding in ((1,) if whole else (0, 1)), pool,
                f"must be MAX 3x3 stride 2 padding {'1' if whole else '0 or 1'}")
    forms = tuple(parts.graph.window(unit.conv)[:2] for unit in stem)
    kind = _STEMS.get(forms)
    first = stem[0].conv if stem else pool
    parts.check(kind is not None and (whole or kind != "mini"), first,
                "the layers before pool1 must be a 7x7 convolution of stride 2, or three 3x3 "
                "of strides 2, 1, 1")
    parts.used.add(pool)
    width = stem[0].channels
    parts.settings |= {"stem_width": width}
    if kind == "mini":
        return _read_mini(parts, stem[0], pool)
    parts.check([unit.channels for unit in stem] in ([width], [width, width, 2 * width]),
                stem[-1].conv, f"the stem must have {width}, {width}, {2 * width} channels")
    for k, unit in enumerate(stem):
        parts.add(f"backbone.stem.{k}", unit, *forms[k])
    parts.settings |= {"stem": kind} | ({} if whole else {"pool_padding": padding})
    return _read_stages(parts, pool)


def _find_image(parts):
    images = [node for node in parts.graph.nodes if node.kind == "Input"
              and any(user.kind == "Convolution" for user in node.users)]
    parts.check(len(images) == 1, parts.graph.nodes[0],
                f"one input must be read by convolutions, {len(images)} are")
    shape = images[0].shape
    parts.check(len(shape) == 4 and shape[1] == 3 and shape[2] == shape[3], images[0],
                f"must be of shape (N, 3, S, S), is {shape}")
    return images[0]


def _read_normalization(parts, image):
    """The node that the stem reads: the image, or the layer of image_input.py."""
    conv = image.users[0]
    if (len(image.users) != 1 or conv.kind != "Convolution"
            or [tuple(shape) for shape in conv.params] != [SHAPE, SHAPE[:1]]):
        return image
    parts.check(parts.graph.window(conv) == (1, 1, 0), conv, "must be 1x1 without padding")
    parts.check_own(conv)
    parts.normalization = conv
    parts.used.add(conv)
    return conv


def _read_mini(parts, conv1, pool):
    conv2 = Unit(parts.only([user for user in pool.users if user.kind == "Convolution"], pool,
                            "convolution"))
    inner = [user for user in conv2.end.users if user.kind == "Eltwise"]
    join = parts.only(inner, conv2.end, "Eltwise")
    branch = [node for node in join.inputs if node is not conv2.end]
    convs = [user for user in conv2.end.users if user.kind == "Convolution"
             and Unit(user).end in branch]
    conv3 = Unit(parts.only(convs, conv2.end, "convolution beside the shortcut"))
    parts.add("backbone.conv1", conv1, 3, 2)
    parts.add("backbone.conv2", conv2, 3, 2)
    parts.add("backbone.conv3", conv3, 3, 1, 2, relu=False)
    wanted = 2 * conv1.channels
    for unit in (conv2, conv3):
        parts.check(unit.channels == wanted, unit.conv, f"must have {wanted} channels, twice "
                                                        f"conv1's, has {unit.channels}")
    parts.settings["backbone"] = "mini"
    return conv2.end, _read_join(parts, join)


def _read_join(parts, join):
    """The output of a sum and its ReLU."""
    param = join.layer.eltwise_param
    parts.check(param.operation == EltwiseParameter.SUM and set(param.coeff) <= {1.0}
                and len(join.inputs) == 2, join, "must be the SUM of two")
    relu = parts.only(join.users, join, "ReLU")
    parts.check(relu.kind == "ReLU" and relu.layer.relu_param.negative_slope == 0, relu,
                "must be a ReLU without slope, after a sum")
    parts.used.update((join, relu))
    return relu


def _read_blocks(parts, pool):
    """Bottlenecks in order: (convolutions, projection or None, output)."""
    ends = parts.graph.units()

    def chain(node):
        units = []
        while node in ends and len(units) <= 3:
            units.insert(0, ends[node])
            node = units[0].source
        return units, node

    starts = {}
    for join in (node for node in parts.graph.nodes if node.kind == "Eltwise"):
        end = _read_join(parts, join)
        (short, start), (long, other) = sorted((chain(node) for node in join.inputs),
                                               key=lambda branch: len(branch[0]))
        parts.check(len(long) == 3 and len(short) <= 1 and start is other, join,
                    "must join three convolutions with their input, or with one convolution "
                    f"of it; it joins {len(long)} and {len(short)}")
        parts.check(start not in starts, join, f"begins at {start.name!r}, as another does")
        starts[start] = (long, short[0] if short else None, end)
    blocks, node = [], pool
    while node in starts:
        blocks.append(starts.pop(node))
        node = blocks[-1][2]
    parts.check(not starts, next(iter(starts), pool), "begins a bottleneck apart from the rest")
    parts.check(blocks, pool, "must begin a bottleneck")
    return blocks


def _read_stages(parts, pool):
    stages = []
    for block in _read_blocks(parts, pool):
        if block[1] is not None:
            stages.append([])
        parts.check(stages, block[0][0].conv, "the first bottleneck must have a projection")
        stages[-1].append(block)
    last = stages[-1][-1][2]
    parts.check(len(stages) == 4, last, "must end four stages, each begun by a bottleneck with "
                                        f"a projection; there are {len(stages)}")
    widths, strides, dilations, places, contracts = [], [], [], {}, set()
    for stage, blocks in enumerate(stages):
        reduce, spatial, _ = blocks[0][0]
        widths.append(reduce.channels)
        dilations.append(parts.graph.dilation(blocks[-1][0][1].conv))
        first = parts.graph.dilation(spatial.conv)
        if dilations[-1] > 1 and len(blocks) > 1:
            contracts.add(first == dilations[-1] // 2)
        pair = parts.graph.window(reduce.conv)[1], parts.graph.window(spatial.conv)[1]
        strides.append(math.prod(pair))
        parts.check(min(pair) == 1, spatial.conv, f"only one of two strides may be above 1, "
                                                  f"got {pair}")
        if max(pair) > 1:
            places["1x1" if pair[0] > 1 else "3x3"] = reduce
        for k, (units, project, _) in enumerate(blocks):
            _add_block(parts, f"backbone.stage{stage + 2}.{k}", units, project, widths[-1],
                       pair if k == 0 else (1, 1), first if k == 0 and True in contracts
                       else dilations[-1])
    parts.check(len(places) <= 1, reduce.conv,
                "the stages' strides must all be in the 1x1 or all in the 3x3 convolutions")
    parts.check(len(contracts) < 2, reduce.conv, "the first bottlenecks of all dilated stages must "
                                                 "have half of the stage's dilation, or none")
    parts.settings |= {"contract_dilation": True} if True in contracts else {}
    parts.settings |= {"blocks": tuple(map(len, stages)), "widths": tuple(widths),
                       "strides": tuple(strides), "dilations": tuple(dilations),
                       "stride_in": next(iter(places), "1x1")}
    return stages[2][-1][2], last


def _add_block(parts, module, units, project, width, strides, dilation):
    reduce, spatial, increase = units
    for unit, channels in ((reduce, width), (spatial, width), (increase, width * EXPANSION),
                           (project, width * EXPANSION)):
        parts.check(unit is None or unit.channels == channels, unit and unit.conv,
                    f"must have {channels} channels")
    parts.add(f"{module}.reduce", reduce, 1, strides[0])
    parts.add(f"{module}.spatial", spatial, 3, strides[1], dilation)
    parts.add(f"{module}.increase", increase, 1, relu=False)
    if project is not None:
        parts.add(f"{module}.project", project, 1, math.prod(strides), relu=False)
