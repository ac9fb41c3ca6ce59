"""The layers that a network can be made of."""

from collections.abc import Iterable

from prototxt_import.format.caffe_pb2 import LayerParameter
from prototxt_import.layers import linear, loss, norm, pointwise, pool, shape

# type -> function(layer, bottom shapes, whether in training) -> Built
LAYERS = {
    "Accuracy": loss.accuracy,
    "ArgMax": loss.argmax,
    "BN": norm.bn,
    "BatchNorm": norm.batch_norm,
    "Bias": norm.bias,
    "Concat": shape.concat,
    "Convolution": linear.convolution,
    "Deconvolution": linear.deconvolution,
    "Dropout": pointwise.dropout,
    "Eltwise": pointwise.eltwise,
    "Flatten": shape.flatten,
    "InnerProduct": linear.inner_product,
    "Interp": pool.interp,
    "PReLU": pointwise.prelu,
    "Pooling": pool.pooling,
    "Power": pointwise.power,
    "ReLU": pointwise.relu,
    "Reshape": shape.reshape,
    "SPP": pool.spp,
    "Scale": norm.scale,
    "Sigmoid": pointwise.sigmoid,
    "Silence": shape.silence,
    "Slice": shape.slice,
    "Softmax": loss.softmax,
    "SoftmaxWithLoss": loss.softmax_with_loss,
    "Split": shape.split,
    "SyncBN": norm.sync_bn,
    "TanH": pointwise.tanh,
}

# Loss weight of the first top where a layer gives none.
_DEFAULT_LOSS_WEIGHTS = {"SoftmaxWithLoss": 1.0}


def loss_weights(layer: LayerParameter) -> list[float]:
    """A number for each of the first tops; later ones have none."""
    return list(layer.loss_weight) or [_DEFAULT_LOSS_WEIGHTS.get(layer.type, 0.0)]


def count_uses(layers: Iterable[LayerParameter]) -> list[list[int]]:
    """For each layer, how often each of its tops is read before another layer overwrites it; a loss
    weight reads too."""
    uses, maker = [], {}
    for k, layer in enumerate(layers):
        for name in layer.bottom:
            if name in maker:
                step, top = maker[name]
                uses[step][top] += 1
        weights = loss_weights(layer)
        uses.append([int(top < len(weights) and weights[top] != 0)
                     for top in range(max(1, len(layer.top)))])
        maker |= {name: (k, top) for top, name in enumerate(layer.top)}
    return uses
