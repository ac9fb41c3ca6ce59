"""Layers of Caffe's format before V1, `layers { layer { ... } }`, made layers of V1."""

from pathlib import Path

from prototxt_import.format.grammar import Field, Token, error_at

# Types whose name in V1 is not theirs in capitals.
_TYPES = {"conv": "CONVOLUTION", "images": "IMAGE_DATA", "innerproduct": "INNER_PRODUCT",
          "pool": "POOLING"}
# The field of V1 that holds a type's own fields.
_PARAMS = {"concat": "concat_param", "conv": "convolution_param", "data": "data_param",
           "dropout": "dropout_param", "hdf5_data": "hdf5_data_param",
           "images": "image_data_param", "infogain_loss": "infogain_loss_param",
           "innerproduct": "inner_product_param", "lrn": "lrn_param", "pool": "pooling_param",
           "window_data": "window_data_param"}
_RENAMED = {"batchsize": "batch_size", "biasterm": "bias_term", "cropsize": "crop_size",
            "kernelsize": "kernel_size", "meanfile": "mean_file", "shuffle_images": "shuffle"}
_TRANSFORMS = ("scale", "mean_file", "crop_size", "mirror")
_LAYERS = ("name", "type", "blobs", "blobs_lr", "weight_decay", "hdf5_output_param")


def type_of(text: str) -> str:
    """The type of V1 that a type of V0 became."""
    return _TYPES.get(text, text.upper())


def upgrade(fields: list[Field], path: Path | str) -> list[Field]:
    """The fields of a net's prototxt with every layer of V0 made one of V1, lines as they were.

    Layers of type `padding` become the pad of the convolutions and poolings that read them.

    Raises:
        UserError: a padding that no pad can replace; file and line are named.
    """
    upgraded, paddings = [], {}
    for field in fields:
        old = None if field.name != "layers" or isinstance(field.value, Token) else next(
            (inner for inner in field.value
             if inner.name == "layer" and not isinstance(inner.value, Token)), None)
        if old is None:
            upgraded.append(field)
            continue
        kind = next(iter(_texts(old.value, "type")), "")
        inner = old.value
        around = [each for each in field.value if each is not old]
        bottoms, tops = _texts(around, "bottom"), _texts(around, "top")
        padded = kind == "padding" or paddings.keys() & bottoms
        if padded and (kind not in ("padding", "conv", "pool") or len(bottoms) != 1
                       or kind == "padding" and len(tops) != 1):
            raise error_at(path, field.line, "a padding layer must have one bottom and one top, "
                           "which only layers of type conv or pool with one bottom may read: "
                           "write the pad in those layers")
        if bottoms and bottoms[0] in paddings:
            bottom, pads = paddings[bottoms[0]]
            around = [bottom if each.name == "bottom" else each for each in around]
            inner = [each for each in inner if each.name != "pad"] + pads
        for top in tops:
            paddings.pop(top, None)
        if kind == "padding":
            paddings[tops[0]] = (next(each for each in around if each.name == "bottom"),
                                 [each for each in inner if each.name == "pad"])
        else:
            upgraded.append(field._replace(value=_of_v1(inner, kind, field.line) + around))
    return upgraded


def _texts(fields, name):
    return [field.value.text for field in fields
            if field.name == name and isinstance(field.value, Token)]


def _of_v1(fields, kind, line):
    """The fields of a layer of V1: V0 has those of all types side by side."""
    layer, own, transforms = [], [], []
    for field in fields:
        name = field.name.removeprefix("det_") if kind == "window_data" else field.name
        field = field._replace(name=_RENAMED.get(name, name))
        if field.name == "type" and isinstance(field.value, Token):
            field = field._replace(value=field.value._replace(kind="name", text=type_of(kind)))
        place = (transforms if field.name in _TRANSFORMS else
                 layer if field.name in _LAYERS or kind not in _PARAMS else own)
        place.append(field)
    return layer + [Field(name, values, line) for name, values in
                    ((_PARAMS.get(kind), own), ("transform_param", transforms)) if values]
