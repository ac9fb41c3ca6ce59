"""A network as Caffe writes it into a caffemodel: with Split layers, and fields set by layers."""

from collections.abc import Iterable

from prototxt_import.format import caffe_pb2
from prototxt_import.layers.table import loss_weights
from prototxt_import.net import CaffeNet


def written_layers(net: CaffeNet) -> list[caffe_pb2.LayerParameter]:
    """The LayerParameters that Caffe's program would write for a CaffeNet.

    A blob that several layers read, the loss too, is copied for them by a Split layer behind its
    maker. Every layer has its phase; losses have their default weight, BN and BatchNorm the
    multipliers 0 of their statistics.
    """
    written = with_splits(net.declared_inputs, net.layers)
    for layer in written:
        _complete(layer, len(net.params.get(layer.name, ())))
        if not layer.HasField("phase"):
            layer.phase = caffe_pb2.TRAIN if net.training_phase else caffe_pb2.TEST
    return written


def with_splits(inputs: Iterable[str], layers: Iterable[caffe_pb2.LayerParameter]
                ) -> list[caffe_pb2.LayerParameter]:
    """Copies of layers, with the Split layers that Caffe puts where several read a blob.

    Args:
        inputs: names of the net's inputs that are no layer's.
        layers: each reads inputs and tops of those before it.
    """
    maker = {name: ("input", k) for k, name in enumerate(inputs)}
    sources, uses, weights = [], {}, {}
    names = {"input": "input"}
    for at, layer in enumerate(layers):
        names[at] = layer.name
        sources.append([maker[name] for name in layer.bottom])
        for source in sources[-1]:
            uses[source] = uses.get(source, 0) + 1
        maker |= {name: (at, k) for k, name in enumerate(layer.top)}
        for k, weight in enumerate(layer.loss_weight[:len(layer.top)]):
            if weight:
                weights[at, k] = weight
                uses[at, k] = uses.get((at, k), 0) + 1
    # Copies of each blob that are taken; the loss takes the first.
    taken = dict.fromkeys(weights, 1)
    written = [_split(names, ("input", k), blob, uses[("input", k)], 0.0)
               for k, blob in enumerate(inputs) if uses.get(("input", k), 0) > 1]
    for at, layer in enumerate(layers):
        copy = caffe_pb2.LayerParameter()
        copy.CopyFrom(layer)
        for k, source in enumerate(sources[at]):
            if uses[source] > 1:
                number = taken.get(source, 0)
                taken[source] = number + 1
                copy.bottom[k] = f"{_split_name(names, source, layer.bottom[k])}_{number}"
        written.append(copy)
        for k, blob in enumerate(layer.top):
            if uses.get((at, k), 0) > 1:
                weight = weights.get((at, k), 0.0)
                if weight:
                    copy.ClearField("loss_weight")
                written.append(_split(names, (at, k), blob, uses[at, k], weight))
    return written


def _split_name(names, source, blob):
    maker, top = source
    return f"{blob}_{names[maker]}_{top}_split"


def _split(names, source, blob, count, weight):
    name = _split_name(names, source, blob)
    return caffe_pb2.LayerParameter(
        name=name, type="Split", bottom=[blob], top=[f"{name}_{k}" for k in range(count)],
        loss_weight=[weight] + [0.0] * (count - 1) if weight else [])


def _complete(layer, blobs):
    """Set the fields that Caffe's layers set in themselves."""
    if not layer.loss_weight and any(loss_weights(layer)):
        layer.loss_weight.extend(loss_weights(layer))
    statistics = {"BN": (2, 3), "BatchNorm": (0, 1, 2)}.get(layer.type, ())
    for k in statistics if blobs > max(statistics, default=0) else ():  # caffe-segnet's has none
        while len(layer.param) <= k:
            layer.param.add()
        layer.param[k].lr_mult = 0
        if layer.type == "BN":
            layer.param[k].decay_mult = 0
