"""Prototxt files: read with errors that name file and line, and written."""

import os
import warnings
from collections.abc import Container, Sequence
from pathlib import Path
from typing import NamedTuple

from google.protobuf import descriptor_pb2, text_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from prototxt_import.format import caffe_pb2, v1
from prototxt_import.format.grammar import Field, Token, error_at, parse
from prototxt_import.format.rules import included
from pspnet_repro.errors import UserError
from pspnet_repro.files import write_bytes


def _repeated_fields():
    """(message, field) of the schema's repeated fields: descriptors tell it by another name in
    every other release of protobuf, their own schema does not change."""
    schema = descriptor_pb2.FileDescriptorProto()
    caffe_pb2.DESCRIPTOR.CopyToProto(schema)
    return {(message.name, field.name) for message in schema.message_type
            for field in message.field if field.label == field.LABEL_REPEATED}


_REPEATED = _repeated_fields()
# Fields of a solver that no network has.
_SOLVERS = (set(caffe_pb2.SolverParameter.DESCRIPTOR.fields_by_name)
            - set(caffe_pb2.NetParameter.DESCRIPTOR.fields_by_name))
# Fields of V1 in a layer of the present format.
_SPELLINGS = {"blobs_lr": "param { lr_mult: ... }", "weight_decay": "param { decay_mult: ... }",
              "blob_share_mode": "param { share_mode: ... }"}
# Fields of forks that choose how a value is computed or kept, not which: they are dropped.
_UNFOLLOWED = {
    # Of Intel's Caffe, NVIDIA's, and PSPNet's own.
    "NetParameter": {"compile_net_state", "multinode", "default_forward_type",
                     "default_backward_type", "default_forward_math", "default_backward_math",
                     "default_conv_algos_override", "default_cudnn_math_override",
                     "global_grad_scale", "mem_param", "reduce_buckets"},
    "LayerParameter": {"forward_type", "backward_type", "forward_math", "backward_math", "debug",
                       "cudnn_math_override", "split_param"},
    "DropoutParameter": {"random_seed"},
    "ConvolutionParameter": {"conv_algorithm", "conv_algos_override", "cudnn_math_override",
                             "cudnn_convolution_algo_seeker", "mem_group_size"},
}
FILLERS = ("constant", "uniform", "gaussian", "xavier", "msra", "bilinear", "positive_unitball",
           "identity")
_BOOLS = {"true": True, "True": True, "t": True, "1": True,
          "false": False, "False": False, "f": False, "0": False}
# Fields of a pooling, which 3D-Caffe gives for each axis, and video-caffe's that have them all.
SHAPES = {"kernel_size": "kernel_shape", "stride": "stride_shape", "pad": "pad_shape"}
_INTEGERS = {FieldDescriptor.CPPTYPE_INT32: (-2 ** 31, 2 ** 31 - 1),
             FieldDescriptor.CPPTYPE_UINT32: (0, 2 ** 32 - 1),
             FieldDescriptor.CPPTYPE_INT64: (-2 ** 63, 2 ** 63 - 1)}


def read_net(path: Path | str, state: caffe_pb2.NetState | None = None,
             types: Container[str] | None = None,
             left_out: dict[str, tuple[str, list[str]]] | None = None
             ) -> caffe_pb2.NetParameter:
    """Read a network's prototxt.

    Layers that read data ("Data" in their type; no bottom) and Python layers may hold any field;
    elsewhere an unknown field is an error.

    Args:
        state: merged into the file's own. With one, layers that their include and exclude rules
            leave out are dropped before their fields are looked at.
        types: with it, layers of types that are not in it may hold any field.
        left_out: gets {top: (layer name, stages that it needs)} of the layers dropped.
    Raises:
        UserError: no such file, not a text, wrong syntax, an unknown field or value; file and line
            are named.
    """
    net = caffe_pb2.NetParameter()
    if state is not None:
        net.state.CopyFrom(state)
    fields = v1.upgrade(_of_network(parse(path), path), path)
    rule = _Rule({}, state, types, left_out)
    _fill(net, fields, path, rule)
    _warn_of_unfollowed(path, rule)
    return net


def _warn_of_unfollowed(path, rule):
    if rule.unfollowed:
        warnings.warn(f"{path}: {', '.join(rule.unfollowed)}: not followed, as all is computed in "
                      "float32 and by one engine", stacklevel=4)


def _of_network(fields, path):
    """The fields of a network, also of one written inside a solver; the UserError of another solver
    names its network."""
    names = {field.name for field in fields}
    if names & {"layer", "layers"} or not names & _SOLVERS:
        return fields
    inside = next((field for field in fields if field.name in ("net_param", "train_net_param")
                   and not isinstance(field.value, Token)), None)
    if inside is not None:
        return inside.value
    nets = [name for name in ("train_net", "net", "test_net") if _text_of(fields, name)]
    way = (f"name its {nets[0]}, {net_file(path, _text_of(fields, nets[0]))}" if nets else
           "name a network's prototxt")
    raise UserError(f"{path}: is a solver, and must be a network: {way}")


def net_file(solver: Path | str, name: str) -> Path:
    """Path of the network that a solver names: beside the solver's file, or as it is named."""
    beside = Path(solver).parent / name
    return beside if os.path.exists(beside) else Path(name)


def read_solver(path: Path | str,
                types: Container[str] | None = None) -> caffe_pb2.SolverParameter:
    """Read a solver's prototxt; `types` and errors as in `read_net`.

    Of a network inside, layers that are not in it in training are dropped; test_net_param is
    ignored.
    """
    solver = caffe_pb2.SolverParameter()
    rule = _Rule({}, types=types)
    _fill(solver, parse(path), path, rule)
    _warn_of_unfollowed(path, rule)
    return solver


def training_state(solver: caffe_pb2.SolverParameter) -> caffe_pb2.NetState:
    """The NetState of a solver's training network."""
    state = caffe_pb2.NetState(phase=caffe_pb2.TRAIN)
    state.MergeFrom(solver.train_state)
    return state


def write_prototxt(path: Path | str, message: Message) -> None:
    """Write a NetParameter or SolverParameter as text, atomically."""
    write_bytes(path, prototxt_text(message))


def prototxt_text(message: Message) -> str:
    """A NetParameter or SolverParameter as the text of a prototxt."""
    return text_format.MessageToString(message)


def is_data_layer(kind: str, bottoms: Sequence) -> bool:
    """Whether a layer of this type with these bottoms reads data from outside the network."""
    words = ("Data", "Reader", "Loader")
    return not bottoms and (kind == "Python" or any(word in kind for word in words))


def _text_of(fields, name):
    """The first string called `name` among fields, or ""."""
    return next((f.value.text for f in fields if f.name == name and isinstance(f.value, Token)),
                "")


class _Rule(NamedTuple):
    """Which layers of a text are kept, and where these that are not are told: see read_net;
    `unfollowed` gets the fields that are dropped."""

    unfollowed: dict
    state: caffe_pb2.NetState | None = None
    types: Container | None = None
    left_out: dict | None = None


def _fill(message, fields, path, rule, where="", lenient=False):
    """Put parsed fields into a message; `where` names the layer they are in."""
    kind, known = message.DESCRIPTOR.name, message.DESCRIPTOR.fields_by_name
    # A filler of another program is refused where the parameter gets no other value.
    if kind == "FillerParameter":
        lenient = lenient or _text_of(fields, "type") not in ("", *FILLERS)
    if kind == "PoolingParameter":
        fields = _with_shapes(fields)
    # What decides which layers are in comes before the layers.
    for field in sorted(fields, key=lambda f: f.name in ("layer", "net_param", "train_net_param")):
        target = known.get(field.name)
        if target is None:
            if lenient:
                continue
            if field.name == "engine" or field.name in _UNFOLLOWED.get(kind, ()):
                rule.unfollowed[field.name] = None
                continue
            raise error_at(path, field.line, where + _unknown(message, field.name))
        try:
            _set(message, target, field, path, rule, where, lenient)
        except ValueError as error:
            if field.name == "engine":
                rule.unfollowed[field.name] = None
            elif not lenient:
                raise error_at(path, field.line, f"{where}{field.name} {error}") from error


def _with_shapes(fields):
    """The fields of a pooling; those given three times or more as one shape."""
    for name, shape in SHAPES.items():
        each = [field for field in fields if field.name == name]
        if len(each) > 2:
            dims = [field._replace(name="dim") for field in each]
            fields = [field for field in fields if field.name != name] + [
                Field(shape, dims, each[0].line)]
    return fields


def _unknown(message, name):
    kind = message.DESCRIPTOR.name
    way = {"SolverParameter": ": it may change the training; remove it if it does not",
           "LayerParameter": ": write it as " + _SPELLINGS.get(name, "")}
    return f"unknown field {name!r} of {kind}" + (
        way.get(kind, "") if kind == "SolverParameter" or name in _SPELLINGS else
        ": remove it if the network computes the same without it")


def _set(message, target, field, path, rule, where, lenient):
    if target.message_type is None:
        if not isinstance(field.value, Token):
            raise ValueError("must be a value, got braces")
        value = _convert(target, field.value)
    elif isinstance(field.value, Token):
        raise ValueError(f"must be braces, got {field.value.text!r}")
    repeated = (message.DESCRIPTOR.name, target.name) in _REPEATED
    if not repeated and target.name != "state" and message.HasField(target.name):
        raise ValueError("is given twice")
    if target.message_type is None:
        if repeated:
            getattr(message, target.name).append(value)
        else:
            setattr(message, target.name, value)
    elif target.message_type.name == "LayerParameter":
        _add_layer(message, field.value, path, rule)
    elif target.name == "state":
        own = caffe_pb2.NetState()
        _fill(own, field.value, path, rule)
        own.MergeFrom(message.state)
        message.state.CopyFrom(own)
    elif target.name in ("net_param", "train_net_param"):
        net = getattr(message, target.name)
        net.state.CopyFrom(training_state(message))
        _fill(net, v1.upgrade(field.value, path), path, rule._replace(state=net.state))
    elif target.name != "test_net_param":
        inner = getattr(message, target.name)
        inner = inner.add() if repeated else inner
        if not repeated:
            inner.SetInParent()
        _fill(inner, field.value, path, rule, where, lenient)


def _add_layer(net, fields, path, rule):
    name, kind = _text_of(fields, "name"), _text_of(fields, "type")
    where = f"layer {name!r} ({kind}): "
    if rule.state is not None:
        rules = [f for f in fields if f.name in ("include", "exclude")]
        layer = caffe_pb2.LayerParameter(name=name)
        _fill(layer, rules, path, rule, where)
        if not included(layer, net.state, path):
            if rule.left_out is not None:
                stages = {stage for each in layer.include for stage in each.stage}
                for field in fields:
                    if field.name == "top" and isinstance(field.value, Token):
                        _, others = rule.left_out.get(field.value.text, ("", ()))
                        rule.left_out[field.value.text] = (name, sorted(stages.union(others)))
            return
    lenient = (kind == "Python"
               or is_data_layer(kind, [f for f in fields if f.name == "bottom"])
               or rule.types is not None and kind not in rule.types)
    _fill(net.layer.add(), fields, path, rule, where, lenient)


def _convert(target, token):
    """A token as a value of the field `target`; ValueError says why it is none."""
    kind = target.cpp_type
    text = token.text
    if kind == FieldDescriptor.CPPTYPE_STRING:
        if token.kind != "string":
            raise ValueError(f"must be text in quotes, got {text}")
        return text
    if token.kind == "string":
        raise ValueError(f"must not be in quotes, got {text!r}")
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        if text not in _BOOLS:
            raise ValueError(f"must be true or false, got {text}")
        return _BOOLS[text]
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        values = target.enum_type.values_by_name
        if text in values:
            return values[text].number
        numbers = [v.number for v in values.values() if str(v.number) == text]
        if not numbers:
            raise ValueError(f"must be one of {', '.join(values)}, got {text}")
        return numbers[0]
    if kind == FieldDescriptor.CPPTYPE_FLOAT:
        return _float(text)
    low, high = _INTEGERS[kind]
    try:
        # As in C: 0x begins a hexadecimal number, 0 an octal one.
        octal = len(text) > 1 and text.lstrip("-").startswith("0")
        value = int(text, 16 if "x" in text.lower() else 8 if octal else 10)
    except ValueError as error:
        raise ValueError(f"must be a whole number, got {text[:40]}") from error
    if not low <= value <= high:
        raise ValueError(f"must be {low} to {high}, got {text[:40]}")
    return value


def _float(text):
    try:
        return float(text.rstrip("fF") if text.lower() not in ("inf", "-inf") else text)
    except ValueError as error:
        raise ValueError(f"must be a number, got {text[:40]}") from error
