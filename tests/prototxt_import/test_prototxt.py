"""Prototxt files: the grammar, errors with file and line, data layers, rules, writing."""

import re
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import descriptor_pb2

from prototxt_import import read_net, read_solver, write_prototxt
from prototxt_import.format import caffe_pb2
from pspnet_repro.errors import UserError

TRAIN = caffe_pb2.NetState(phase=caffe_pb2.TRAIN)


def test_generated_code_is_of_this_schema():
    schema = descriptor_pb2.FileDescriptorProto()
    caffe_pb2.DESCRIPTOR.CopyToProto(schema)
    def default(text):
        # Numbers as the float32 that they are.
        return float(np.float32(text)) if re.match(r"[-\d.]", text) else text

    generated = {(message.name, field.name, str(field.number), default(field.default_value))
                 for message in schema.message_type for field in message.field}
    text = (Path(caffe_pb2.__file__).parent / "caffe.proto").read_text()
    written = set()
    for name, body in re.findall(r"^message (\w+) \{(.*?)^\}", text, re.S | re.M):
        written |= {(name, field, number, default(value.strip('"'))) for field, number, value in
                    re.findall(r"(\w+) = (\d+)(?: \[default = (.*?)\]| \[packed = true\])?;",
                               re.sub(r"  enum .*?  \}", "", body, flags=re.S))}
    assert generated == written


def _read(tmp_path, text, state=None):
    path = tmp_path / "net.prototxt"
    path.write_text(text)
    return read_net(path, state)


def test_grammar(tmp_path):
    net = _read(tmp_path, r'''
        # every way to write a field
        name: "a\"b" '\x41\n'; input: "x", input: 'y'
        input_shape < dim: [1, 2] dim: 0x10 dim: 010 >
        layer: { name: "c" loss_weight: -.5e1 loss_weight: 2f loss_weight: - inf
                 include { phase: TEST } include { phase: 0 } propagate_down: [true, 0] }''')
    assert net.name == 'a"bA\n' and list(net.input) == ["x", "y"]
    assert list(net.input_shape[0].dim) == [1, 2, 16, 8]
    layer = net.layer[0]
    assert list(layer.loss_weight) == [-5, 2, float("-inf")]
    assert [rule.phase for rule in layer.include] == [caffe_pb2.TEST, caffe_pb2.TRAIN]
    assert list(layer.propagate_down) == [True, False]


def test_mark_of_utf8_is_skipped(tmp_path):
    assert _read(tmp_path, '\ufeffname: "n"').name == "n"
    with pytest.raises(UserError, match="net.prototxt:1: "):
        _read(tmp_path, 'name: "n" \ufeffinput: "x"')


@pytest.mark.parametrize("name", ["pspnet50_ADE20K_473", "pspnet101_VOC2012_473",
                                  "pspnet101_cityscapes_713"])
def test_released_prototxt_reads_and_writes(shared, tmp_path, name):
    net = read_net(shared / "prototxt" / f"{name}.prototxt")
    assert len(net.layer) == (205 if "50" in name else 375)
    write_prototxt(tmp_path / "again.prototxt", net)
    assert read_net(tmp_path / "again.prototxt") == net


@pytest.mark.parametrize(("text", "line", "message"), [
    ('name: "a\n', 1, "unexpected '\"a'"),
    ('name: "a"\nlayer {\n  name: "b"\n', 4, "unexpected 'the end of the file' in layer of line 2"),
    ('name: "a"\n}\n', 2, "unexpected '}'"),
    ("layer { }\nlayer { ]", 2, "unexpected ']' in layer of line 2, which lacks its '}'"),
    ("name 3", 1, "expected ':' or '{' after 'name', got '3'"),
    ("\nname: {", 2, "name must be a value, got braces|unexpected 'the end of the file'"),
    ("\n\nname: }", 3, "expected a value of 'name', got '}'"),
    ("name: $", 1, r"unexpected '\$'"),
    ("input_dim: [1 2]", 1, "expected ',' or ']', got '2'"),
    ("input_dim: 12ab", 1, "unexpected '12ab'"),
    ("nam: 3", 1, "unknown field 'nam' of NetParameter: remove it if the network computes"),
    ("name: 3", 1, "name must be text in quotes, got 3"),
    ('input_dim: "3"', 1, "input_dim must not be in quotes, got '3'"),
    ("input_dim: 3.5", 1, "input_dim must be a whole number, got 3.5"),
    ("input_dim: 08", 1, "input_dim must be a whole number, got 08"),
    ("input_dim: 3000000000", 1, "input_dim must be -2147483648 to 2147483647, got 3000000000"),
    (f"input_dim: {'9' * 5000}", 1, "input_dim must be a whole number, got 9999"),
    ("force_backward: maybe", 1, "force_backward must be true or false, got maybe"),
    ("state { phase: BOTH }", 1, "phase must be one of TRAIN, TEST, got BOTH"),
    ("state: 3", 1, "state must be braces, got '3'"),
    ('name: "a" name: "b"', 1, "name is given twice"),
    ("layers { }\nlayer { }", 2, "'layer' beside 'layers' of the first format"),
    ('layer {\n name: "p" type: "Pooling"\n pooling_param { kernel: 3 } }', 3,
     r"layer 'p' \(Pooling\): unknown field 'kernel' of PoolingParameter"),
    ('layer { name: "p" type: "LRN" lrm_param { } }', 1,
     r"layer 'p' \(LRN\): unknown field 'lrm_param' of LayerParameter"),
    ('layer { loss_weight: x }', 1, "layer '' ..: loss_weight must be a number, got x"),
    ("a {" * 17, 1, "more than 16 levels of braces"),
    ("a {" * 100000, 1, "more than 16 levels of braces")])
def test_syntax_errors_name_file_and_line(tmp_path, text, line, message):
    with pytest.raises(UserError, match=f"net.prototxt:{line}: ({message})") as raised:
        _read(tmp_path, text)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("data", "message"), [
    (b"", "this is an empty file"), (b" \n\t", "the file is empty"),
    (b"\x0a\x05abcde\xa2\x06\xff", "byte 7 is no text .is it a caffemodel"),
    (b"name: \0", "it holds zero bytes")])
def test_files_that_are_no_text_are_refused(tmp_path, data, message):
    path = tmp_path / "net.prototxt"
    path.write_bytes(data)
    with pytest.raises(UserError, match=f"net.prototxt: .*{message}"):
        read_net(path)


def test_missing_files_are_refused(tmp_path):
    with pytest.raises(UserError, match="none: no such file"):
        read_net(tmp_path / "none")
    with pytest.raises(UserError, match="cannot be read"):
        read_solver(tmp_path)


def test_gigantic_file_is_refused(tmp_path):
    path = tmp_path / "net.prototxt"
    with path.open("wb") as file:
        file.write(b'name: "net"')
        file.truncate(2 ** 40)
    with pytest.raises(UserError, match="a prototxt must be at most 4194304 bytes"):
        read_net(path)


def test_data_layers_may_hold_anything(tmp_path):
    net = _read(tmp_path, '''layer { name: "d" type: "ImageSegData" top: "data" odd_param { a: [1] }
        transform_param { mirror: 7 crop_size: 473 new_one { b: "c" } } image_data_param: 5 }''')
    layer, = net.layer
    assert layer.transform_param.crop_size == 473
    assert not layer.HasField("image_data_param")
    # One that has bottoms computes something.
    with pytest.raises(UserError, match="unknown field 'odd_param'"):
        _read(tmp_path, 'layer { type: "BNData" bottom: "x" odd_param { } }')


RULES = '''layer { name: "a" type: "X" include { phase: TRAIN } strange: 1 }
           layer { name: "b" type: "X" exclude { phase: TRAIN } }
           layer { name: "c" type: "X" include { min_level: 1 max_level: 2 } }
           layer { name: "d" type: "X" include { stage: "s" not_stage: "t" } }
           layer { name: "e" type: "X" exclude { stage: "s" stage: "t" } }
           layer { name: "f" type: "X" include { phase: TRAIN } include { stage: "t" } }'''


@pytest.mark.parametrize(("state", "names"), [
    ({}, "be"), ({"level": 1}, "bce"), ({"level": 3}, "be"), ({"stage": ["s"]}, "bde"),
    ({"stage": ["s", "t"]}, "bf")], ids=str)
def test_rules_choose_layers(tmp_path, state, names):
    state = caffe_pb2.NetState(phase=caffe_pb2.TEST, **state)
    assert "".join(layer.name for layer in _read(tmp_path, RULES, state).layer) == names


def test_state_in_the_file_counts(tmp_path):
    text = 'state { phase: TRAIN stage: "s" }' + RULES
    net = _read(tmp_path, text, caffe_pb2.NetState(phase=caffe_pb2.TEST, level=1))
    assert "".join(layer.name for layer in net.layer) == "bcde"


def test_fields_of_layers_that_run_must_be_known(tmp_path):
    with pytest.raises(UserError, match="layer 'a' .X.: unknown field 'strange'"):
        _read(tmp_path, RULES, TRAIN)
    with pytest.raises(UserError, match="layer 'a': must have include rules or exclude rules"):
        _read(tmp_path, 'layer { name: "a" include { } exclude { } }', TRAIN)


def test_solver_reads_and_writes(tmp_path):
    path = tmp_path / "solver.prototxt"
    path.write_text('base_lr: 0.01 lr_policy: "poly" device_id: [0, 1] solver_mode: GPU '
                    'net_param { state { level: 3 } }')
    solver = read_solver(path)
    assert list(solver.device_id) == [0, 1]
    assert (solver.net_param.state.phase, solver.net_param.state.level) == (caffe_pb2.TRAIN, 3)
    write_prototxt(path, solver)
    assert "base_lr: 0.01\n" in path.read_text()
    assert read_solver(path) == solver


def test_prototxt_with_comments_of_another_encoding_is_read(tmp_path):
    text = "# réseau\nname: 'a#\\'b' # \"é\n"
    (tmp_path / "net.prototxt").write_bytes(text.encode("latin-1"))
    assert read_net(tmp_path / "net.prototxt").name == "a#'b"
    (tmp_path / "net.prototxt").write_bytes("name: 'é'".encode("latin-1"))
    with pytest.raises(UserError, match="byte 7 is no text"):
        read_net(tmp_path / "net.prototxt")


def test_list_of_messages_is_read(tmp_path):
    (tmp_path / "net.prototxt").write_text(
        "layer { name: 'a' param: [{ lr_mult: 1 }, < lr_mult: 2 >] bottom: ['x', 'z'] }")
    layers = read_net(tmp_path / "net.prototxt").layer
    assert [spec.lr_mult for spec in layers[0].param] == [1, 2]
    assert list(layers[0].bottom) == ["x", "z"]


@pytest.mark.parametrize("name", ["net_param", "train_net_param"])
def test_network_inside_a_solver_is_read(tmp_path, name):
    path = tmp_path / "train_val.prototxt"
    path.write_text(f'base_lr: 0.1\n{name} {{ name: "n" layers {{ name: "r" type: RELU }} }}\n')
    net = read_net(path)
    assert net.name == "n" and net.layer[0].type == "ReLU"
    path.write_text(f"base_lr: 0.1\n{name} {{ layer {{\nodd: 1 }} }}\n")
    with pytest.raises(UserError, match="train_val.prototxt:3: .*unknown field 'odd'"):
        read_net(path)
