"""The layers that a network can be made of."""

from collections.abc import Iterable

from prototxt_import.format.caffe_pb2 import LayerParameter
from prototxt_import.layers import (
    accuracy,
    attention,
    face,
    linear,
    loss,
    norm,
    normalize,
    pointwise,
    pool,
    reduction,
    segnet,
    shape,
    sigmoid_loss,
    volume,
)

# type -> function(layer, bottom shapes, whether in training) -> Built
LAYERS = {
    "AbsVal": pointwise.absval,
    "Accuracy": accuracy.accuracy,
    "AlignedCrop": shape.crop,
    "ArgMax": accuracy.argmax,
    "AutoCrop": shape.crop,
    "Axpy": attention.axpy,
    "AxpyFast": attention.axpy,
    "BN": norm.bn,
    "BNLL": pointwise.bnll,
    "BatchNorm": norm.batch_norm,
    "BatchToSpaceND": shape.batch_to_space,
    "Bias": norm.bias,
    "CenterLoss": face.center_loss,
    "Clip": pointwise.clip,
    "Concat": shape.concat,
    "ContrastiveLoss": loss.contrastive_loss,
    "Convolution": volume.convolution,
    "Convolution3D": volume.convolution3d,
    "ConvolutionDepthwise": linear.depthwise_convolution,
    "Crop": shape.crop,
    "CropCenter": shape.crop_center,
    "Deconvolution": volume.deconvolution,
    "DepthwiseConvolution": linear.depthwise_convolution,
    "Dropout": pointwise.dropout,
    "ELU": pointwise.elu,
    "Eltwise": pointwise.eltwise,
    "EuclideanLoss": loss.euclidean_loss,
    "Exp": pointwise.exp,
    "Flatten": shape.flatten,
    "HEDSigmoidCrossEntropyLoss": sigmoid_loss.hed_loss,
    "HardSigmoid": pointwise.hard_sigmoid,
    "HardSwish": pointwise.hard_swish,
    "HingeLoss": loss.hinge_loss,
    "InfogainLoss": loss.infogain_loss,
    "InnerProduct": linear.inner_product,
    "Interp": pool.interp,
    "L1Loss": loss.l1_loss,
    "LRN": normalize.lrn,
    "Log": pointwise.log,
    "MVN": normalize.mvn,
    "MarginInnerProduct": face.margin_inner_product,
    "Mish": pointwise.mish,
    "MultinomialLogisticLoss": loss.multinomial_logistic_loss,
    "NdConvolution": volume.convolution,
    "NdPooling": volume.pooling,
    "Normalize": normalize.normalize,
    "PReLU": pointwise.prelu,
    "Parameter": linear.parameter,
    "Permute": shape.permute,
    "PointwiseSpatialAttention": attention.pointwise_spatial_attention,
    "Pooling": volume.pooling,
    "Pooling3D": volume.pooling3d,
    "PoolingND": volume.pooling,
    "Power": pointwise.power,
    "Python": pointwise.spatial_dropout,
    "RCFSigmoidCrossEntropyLoss": sigmoid_loss.rcf_loss,
    "ReLU": pointwise.relu,
    "ReLU6": pointwise.relu6,
    "Reduction": reduction.reduction,
    "Reshape": shape.reshape,
    "ReshapeLike": shape.reshape_like,
    "ResizeBilinear": pool.resize_bilinear,
    "SPP": pool.spp,
    "Scale": norm.scale,
    "SeLu": pointwise.selu,
    "SeLuDropout": pointwise.selu_dropout,
    "SegAccuracy": accuracy.seg_accuracy,
    "ShuffleChannel": shape.shuffle_channel,
    "Sigmoid": pointwise.sigmoid,
    "SigmoidCrossEntropyLoss": sigmoid_loss.sigmoid_cross_entropy_loss,
    "Silence": shape.silence,
    "Slice": shape.slice,
    "SmoothL1Loss": loss.smooth_l1_loss,
    "Softmax": loss.softmax,
    "SoftmaxWithLoss": loss.softmax_with_loss,
    "SpaceToBatchND": shape.space_to_batch,
    "SpatialProduct": attention.spatial_product,
    "Split": shape.split,
    "Swish": pointwise.swish,
    "SyncBN": norm.sync_bn,
    "TanH": pointwise.tanh,
    "Threshold": pointwise.threshold,
    "Tile": shape.tile,
    "Tiling": shape.tiling,
    "Unpooling": segnet.unpooling,
    "Upsample": segnet.upsample,
}


# Their first top has loss weight 1 where a layer gives none.
_LOSSES = [kind for kind in LAYERS if kind.endswith("Loss")]


def loss_weights(layer: LayerParameter) -> list[float]:
    """A number for each of the first tops; later ones have none."""
    return list(layer.loss_weight) or [1.0 if layer.type in _LOSSES else 0.0]


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
