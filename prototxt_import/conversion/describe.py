"""Our networks as the original's messages, layer for layer."""

from collections.abc import Mapping

from prototxt_import.conversion import image_input
from prototxt_import.conversion.miniature import MiniPSPNet
from prototxt_import.format import caffe_pb2
from prototxt_import.layers.base import MAX_BLOB
from pspnet_repro.data.conventions import IGNORE_INDEX
from pspnet_repro.errors import UserError
from pspnet_repro.model.caffe_names import caffe_names
from pspnet_repro.model.pspnet import PSPNet
from pspnet_repro.model.settings import BLOCKS
from pspnet_repro.ops import checks
from pspnet_repro.training.solver import parameter_groups

_FIXED = {"lr_mult": 0, "decay_mult": 0}  # rates of parameters that never learn
_POOLS = {"ave": caffe_pb2.AVE, "max": caffe_pb2.MAX}
# Which engine counts variances so, where the layer's type does not say it; see convert.convert.
_ENGINES = {"biased": caffe_pb2.CAFFE, "torch": caffe_pb2.CUDNN}


def describe(model: PSPNet, crop_size: int,
             training: Mapping[str, object] | None = None) -> caffe_pb2.NetParameter:
    """The NetParameter of a PSPNet.

    Args:
        crop_size: pixels a side of the input.
        training: None for a deploy net, whose BN is frozen; TrainSettings values ("batch_size",
            "guidance", "aux_weight") for a training net with the auxiliary branch and losses.
    Raises:
        UserError: a crop that the network or equal bins do not allow.
    """
    return _Description(model, crop_size, training).net


class _Description:
    def __init__(self, model: PSPNet, crop_size: int,
                 training: Mapping[str, object] | None) -> None:
        self.model, self.crop_size, self.training = model, crop_size, training
        self.map_size = map_size(model, crop_size)
        self.names = caffe_names(model)
        self.rates = {id(parameter): {name: group[name] for name in _FIXED}
                      for group in parameter_groups(model) for parameter in group["params"]}
        self.net = caffe_pb2.NetParameter(input=["data"])
        self._inputs()
        middle, features = (self._mini() if isinstance(model, MiniPSPNet)
                            else self._resnet(model.backbone))
        start = self._pyramid(features) if model.pyramid.bins else features
        score = self._classifier("head", start)
        if training is None:
            self._interp(f"{score}_interp", score, zoom_factor=model.stride)
        else:
            aux = None if model.auxiliary is None else self._classifier("auxiliary", middle)
            self._losses(score, aux)

    def _add(self, name, kind, bottoms, top=None, **fields):
        return self.net.layer.add(name=name, type=kind, bottom=bottoms, top=[top or name], **fields)

    def _inputs(self):
        size = self.crop_size
        if self.training is None:
            self.net.input_dim.extend((1, 3, size, size))
            return
        self.net.name = "pspnet"
        self.net.input.append("label")
        for channels in (3, 1):
            self.net.input_shape.add(dim=(self.training["batch_size"], channels, size, size))

    def _rates(self, *parameters):
        return [self.rates[id(parameter)] for parameter in parameters]

    def _convolution(self, path, bottom):
        conv, name = self.model.get_submodule(path), self.names[path]
        param = {"num_output": conv.out_channels, "kernel_size": conv.kernel_size[:1],
                 "stride": conv.stride[:1], "weight_filler": {"type": "msra"}}
        # The released files spell out pad 0 in the backbone only.
        if conv.padding[0] or path.startswith("backbone."):
            param["pad"] = conv.padding[:1]
        if conv.dilation[0] > 1 and conv.kernel_size[0] > 1:
            param["dilation"] = conv.dilation[:1]
        if conv.bias is None:
            param["bias_term"] = False
        self._add(name, "Convolution", [bottom], convolution_param=param,
                  param=self._rates(*conv.parameters()))
        return name

    def _unit(self, path, bottom):
        """A ConvBN; returns its top."""
        unit = self.model.get_submodule(path)
        top = self._convolution(f"{path}.conv", bottom)
        variance = unit.bn.variance
        frozen = self.training is None
        kind = "SyncBN" if variance == "unbiased" and not frozen else "BN"
        filler = {"type": "constant"}
        param = {"slope_filler": {**filler, "value": 1}, "bias_filler": {**filler, "value": 0},
                 "frozen": frozen, "momentum": 0.95 if frozen else round(1 - unit.bn.momentum, 9)}
        if variance in _ENGINES and (frozen or variance != "biased"):
            param["engine"] = _ENGINES[variance]
        layer = self._add(self.names[f"{path}.bn"], kind, [top], top, bn_param=param,
                          param=[*self._rates(unit.bn.weight, unit.bn.bias), _FIXED, _FIXED])
        if top == "conv5_4" and (self.model.settings.get("blocks") == BLOCKS[50]
                                 and self.model.settings.stem == "deep"):
            # A slip of the released file without effect: the mean's rate is 0.
            layer.param[2].decay_mult = 1
        if unit.relu:
            self._relu(top)
        return top

    def _relu(self, top):
        self._add(f"{top}/relu", "ReLU", [top], top)

    def _pool1(self, name, bottom):
        self._add(name, "Pooling", [bottom], pooling_param={
            "pool": caffe_pb2.MAX, "kernel_size": 3, "stride": 2, "pad": 1})
        return name

    def _sum(self, name, *bottoms):
        self._add(name, "Eltwise", bottoms,
                  eltwise_param={"operation": caffe_pb2.EltwiseParameter.SUM})
        self._relu(name)
        return name

    def _interp(self, name, bottom, **fields):
        self._add(name, "Interp", [bottom], interp_param=fields)
        return name

    def _image(self):
        """What the stem reads."""
        if image_input.is_caffes(self.model.settings):
            return "data"
        self._add(image_input.LAYER, "Convolution", ["data"],
                  param=[_FIXED, _FIXED], convolution_param={"num_output": 3, "kernel_size": [1]})
        return image_input.LAYER

    def _mini(self):
        conv2 = self._unit("backbone.conv2",
                           self._pool1("pool1", self._unit("backbone.conv1", self._image())))
        return conv2, self._sum("res", conv2, self._unit("backbone.conv3", conv2))

    def _resnet(self, backbone):
        top = self._image()
        for k in range(len(backbone.stem)):
            top = self._unit(f"backbone.stem.{k}", top)
        top = self._pool1("pool1_3x3_s2", top)
        ends = []
        for stage in (2, 3, 4, 5):
            for k, block in enumerate(getattr(backbone, f"stage{stage}")):
                path, bottom = f"backbone.stage{stage}.{k}", top
                for part in ("reduce", "spatial", "increase"):
                    top = self._unit(f"{path}.{part}", top)
                if block.project is not None:
                    bottom = self._unit(f"{path}.project", bottom)
                top = self._sum(f"conv{stage}_{k + 1}", bottom, top)
            ends.append(top)
        return ends[2:]

    def _pyramid(self, features):
        pyramid, prefix = self.model.pyramid, self.model.backbone.caffe_names().pyramid
        tops = []
        for k, bins in enumerate(pyramid.bins):
            level = f"{prefix}pool{bins}"
            top = level if prefix else f"pool_{bins}"
            side = self.map_size // bins
            self._add(top, "Pooling", [features], pooling_param={
                "pool": _POOLS[pyramid.pool], "kernel_size": side, "stride": side})
            if pyramid.reduce is not None:
                top = self._unit(f"pyramid.reduce.{k}", top)
            tops.append(self._interp(f"{level}_interp", top, height=self.map_size,
                                     width=self.map_size))
        name = f"{prefix}concat"
        self._add(name, "Concat", [features, *reversed(tops)])
        return name

    def _classifier(self, path, bottom):
        top = self._unit(f"{path}.conv", bottom)
        ratio = self.model.get_submodule(path).dropout.p
        if ratio:
            self._add(f"{top}/dropout", "Dropout", [top], top,
                      dropout_param={"dropout_ratio": ratio})
        return self._convolution(f"{path}.score", top)

    def _losses(self, score, aux):
        scores = {"loss": score} | ({} if aux is None else {"loss_aux": aux})
        label = "label"
        if self.training["guidance"] == "eighth":
            label = self._interp("label_shrink", label, shrink_factor=self.model.stride)
        else:
            scores = {loss: self._interp(f"{top}_interp", top, zoom_factor=self.model.stride)
                      for loss, top in scores.items()}
        for loss, top in scores.items():
            self._add(loss, "SoftmaxWithLoss", [top, label],
                      loss_param={"ignore_label": IGNORE_INDEX},
                      loss_weight=[self.training["aux_weight"]] * (loss == "loss_aux"))


def map_size(model: PSPNet, crop_size: int) -> int:
    """Pixels a side of the feature map, which every bin divides."""
    if not model.align_corners:
        raise UserError("the network upsamples with half-pixel centres (align_corners false), and "
                        "Caffe's Interp has corner pixels on corner pixels: it cannot be exported "
                        "to Caffe's files")
    try:
        checks.crop((crop_size,), model.stride, model.pyramid.bins)
    except ValueError as error:
        raise UserError(str(error)) from error
    if max(3, model.classes) * crop_size ** 2 > MAX_BLOB:
        raise UserError(f"crop_size {crop_size} gives an input or scores of more than {MAX_BLOB} "
                        "elements: the original has no such blob")
    size = (crop_size - 1) // model.stride + 1
    for bins in model.pyramid.bins:
        if size % bins:
            raise UserError(f"crop_size {crop_size} gives a map of {size} pixels, which {bins} "
                            "bins do not divide: the original has no such net")
    return size
