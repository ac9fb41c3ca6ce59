"""Settings of a solver's file: its network, its type, what is refused and what is not followed."""

import warnings

import pytest
from helpers.import_files import IP_NET as NET
from helpers.import_files import solver_of as _solver

from pspnet_repro.errors import UserError


@pytest.mark.parametrize("text", [
    'train_net: "net.prototxt"',
    'train_net_param { %s }' % (NET % ""),
    'net_param { %s layer { name: "a" type: "Accuracy" include { phase: TEST } odd: 1 } } '
    'test_net_param { what: 1 } test_iter: 3' % (NET % "")], ids=["file", "train", "both"])
def test_solver_finds_its_network(tmp_path, text):
    solver = _solver(tmp_path, text + ' base_lr: 1 lr_policy: "fixed"')
    assert list(solver.net.params) == ["ip"]
    assert solver.net.training_phase


def test_train_state_chooses_layers(tmp_path):
    net = (NET % "").replace('type: "InnerProduct"',
                             'type: "InnerProduct" include { stage: "deep" min_level: 2 }', 1)
    text = 'net: "net.prototxt" base_lr: 1 lr_policy: "fixed" train_state { stage: "deep" %s }'
    assert list(_solver(tmp_path, text % "level: 2", net).net.params) == ["ip"]
    with pytest.raises(UserError, match="no parameter learns"):
        _solver(tmp_path, text % "level: 1", net)


@pytest.mark.parametrize(("text", "message"), [
    ('net: "net.prototxt"', "lr_policy must be one of fixed, .* got ''"),
    ('net: "net.prototxt" lr_policy: "fixed"', "needs base_lr"),
    ('lr_policy: "fixed" base_lr: 1', "needs just one of net, net_param, train_net"),
    ('net: "no.prototxt" lr_policy: "fixed" base_lr: 1', "no.prototxt: no such file"),
    (f'net: "{"a" * 5000}" lr_policy: "fixed" base_lr: 1', "cannot be read: .*too long"),
    (r'net: "a\0b" lr_policy: "fixed" base_lr: 1', "cannot be read: embedded null"),
    ('net: "net.prototxt" lr_policy: "step" base_lr: 1 gamma: 1', "'step' needs stepsize"),
    ('net: "net.prototxt" lr_policy: "poly" base_lr: 1 power: 1 max_iter: 0',
     "max_iter must be at least 1, got 0"),
    ('net: "net.prototxt" lr_policy: "fixed" base_lr: 1 type: "adam"',
     "type must be one of SGD, Nesterov, AdaGrad, RMSProp, AdaDelta, Adam, got 'adam'"),
    ('net: "net.prototxt" lr_policy: "fixed" base_lr: 1 type: "SGD" solver_type: NESTEROV',
     "must have type or the older solver_type, got both"),
    ('net: "net.prototxt" lr_policy: "fixed" base_lr: 1 type: "AdaGrad" momentum: 0.9',
     "momentum cannot be used with AdaGrad, got 0.9"),
    ('net: "net.prototxt" lr_policy: "fixed" base_lr: 1 type: "RMSProp" rms_decay: 1',
     "rms_decay must be 0 to below 1, got 1.0"),
    ('net: "net.prototxt" lr_policy: "fixed" base_lr: 1 type: "Adam" momentum2: 1',
     "momentum2 of Adam must be 0 to below 1, got 1.0"),
    ('net: "net.prototxt" lr_policy: "fixed" base_lr: 1 regularization_type: "L0"',
     "regularization_type must be L1 or L2, got 'L0'"),
    ('net: "net.prototxt" lr_policy: "fixed" base_lr: 1 weights: "a.caffemodel"',
     "remove the field and call solver.net.load_weights"),
    ('net: "net.prototxt" lr_policy: "fixed" base_lr: nan', "base_lr must be finite"),
    ('net: "net.prototxt" lr_policy: "fixed" base_lr: 1 iter_size: 0', "iter_size must be at"),
    ('net: "${EXP}/net.prototxt" base_lr: 1 lr_policy: "fixed"',
     "solver.prototxt: is a template: replace .{EXP} by values: sed -e 's/.{EXP}/VALUE/g'"),
    ('net: "net.prototxt"\nbas_lr: 1', r"solver.prototxt:2: unknown field 'bas_lr'"),
    ('net: "net.prototxt"\nplateau_winsize: 1', "it may change the training; remove it if"),
    ('net: "sub/no.prototxt" lr_policy: "fixed" base_lr: 1', r"solver.prototxt: its net "
     r"sub/no.prototxt: no such file beside the solver \(.*/sub/no.prototxt\) nor in the working "
     r"directory \(.*/sub/no.prototxt\): put it there")])
def test_solver_rejects_bad_settings(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        _solver(tmp_path, text)


def test_fields_that_are_not_followed_are_said(tmp_path):
    text = 'net: "net.prototxt" lr_policy: "fixed" base_lr: 1 '
    with pytest.warns(UserWarning, match="solver.prototxt: display, snapshot_prefix: not foll"):
        _solver(tmp_path, text + 'snapshot_prefix: "a" display: 20')
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _solver(tmp_path, text)


@pytest.mark.parametrize("old, new", [("SGD", "SGD"), ("NESTEROV", "Nesterov"),
                                      ("ADAGRAD", "AdaGrad"), ("RMSPROP", "RMSProp"),
                                      ("ADADELTA", "AdaDelta"), ("ADAM", "Adam")])
def test_old_solver_types_are_upgraded(tmp_path, old, new):
    solver = _solver(tmp_path, f'net: "net.prototxt" base_lr: 1 lr_policy: "fixed" '
                               f'solver_type: {old}')
    assert solver.type == new
