"""Pyramid, head and auxiliary branch of a PSPNet, read off a graph."""

import numpy as np

from prototxt_import.conversion.graph import Node, Unit
from prototxt_import.conversion.parts import Parts
from prototxt_import.format.caffe_pb2 import AVE, CAFFE, CUDNN, MAX

_POOLS = {AVE: "ave", MAX: "max"}


def shortest(value: float) -> float:
    """The shortest decimal of the same float32: 0.10000000149 -> 0.1."""
    return float(str(np.float32(value)))


def read_head(parts: Parts, middle: Node, features: Node) -> None:
    """Read pyramid, head and auxiliary branch into `parts`."""
    concats = [user for user in features.users if user.kind == "Concat"]
    start = features
    parts.settings |= {"bins": ()}
    if concats:
        start = parts.only(concats, features, "Concat")
        _read_pyramid(parts, features, start)
    convs = [user for user in start.users if user.kind == "Convolution"]
    head_width, dropout = _read_classifier(parts, "head",
                                           parts.only(convs, start, "convolution"))
    classes = parts.scores["head.score"].params[0][0]
    branch = [user for user in middle.users
              if user.kind == "Convolution" and user not in parts.used]
    aux_width = None
    if branch:
        aux_width, ratio = _read_classifier(
            parts, "auxiliary", parts.only(branch, middle, "convolution of an auxiliary branch"))
        score = parts.scores["auxiliary.score"]
        parts.check(score.params[0][0] == classes, score, f"must have {classes} outputs")
        parts.check(ratio == dropout, score, f"dropout before it must be {dropout}, as in the "
                                             f"head, is {ratio}")
    parts.settings |= {"classes": classes, "head_width": head_width, "aux": bool(branch),
                       "aux_width": aux_width, "dropout": dropout, **_bn(parts)}


def _read_pyramid(parts, features, concat):
    parts.check(concat.inputs[0] is features, concat, f"must begin with {features.name!r}")
    parts.check(concat.shape[2:] == features.shape[2:], concat, "must join channels: axis 1")
    ends = parts.graph.units()
    bins, kinds, units = [], set(), []
    side = features.shape[2]
    for interp in reversed(concat.inputs[1:]):
        parts.check(interp.kind == "Interp" and interp.shape[2:] == features.shape[2:], interp,
                    f"must be an Interp to {side}x{side} pixels")
        _check_interp(parts, interp)
        units.append(ends.get(interp.inputs[0]))
        pool = units[-1].source if units[-1] else interp.inputs[0]
        parts.check(pool.kind == "Pooling" and pool.inputs[0] is features, pool,
                    f"must be a Pooling of {features.name!r}")
        kernel, stride, padding = parts.graph.window(pool)
        parts.check(kernel == stride and padding == 0 and side % kernel == 0, pool,
                    f"must pool the {side} pixels of the map into equal bins: kernel and "
                    f"stride the same divisor of {side}, got {kernel} and {stride}")
        parts.check(pool.layer.pooling_param.pool in _POOLS, pool, "must be AVE or MAX")
        kinds.add(_POOLS[pool.layer.pooling_param.pool])
        bins.append(side // kernel)
        parts.used.update((interp, pool))
    parts.check(len(kinds) == 1, concat, "its levels must be alike: AVE or MAX")
    parts.check(all(units) or not any(units), concat,
                "its levels must be alike: all with a convolution or none")
    reduced = features.shape[1] // len(bins)
    for k, unit in enumerate(units):
        if unit is not None:
            parts.add(f"pyramid.reduce.{k}", unit, 1)
            parts.check(unit.channels == reduced, unit.conv, f"must have {reduced} channels")
    parts.used.add(concat)
    parts.settings |= {"bins": tuple(bins), "pool": kinds.pop(), "reduce": all(units)}


def _check_interp(parts, node):
    param = node.layer.interp_param
    parts.check(param.pad_beg == param.pad_end == 0, node, "padding must be 0")


def _read_classifier(parts, module, conv):
    """3x3 convolution, BN, ReLU, dropout, 1x1 convolution; returns (channels, dropout)."""
    unit = Unit(conv)
    parts.add(f"{module}.conv", unit, 3, dropout=True)
    score = parts.only(unit.end.users, unit.end, "score convolution")
    parts.check(score.kind == "Convolution" and parts.graph.window(score) == (1, 1, 0)
                and len(score.params) == 2, score, "must be a 1x1 convolution with bias")
    parts.check_own(score)
    parts.scores[f"{module}.score"] = score
    parts.used.add(score)
    size = parts.image.shape[2:]
    for user in score.users:
        if user.kind == "Interp":
            _check_interp(parts, user)
            parts.check(user.shape[2:] == size, user,
                        f"must give the input's {size[0]}x{size[1]} pixels, gives "
                        f"{user.shape[2]}x{user.shape[3]}")
            parts.used.add(user)
    ratio = unit.dropout.layer.dropout_param.dropout_ratio if unit.dropout else 0.0
    return unit.channels, shortest(ratio)


def _bn(parts):
    """How BN counts variances, in the layers that say it, see convert.convert, and its momentum, in
    those that are not frozen."""
    said, momentums = {}, {}
    for unit in parts.units.values():
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
            if unit.norm.kind == "SyncBN" or not param.frozen:
                momentums.setdefault(shortest(param.momentum), unit.norm)
    for words, kinds in (("counts variances otherwise than", said),
                         ("has another momentum than", momentums)):
        for node in list(kinds.values())[1:]:
            parts.graph.fail(node, f"{words} the layers before it ({', '.join(map(str, kinds))})")
    return {"variance": next(iter(said), "unbiased"),
            "bn_momentum": round(1 - next(iter(momentums), 0.95), 9)}
