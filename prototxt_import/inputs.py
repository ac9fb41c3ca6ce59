"""The inputs of a network: their names and the shapes that its file gives them."""

from collections.abc import Mapping, Sequence

from prototxt_import.format.caffe_pb2 import LayerParameter, NetParameter
from prototxt_import.format.prototxt import is_data_layer
from prototxt_import.layers.base import Shape, check
from prototxt_import.layers.table import LAYERS


def is_input(layer: LayerParameter) -> bool:
    """Whether a layer's tops come from outside, as those of an unknown type without bottoms do."""
    return (layer.type == "Input" or is_data_layer(layer.type, layer.bottom)
            or bool(layer.top) and not layer.bottom and layer.type not in LAYERS)


def old_inputs(net: NetParameter) -> dict[str, Shape | None]:
    """{name: shape} of the fields input, input_shape and input_dim."""
    names = list(net.input)
    if not (net.input_shape or net.input_dim) and any(x.type == "Input" for x in net.layer):
        # As in the original, which then takes the Input layers alone.
        return {}
    check(not (net.input_shape and net.input_dim), "must have input_shape or input_dim, got both")
    if net.input_dim:
        check(len(net.input_dim) == 4 * len(names),
              f"{len(names)} inputs need {4 * len(names)} input_dim, got {len(net.input_dim)}")
        shapes = [tuple(net.input_dim[4 * k:4 * k + 4]) for k in range(len(names))]
    else:
        shapes = [tuple(shape.dim) for shape in net.input_shape] or [None] * len(names)
        check(len(shapes) == len(names),
              f"{len(names)} inputs need {len(names)} input_shape, got {len(shapes)}")
    check(len(set(names)) == len(names), f"input names a blob twice: {names}")
    return dict(zip(names, shapes))


def is_known(shape: Sequence[int | None] | None) -> bool:
    """Whether a shape is there with all its sizes."""
    return shape is not None and None not in shape


def layer_inputs(layer: LayerParameter) -> dict[str, tuple[int | None, ...] | None]:
    """{name: shape} of an Input layer or a data layer; a shape is None where the file lacks it, and
    so is a single size."""
    check(not layer.bottom, f"needs no bottoms, got {len(layer.bottom)}")
    tops = list(layer.top)
    check(len(set(tops)) == len(tops), f"names a top twice: {tops}")
    if layer.type == "Input":
        shapes = [tuple(shape.dim) for shape in layer.input_param.shape]
    elif layer.type == "DummyData":
        param = layer.dummy_data_param
        shapes = ([tuple(shape.dim) for shape in param.shape]
                  or list(zip(param.num, param.channels, param.height, param.width)))
    else:
        shapes = _data_shapes(layer)[:len(tops)]
    if len(shapes) == 1:
        shapes *= len(tops)
    check(len(shapes) == len(tops), f"needs a shape for each of its {len(tops)} tops, got "
                                    f"{len(shapes)}")
    return dict(zip(tops, shapes))


def with_batch(layer: LayerParameter, tops: Mapping[str, Sequence[int | None] | None],
               given: Mapping[str, Sequence[int]]) -> dict[str, Sequence[int | None] | None]:
    """The shapes of an input layer's tops. If one of a data layer's is given, the others take its
    batch; a label of images without a size is one number for each."""
    batch = next((tuple(given[name])[:1] for name in tops if name in given), ())
    if not batch or layer.type in ("Input", "DummyData"):
        return dict(tops)
    shapes = {name: shape and (*batch, *shape[1:]) for name, shape in tops.items()}
    pixels = layer.image_data_param.label_type == layer.image_data_param.PIXEL
    if layer.type in ("Data", "ImageData") and not pixels:
        shapes |= {name: batch for name in list(tops)[1:2] if tops[name] is None}
    return shapes


def _data_shapes(layer):
    """Shapes of image, label and image size."""
    memory, image, transform = (layer.memory_data_param, layer.image_data_param,
                                layer.transform_param)
    gray, crop, factor = transform.force_gray, transform.crop_size, 1
    dense = layer.HasField("dense_image_data_param")
    if dense:
        # Of it comes what other layers have in transform_param.
        image, crop, transform = layer.dense_image_data_param, 0, layer.dense_image_data_param
        factor = 1 if image.crop_height else image.label_divide_factor
        check(factor >= 1, f"label_divide_factor must be at least 1, got {factor}")
    if layer.HasField("memory_data_param"):
        size = (memory.height, memory.width)
        batch, channels = memory.batch_size, memory.channels
    else:
        size = ((crop,) * 2 if crop else
                (transform.crop_height, transform.crop_width) if transform.crop_height else
                (image.new_height, image.new_width))
        batch = layer.data_param.batch_size or image.batch_size
        channels = 3 if image.is_color and not gray else 1
    batch = batch or 1
    if layer.type == "Data" and not gray:
        # The database has them; several means are one for each.
        many = len(transform.mean_value) > 1
        channels = 3 if transform.force_color else len(transform.mean_value) if many else None
    if not min(size) or layer.type in ("HDF5Data", "Python", "VideoData"):
        return [None] * len(layer.top)
    per_pixel = (dense or "Seg" in layer.type or layer.type == "ImageLabelmapData"
                 or image.label_type == image.PIXEL)
    label = (batch, 1, *(side // factor for side in size)) if per_pixel else (batch,)
    third = (batch, 1, 1, 2) if layer.type == "ImageSegData" else None
    return [(batch, channels, *size), label, *[third] * (len(layer.top) - 2)]
