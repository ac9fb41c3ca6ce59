"""A network's prototxt for training, made to fit the data and the crops of a profile."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from prototxt_import.ends import check_supported
from prototxt_import.format import caffe_pb2
from prototxt_import.format.prototxt import read_net
from prototxt_import.inputs import is_input, layer_inputs, old_inputs
from prototxt_import.layers.segnet import has_own_statistics
from prototxt_import.layers.table import LAYERS, loss_weights
from prototxt_import.net import CaffeNet
from pspnet_repro.data.conventions import IGNORE_INDEX
from pspnet_repro.errors import UserError

HERE = Path(__file__).parent
NAMES = ("fcn-8s", "segnet", "dilatednet")  # rows of Table 4


def system_files(name: str, kind: str) -> tuple[Path, Path]:
    """(train.prototxt, solver.prototxt) of a system of ours; kind: "published" or "mini"."""
    folder = HERE / name if kind == "published" else HERE / kind / name
    return folder / "train.prototxt", folder / "solver.prototxt"


class Network:
    """The layers of a prototxt that lead to its losses, with inputs of a profile's crops.

    Accuracies and other layers beside the way to the losses are left out. Labels of 255 are
    ignored, whatever the file ignores. Upsample layers have the size of their mask's pooling.

    Args:
        path: of a prototxt for training.
        classes: of the data.
        sizes: (crop_size, batch_size); None: those of the file.
        resize: a network of other classes gets these; else it is an error.
    Attributes:
        crop_size, batch_size: of the training.
        image, label: names of the inputs.
        scores: name of the blob that the test reads, (N, classes, h, w).
        notes: what was changed, in sentences.
    Raises:
        UserError: a file that cannot be read, or a network that cannot be trained on the data.
    """

    def __init__(self, path: Path, classes: int, sizes: tuple[int, int] | None,
                 resize: bool = False):
        self.path, self.classes = path, classes
        self.notes = []
        self._left_out = {}
        net = read_net(path, caffe_pb2.NetState(phase=caffe_pb2.TRAIN), LAYERS, self._left_out)
        self.name = net.name or path.stem
        layers = [layer for layer in net.layer if not is_input(layer)]
        # All at once, before anything is said of one of them.
        losses = [layer for layer in layers if any(loss_weights(layer))]
        main = max((layer for layer in losses if layer.type == "SoftmaxWithLoss"),
                   key=lambda layer: loss_weights(layer)[0], default=None)
        if main is None:
            self._fail("has no SoftmaxWithLoss layer in phase TRAIN, from whose scores images are "
                       "labelled: name the file that the network is trained with")
        self._layers = _leading_to(layers, losses)
        check_supported(path, self._layers)
        self.scores = main.bottom[0]
        self._to_scores = _leading_to(layers[:layers.index(main)], (), [self.scores])
        self._find_inputs(net, losses)
        self.crop_size, self.batch_size = sizes or self._own_sizes(net)
        self._ignore_void()
        self._fit_upsampling()
        self._fit_classes(resize)
        with torch.device("meta"):
            self.for_training()

    def _fail(self, words):
        raise UserError(f"{self.path}: {words}")

    def _find_inputs(self, net, losses):
        """The image: what the scores come from; the label: what the losses compare them with."""
        inputs = {*net.input, *(top for layer in net.layer if is_input(layer) for top in layer.top)}
        labels = {name for loss in losses for name in loss.bottom[1:]}
        label = inputs & _ways(self._layers, labels)
        image = inputs & _ways(self._to_scores, [self.scores]) - label
        if len(label) != 1 or len(image) != 1:
            self._fail("must have one input of images, which leads to the scores, and one of "
                       f"labels, which leads to the loss; got {sorted(image) or 'none'} and "
                       f"{sorted(label) or 'none'}: write both as tops of an Input layer")
        self.image, self.label = image.pop(), label.pop()
        others = inputs & {name for layer in self._layers for name in layer.bottom} - {
            self.image, self.label}
        if others:
            self._fail(f"reads {sorted(others)} beside images and labels, and a row has no such "
                       "data: remove the layers that read it")

    def _own_sizes(self, net):
        """(crop, batch) of the images' shape in the file."""
        shapes = [shape for layer in net.layer if self.image in layer.top
                  for shape in [layer_inputs(layer)[self.image]]]
        shape = shapes[0] if shapes else old_inputs(net)[self.image]
        return shape[2], shape[0]

    def _ignore_void(self):
        for layer in self._layers:
            if layer.type != "SoftmaxWithLoss":
                continue
            param = layer.loss_param
            if param.HasField("ignore_label") and param.ignore_label != IGNORE_INDEX:
                self.notes.append(f"layer {layer.name!r} ignores label {IGNORE_INDEX}, the data's "
                                  f"void, in place of {param.ignore_label}")
            param.ignore_label = IGNORE_INDEX

    def _fit_upsampling(self):
        """Give Upsample layers the size of the bottom of the Pooling that made their mask."""
        upsampled = [layer for layer in self._layers if layer.type == "Upsample"]
        if not upsampled:
            return
        first = self._layers.index(upsampled[0])
        shapes = self._shapes(self._layers[:first])
        makers = {layer.top[1]: layer for layer in self._layers[:first] if len(layer.top) > 1}
        for layer in upsampled:
            maker = makers.get(layer.bottom[1]) if len(layer.bottom) > 1 else None
            if maker is not None and maker.type == "Pooling":
                layer.upsample_param.Clear()
                (layer.upsample_param.upsample_h,
                 layer.upsample_param.upsample_w) = shapes[maker.bottom[0]][2:]

    def _fit_classes(self, resize):
        shape = self._shapes(self._to_scores)[self.scores]
        count = shape[1] if len(shape) == 4 else None
        if count == self.classes:
            return
        if resize:
            for layer in self._layers:
                param = layer.convolution_param
                if param.num_output == count:
                    param.num_output = self.classes
                if param.group == count:
                    param.group = self.classes
        else:
            makers = [layer.name for layer in self._to_scores
                      if layer.HasField("convolution_param")
                      and layer.convolution_param.num_output == count]
            where = f" in layer {makers[-1]!r}" + (
                f" and {len(makers) - 1} more" if len(makers) > 1 else "") if makers else ""
            self._fail(f"its scores {self.scores!r} are {shape}, and the data has {self.classes} "
                       f"classes: needs (N, {self.classes}, rows, columns): set num_output to "
                       f"{self.classes}{where}")

    def _shapes(self, layers):
        with torch.device("meta"):
            return self._built(self._param(layers, False)).shapes

    def _built(self, param):
        return CaffeNet(param, self.path, arithmetic="torch", left_out=self._left_out)

    def _param(self, layers, training, batch_size=None):
        param = caffe_pb2.NetParameter(name=self.name)
        param.state.phase = caffe_pb2.TRAIN if training else caffe_pb2.TEST
        read = {name for layer in layers for name in layer.bottom}
        data = param.layer.add(name="data", type="Input")
        for name, channels in ((self.image, 3), (self.label, 1)):
            if name in read or name == self.image:
                data.top.append(name)
                data.input_param.shape.add(dim=[batch_size or self.batch_size, channels,
                                                self.crop_size, self.crop_size])
        param.layer.extend(layers)
        return param

    @property
    def wants_weights(self) -> bool:
        """Whether a loss weighs classes and the file has no weight for each of them."""
        return any(self._lacks_weights(layer) for layer in self._layers)

    def _lacks_weights(self, layer):
        return (layer.loss_param.weight_by_label_freqs
                and len(layer.loss_param.class_weighting) != self.classes)

    def for_training(self, class_weights: Sequence[float] = ()) -> CaffeNet:
        """The network in phase TRAIN, its parameters those of the fillers; `class_weights`, or 1,
        in the losses that lack them."""
        layers = [caffe_pb2.LayerParameter.FromString(layer.SerializeToString())
                  for layer in self._layers]
        for layer in layers:
            if self._lacks_weights(layer):
                layer.loss_param.class_weighting[:] = class_weights or [1.0] * self.classes
            if has_own_statistics(layer):
                # See statistics.inference_parameters.
                del layer.top[1:]
                layer.top.extend([f"{layer.name}/mean", f"{layer.name}/variance"])
        return self._built(self._param(layers, True))

    def for_testing(self) -> caffe_pb2.NetParameter:
        """The layers up to the scores, in phase TEST, for one image; caffe-segnet's BN layers
        scale and shift alone, as it has them for testing."""
        param = self._param(self._to_scores, False, 1)
        for layer in param.layer:
            if has_own_statistics(layer):
                layer.bn_param.bn_mode = caffe_pb2.BNParameter.INFERENCE
                del layer.top[1:]
        return param


def _leading_to(layers: Sequence, ends: Iterable, names: Iterable[str] = ()) -> list:
    """The layers that `ends` are or read, or that make the blobs `names`, in order."""
    needed, kept = set(names), []
    for layer in reversed(layers):
        if any(layer is end for end in ends) or needed & set(layer.top):
            needed |= set(layer.bottom)
            kept.append(layer)
    return kept[::-1]


def _ways(layers, names):
    """The blobs that `names` come from, themselves included; what only gives a Crop layer its size
    is none of them."""
    found = set(names)
    for layer in reversed(layers):
        if found & set(layer.top):
            found |= set(layer.bottom[:1] if layer.type == "Crop" else layer.bottom)
    return found
