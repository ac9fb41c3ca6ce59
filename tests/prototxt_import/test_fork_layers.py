"""Layers of other programs than Caffe: Python code and files that are written."""

import pytest
import torch
from helpers.caffe_layers import build, layer


def _spatial_dropout(phase):
    fields = str({"phase": phase, "p": "0.5"}).replace("'", "\\'")
    return layer("Python", 'python_param { module: "spatial_dropout" layer: "SpatialDropoutLayer" '
                 f'param_str: "{fields}" }}')


def test_spatial_dropout_drops_whole_channels(tmp_path):
    x = torch.ones(5, 40, 2, 3)
    y = build(tmp_path, _spatial_dropout("TRAIN"), [x.shape])(x=x)["y"]
    assert set(y.flatten().tolist()) == {0, 2}
    assert (y == y[:, :, :1, :1]).all() and not (y == y[:1]).all()
    # Its own phase counts, in which it divides too.
    assert (build(tmp_path, _spatial_dropout("TEST"), [x.shape])(x=x)["y"] == 2).all()


def test_layers_that_write_files_are_left_out(tmp_path):
    text = layer("ReLU") + ('layer { name: "w" type: "MatWrite" bottom: "y" include { phase: TEST }'
                            ' mat_write_param { prefix: "p" source: "s" } }')
    with pytest.warns(UserWarning, match=r"layer 'w' \(MatWrite\) is left out: it writes a file "
                                         "of y"):
        net = build(tmp_path, text, [(1, 2)], "TEST")
    assert list(net(x=[[1.0, -1]])) == ["y"]
