"""The layers that a network can be made of."""

from prototxt_import import (
    layers_linear,
    layers_loss,
    layers_norm,
    layers_pointwise,
    layers_pool,
    layers_shape,
)

# type -> function(layer, bottom shapes, whether in training) -> Built
LAYERS = {
    "Accuracy": layers_loss.accuracy,
    "ArgMax": layers_loss.argmax,
    "BN": layers_norm.bn,
    "BatchNorm": layers_norm.batch_norm,
    "Bias": layers_norm.bias,
    "Concat": layers_shape.concat,
    "Convolution": layers_linear.convolution,
    "Deconvolution": layers_linear.deconvolution,
    "Dropout": layers_pointwise.dropout,
    "Eltwise": layers_pointwise.eltwise,
    "Flatten": layers_shape.flatten,
    "InnerProduct": layers_linear.inner_product,
    "Interp": layers_pool.interp,
    "PReLU": layers_pointwise.prelu,
    "Pooling": layers_pool.pooling,
    "Power": layers_pointwise.power,
    "ReLU": layers_pointwise.relu,
    "Reshape": layers_shape.reshape,
    "SPP": layers_pool.spp,
    "Scale": layers_norm.scale,
    "Sigmoid": layers_pointwise.sigmoid,
    "Silence": layers_shape.silence,
    "Slice": layers_shape.slice,
    "Softmax": layers_loss.softmax,
    "SoftmaxWithLoss": layers_loss.softmax_with_loss,
    "Split": layers_shape.split,
    "SyncBN": layers_norm.sync_bn,
    "TanH": layers_pointwise.tanh,
}

# Loss weight of the first top where a layer gives none.
_DEFAULT_LOSS_WEIGHTS = {"SoftmaxWithLoss": 1.0}


def loss_weights(layer):
    """A number for each of the first tops; later ones have none."""
    return list(layer.loss_weight) or [_DEFAULT_LOSS_WEIGHTS.get(layer.type, 0.0)]


def count_uses(layers):
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
