"""Layers of the first formats of Caffe (field `layers`), upgraded as Caffe's program does."""

from collections.abc import Sequence
from pathlib import Path

from prototxt_import.format import caffe_pb2, v0
from prototxt_import.format.grammar import Field, Token, error_at

# Types of V1 by their numbers in binary files; those of forks have no number in common.
_TYPES = {
    "NONE": (0, ""), "ACCURACY": (1, "Accuracy"), "BNLL": (2, "BNLL"), "CONCAT": (3, "Concat"),
    "CONVOLUTION": (4, "Convolution"), "DATA": (5, "Data"), "DROPOUT": (6, "Dropout"),
    "EUCLIDEAN_LOSS": (7, "EuclideanLoss"), "FLATTEN": (8, "Flatten"),
    "HDF5_DATA": (9, "HDF5Data"), "HDF5_OUTPUT": (10, "HDF5Output"), "IM2COL": (11, "Im2col"),
    "IMAGE_DATA": (12, "ImageData"), "INFOGAIN_LOSS": (13, "InfogainLoss"),
    "INNER_PRODUCT": (14, "InnerProduct"), "LRN": (15, "LRN"),
    "MULTINOMIAL_LOGISTIC_LOSS": (16, "MultinomialLogisticLoss"), "POOLING": (17, "Pooling"),
    "RELU": (18, "ReLU"), "SIGMOID": (19, "Sigmoid"), "SOFTMAX": (20, "Softmax"),
    "SOFTMAX_LOSS": (21, "SoftmaxWithLoss"), "SPLIT": (22, "Split"), "TANH": (23, "TanH"),
    "WINDOW_DATA": (24, "WindowData"), "ELTWISE": (25, "Eltwise"), "POWER": (26, "Power"),
    "SIGMOID_CROSS_ENTROPY_LOSS": (27, "SigmoidCrossEntropyLoss"),
    "HINGE_LOSS": (28, "HingeLoss"), "MEMORY_DATA": (29, "MemoryData"), "ARGMAX": (30, "ArgMax"),
    "THRESHOLD": (31, "Threshold"), "DUMMY_DATA": (32, "DummyData"), "SLICE": (33, "Slice"),
    "MVN": (34, "MVN"), "ABSVAL": (35, "AbsVal"), "SILENCE": (36, "Silence"),
    "CONTRASTIVE_LOSS": (37, "ContrastiveLoss"), "EXP": (38, "Exp"),
    "DECONVOLUTION": (39, "Deconvolution")}
_FORKS = {"CROP": "AlignedCrop", "IMAGE_SEG_DATA": "ImageSegData", "INTERP": "Interp", "BN": "BN",
          "UPSAMPLE": "Upsample", "SEG_ACCURACY": "SegAccuracy", "RESHAPE": "Reshape",
          "PRELU": "PReLU", "LOG": "Log", "UNPOOLING": "Unpooling", "MAT_WRITE": "MatWrite",
          "SPATIAL_PRODUCT": "SpatialProduct", "CONVOLUTION3D": "Convolution3D",
          "POOLING3D": "Pooling3D"}
_BY_NUMBER = dict(_TYPES.values())
_BY_TEXT = {**_FORKS, **{name: kind for name, (_, kind) in _TYPES.items()},
            **{str(number): kind for number, kind in _TYPES.values()}}
# Repeated values of V1, one for each blob, and the fields of ParamSpec that they became.
_SPECS = {"param": "name", "blob_share_mode": "share_mode", "blobs_lr": "lr_mult",
          "weight_decay": "decay_mult"}
# Fields of these layers' data parameters that moved to transform_param.
_DATA_PARAMS = {"Data": "data_param", "ImageData": "image_data_param",
                "WindowData": "window_data_param"}
_TRANSFORMS = ("scale", "mean_file", "crop_size", "mirror")


def upgrade(fields: list[Field], path: Path | str) -> list[Field]:
    """The fields of a net's prototxt with every `layers` made a `layer`, lines as they were.

    Raises:
        UserError: an unknown type, layers of V1 beside present ones, or a padding of V0 that no
            pad can replace; file and line are named.
    """
    olds = [field for field in fields if field.name == "layers"]
    if not olds:
        return fields
    new = next((field for field in fields if field.name == "layer"), None)
    if new is not None:
        raise error_at(path, new.line, "'layer' beside 'layers' of the first format, of which "
                       "Caffe would drop the 'layer': write all of them as 'layer'")
    return [_upgrade_layer(field, path) if field.name == "layers" else field
            for field in v0.upgrade(fields, path)]


def _upgrade_layer(field, path):
    if isinstance(field.value, Token):
        return field._replace(name="layer")
    kept, values, kind = [], {name: [] for name in _SPECS}, ""
    for inner in field.value:
        if inner.name == "strict_dim":
            # DeepLab's first Caffe takes weights of another shape where it is false.
            continue
        if inner.name == "softmaxloss_param":
            inner = inner._replace(name="loss_param")
        if inner.name in _SPECS:
            values[inner.name].append(inner)
        elif inner.name == "type" and isinstance(inner.value, Token):
            kind = _kind(inner, path)
            kept.append(inner._replace(value=inner.value._replace(kind="string", text=kind)))
        else:
            kept.append(inner)
    specs = [Field("param", [Field(_SPECS[name], each[k].value, each[k].line)
                             for name, each in values.items() if k < len(each)], field.line)
             for k in range(max(map(len, values.values())))]
    return field._replace(name="layer", value=_move_transforms(kept, kind, field.line) + specs)


def _kind(field, path):
    """The present type; a name of none is kept, and is said to be unsupported with all others."""
    text = field.value.text
    name = next((name for name, kind in _BY_TEXT.items() if kind == text), None)
    if field.value.kind == "name" and name is None:
        # WINDOW_SEG_DATA of a fork is WindowSegData, an input.
        camel = text.title().replace("_", "") if text.endswith("_DATA") else text
        return _BY_TEXT.get(text, camel)
    if field.value.kind == "string" or text not in _BY_TEXT:
        raise error_at(path, field.line, "type of 'layers' must be a type of V1 without quotes, "
                       f"got {text!r}: " + (f"write {name}" if name else
                                            "write the layer as 'layer', its type in quotes"))
    return _BY_TEXT[text]


def _move_transforms(fields, kind, line):
    """The fields of a layer, those of its data parameter that moved in transform_param."""
    moved, kept = [], []
    for field in fields:
        if field.name == _DATA_PARAMS.get(kind) and not isinstance(field.value, Token):
            moved += [inner for inner in field.value if inner.name in _TRANSFORMS]
            field = field._replace(value=[inner for inner in field.value
                                          if inner.name not in _TRANSFORMS])
        kept.append(field)
    if not moved:
        return kept
    # The moved fields count where transform_param has them too.
    names = {inner.name for inner in moved}
    own = [inner for field in kept if field.name == "transform_param"
           and not isinstance(field.value, Token) for inner in field.value
           if inner.name not in names]
    return [field for field in kept if field.name != "transform_param"] + [
        Field("transform_param", own + moved, line)]


def weights_of(data: bytes) -> tuple[str, str, Sequence[caffe_pb2.WeightsBlob]]:
    """(name, type, blobs) of a serialized layer of V1, or of V0 inside it.

    Raises:
        DecodeError: damaged.
    """
    layer = caffe_pb2.WeightsLayerV1.FromString(data)
    if not layer.HasField("layer"):
        return layer.name, _BY_NUMBER.get(layer.type, f"V1 type {layer.type}"), layer.blobs
    old = layer.layer
    return old.name, _BY_TEXT.get(v0.type_of(old.type), old.type), old.blobs
