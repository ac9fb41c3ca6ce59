"""Prototxt files: read with errors that name file and line, and written."""

import re
from pathlib import Path
from typing import NamedTuple

from google.protobuf import descriptor_pb2, text_format
from google.protobuf.descriptor import FieldDescriptor

from pspnet_repro.checkpoint import write_bytes
from pspnet_repro.errors import UserError, first_line
from prototxt_import import caffe_pb2
from prototxt_import.rules import included

MAX_DEPTH = 16
MAX_BYTES = 2 ** 26

_TOKEN = re.compile(r"""(?P<space>[ \t\r\f\v\n]+|\#[^\n]*)
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<number>(?:0[xX][0-9a-fA-F]+|(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?[fF]?)(?![A-Za-z0-9_.]))
    |(?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
    |(?P<mark>[{}<>:;,\[\]-])""", re.X)
_ESCAPE = re.compile(r"\\(?:([0-7]{1,3})|[xX]([0-9a-fA-F]{1,2})|(.))")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}


def _repeated_fields():
    """(message, field) of the schema's repeated fields: descriptors tell it by another name in
    every other release of protobuf, their own schema does not change."""
    schema = descriptor_pb2.FileDescriptorProto()
    caffe_pb2.DESCRIPTOR.CopyToProto(schema)
    return {(message.name, field.name) for message in schema.message_type
            for field in message.field if field.label == field.LABEL_REPEATED}


_REPEATED = _repeated_fields()
_CLOSING = {"{": "}", "<": ">"}
_BOOLS = {"true": True, "True": True, "t": True, "1": True,
          "false": False, "False": False, "f": False, "0": False}
_INTEGERS = {FieldDescriptor.CPPTYPE_INT32: (-2 ** 31, 2 ** 31 - 1),
             FieldDescriptor.CPPTYPE_UINT32: (0, 2 ** 32 - 1),
             FieldDescriptor.CPPTYPE_INT64: (-2 ** 63, 2 ** 63 - 1)}


def read_net(path, state=None):
    """Read a network's prototxt.

    Layers that read data (a type ending in "Data", no bottom) may hold any field; elsewhere an
    unknown field is an error.

    Args:
        path: the file.
        state: a NetState, merged into the file's own. With one, layers that their include and
            exclude rules leave out are dropped before their fields are looked at.
    Returns:
        A NetParameter.
    Raises:
        UserError: no such file, not a text, wrong syntax, an unknown field or value; file and line
            are named.
    """
    net = caffe_pb2.NetParameter()
    if state is not None:
        net.state.CopyFrom(state)
    _fill(net, _parse(path), path, state)
    return net


def read_solver(path):
    """Read a solver's prototxt as a SolverParameter; errors as in `read_net`.

    Of a network inside, layers that are not in it in training are dropped; test_net_param is
    ignored.
    """
    solver = caffe_pb2.SolverParameter()
    _fill(solver, _parse(path), path, None)
    return solver


def training_state(solver):
    """The NetState of a solver's training network."""
    state = caffe_pb2.NetState(phase=caffe_pb2.TRAIN)
    state.MergeFrom(solver.train_state)
    return state


def write_prototxt(path, message):
    """Write a NetParameter or SolverParameter as text, atomically."""
    write_bytes(path, text_format.MessageToString(message))


class _Token(NamedTuple):
    kind: str
    text: str
    line: int


class _Field(NamedTuple):
    """A field of the text: its value is a token, or a list of fields."""

    name: str
    value: object
    line: int


def _error(path, line, message):
    return UserError(f"{path}:{line}: {message}")


def _read_text(path):
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {first_line(error)}") from error
    if len(data) > MAX_BYTES:
        raise UserError(f"{path}: a prototxt must be at most {MAX_BYTES} bytes")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a prototxt: byte {error.start} is no text (is it a "
                        "caffemodel?)") from error
    if "\0" in text:
        raise UserError(f"{path}: not a prototxt: it holds zero bytes (is it a caffemodel?)")
    if not text.strip():
        raise UserError(f"{path}: the file is empty")
    return text


def _tokens(text, path):
    position, line = 0, 1
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise _error(path, line, f"unexpected {text[position:position + 10].split()[0]!r}")
        if match.lastgroup != "space":
            yield _Token(match.lastgroup, match.group(), line)
        line += match.group().count("\n")
        position = match.end()
    yield _Token("end", "the end of the file", line)


def _parse(path):
    """The fields of a file as a list of _Field."""
    tokens = list(_tokens(_read_text(path), path))
    tokens.reverse()
    fields = _parse_fields(tokens, path, 0)
    if tokens[-1].kind != "end":
        raise _error(path, tokens[-1].line, f"unexpected {tokens[-1].text!r}")
    return fields


def _parse_fields(tokens, path, depth):
    if depth > MAX_DEPTH:
        raise _error(path, tokens[-1].line, f"more than {MAX_DEPTH} levels of braces")
    fields = []
    while tokens[-1].kind == "name":
        name = tokens.pop()
        colon = tokens[-1].text == ":" and tokens.pop()
        if colon and tokens[-1].text == "[":
            fields += _parse_list(tokens, path, name)
        elif tokens[-1].text in _CLOSING and tokens[-1].kind == "mark":
            closing = _CLOSING[tokens.pop().text]
            fields.append(_Field(name.text, _parse_fields(tokens, path, depth + 1), name.line))
            last = tokens.pop()
            if last.kind != "mark" or last.text != closing:
                raise _error(path, last.line, f"unexpected {last.text!r} in {name.text} of line "
                                              f"{name.line}, which lacks its {closing!r}")
        elif not colon:
            raise _error(path, tokens[-1].line,
                         f"expected ':' or '{{' after {name.text!r}, got {tokens[-1].text!r}")
        else:
            fields.append(_Field(name.text, _parse_scalar(tokens, path, name), name.line))
        if tokens[-1].kind == "mark" and tokens[-1].text in ",;":
            tokens.pop()
    return fields


def _parse_list(tokens, path, name):
    tokens.pop()
    fields = []
    while tokens[-1].text != "]":
        fields.append(_Field(name.text, _parse_scalar(tokens, path, name), name.line))
        if tokens[-1].text == ",":
            tokens.pop()
        elif tokens[-1].text != "]":
            raise _error(path, tokens[-1].line, f"expected ',' or ']', got {tokens[-1].text!r}")
    tokens.pop()
    return fields


def _parse_scalar(tokens, path, name):
    token = tokens.pop()
    if token.kind == "mark" and token.text == "-" and tokens[-1].kind in ("number", "name"):
        value = tokens.pop()
        return _Token(value.kind, f"-{value.text}", value.line)
    if token.kind not in ("name", "number", "string"):
        raise _error(path, token.line, f"expected a value of {name.text!r}, got {token.text!r}")
    if token.kind == "string":
        parts = [token]
        while tokens[-1].kind == "string":
            parts.append(tokens.pop())
        return _Token("string", "".join(_unescape(part.text[1:-1]) for part in parts), token.line)
    return token


def _unescape(text):
    def replace(match):
        octal, hexadecimal, other = match.groups()
        if octal or hexadecimal:
            return chr(int(octal, 8) if octal else int(hexadecimal, 16))
        return _ESCAPES.get(other, other)
    return _ESCAPE.sub(replace, text)


def is_data_layer(kind, bottoms):
    """Whether a layer of this type with these bottoms reads data from outside the network."""
    return kind.endswith("Data") and not bottoms


def _text_of(fields, name):
    """The first string called `name` among fields, or ""."""
    return next((f.value.text for f in fields if f.name == name and isinstance(f.value, _Token)),
                "")


def _fill(message, fields, path, state, where="", lenient=False):
    """Put parsed fields into a message; `where` names the layer they are in."""
    known = message.DESCRIPTOR.fields_by_name
    # What decides which layers are in comes before the layers.
    for field in sorted(fields, key=lambda f: f.name in ("layer", "net_param", "train_net_param")):
        target = known.get(field.name)
        if target is None:
            if lenient:
                continue
            raise _error(path, field.line, where + _unknown(message, field.name))
        try:
            _set(message, target, field, path, state, where, lenient)
        except ValueError as error:
            if not lenient:
                raise _error(path, field.line, f"{where}{field.name} {error}") from error


def _unknown(message, name):
    kind = message.DESCRIPTOR.name
    if kind == "NetParameter" and name == "layers":
        return ("'layers' is the first format of Caffe, which is not supported: upgrade it with "
                "Caffe's upgrade_net_proto_text")
    return f"unknown field {name!r} of {kind}"


def _set(message, target, field, path, state, where, lenient):
    if target.message_type is None:
        if not isinstance(field.value, _Token):
            raise ValueError("must be a value, got braces")
        value = _convert(target, field.value)
    elif isinstance(field.value, _Token):
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
        _add_layer(message, field.value, path, state)
    elif target.name == "state":
        own = caffe_pb2.NetState()
        _fill(own, field.value, path, state)
        own.MergeFrom(message.state)
        message.state.CopyFrom(own)
    elif target.name in ("net_param", "train_net_param"):
        net = getattr(message, target.name)
        net.state.CopyFrom(training_state(message))
        _fill(net, field.value, path, net.state)
    elif target.name != "test_net_param":
        inner = getattr(message, target.name)
        inner = inner.add() if repeated else inner
        if not repeated:
            inner.SetInParent()
        _fill(inner, field.value, path, state, where, lenient)


def _add_layer(net, fields, path, state):
    name, kind = _text_of(fields, "name"), _text_of(fields, "type")
    where = f"layer {name!r} ({kind}): "
    if state is not None:
        rules = [f for f in fields if f.name in ("include", "exclude")]
        layer = caffe_pb2.LayerParameter(name=name)
        _fill(layer, rules, path, state, where)
        if not included(layer, net.state, path):
            return
    lenient = is_data_layer(kind, [f for f in fields if f.name == "bottom"])
    _fill(net.layer.add(), fields, path, state, where, lenient)


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
        value = int(text, 16 if "x" in text.lower() else 10)
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
