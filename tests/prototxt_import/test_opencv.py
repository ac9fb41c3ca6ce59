"""Whole networks against the values of another program: OpenCV's reader of Caffe's files."""

import pytest
import torch
from helpers.golden import read_golden
from helpers.opencv_nets import PROTOTXTS, write_drawn

from prototxt_import import load_net
from prototxt_import.commands.work.recorded import deviations


@pytest.mark.parametrize("arithmetic", ["original", "torch"])
@pytest.mark.parametrize("prototxt", PROTOTXTS, ids=lambda path: path.stem)
def test_network_matches_opencv(prototxt, arithmetic, tmp_path):
    caffemodel = tmp_path / "w.caffemodel"
    data = write_drawn(prototxt, caffemodel)
    arrays = read_golden(prototxt.with_suffix(".npz"))
    net = load_net(prototxt, caffemodel, arithmetic=arithmetic)
    with torch.inference_mode():
        net(data=data)
    errors = deviations(net.blobs, arrays)
    assert errors.keys() == {name[len("sample/"):] for name in arrays
                             if name.startswith("sample/")}
    assert max(errors.values()) <= 1e-5, errors
