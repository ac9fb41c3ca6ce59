"""A network as Caffe writes it into a caffemodel: with Split layers, and fields set by layers."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

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
    given = [_Blob(name, f"{name}_input_{k}_split") for k, name in enumerate(inputs)]
    blobs, reads, makes = {blob.name: blob for blob in given}, [], []
    for layer in layers:
        reads.append([blobs[name] for name in layer.bottom])
        for blob in reads[-1]:
            blob.uses += 1
        weights = [*layer.loss_weight, *[0.0] * len(layer.top)]
        makes.append([_Blob(name, f"{name}_{layer.name}_{k}_split", weight, uses=bool(weight))
                      for k, (name, weight) in enumerate(zip(layer.top, weights))])
        blobs |= {blob.name: blob for blob in makes[-1]}
    written = [blob.split_layer() for blob in given if blob.uses > 1]
    for layer, read, made in zip(layers, reads, makes):
        copy = caffe_pb2.LayerParameter()
        copy.CopyFrom(layer)
        for k, blob in enumerate(read):
            if blob.uses > 1:
                copy.bottom[k] = next(blob.copies)
        written.append(copy)
        for blob in made:
            if blob.uses > 1:
                if blob.weight:
                    copy.ClearField("loss_weight")
                written.append(blob.split_layer())
    return written


@dataclass
class _Blob:
    """A blob as one layer makes it, the name of its Split layer, and how often it is read."""

    name: str
    split: str
    weight: float = 0.0
    uses: int = 0

    def __post_init__(self):
        # The loss takes the first.
        self.copies = (f"{self.split}_{k}" for k in itertools.count(bool(self.weight)))

    def split_layer(self):
        return caffe_pb2.LayerParameter(
            name=self.split, type="Split", bottom=[self.name],
            top=[f"{self.split}_{k}" for k in range(self.uses)],
            loss_weight=[self.weight] + [0.0] * (self.uses - 1) if self.weight else [])


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
