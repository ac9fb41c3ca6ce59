"""Options of ports' networks in Caffe's files."""

import numpy as np
import pytest
import torch
from helpers.image_files import photograph
from helpers.import_files import MINI, assert_same_network, drawn

from prototxt_import import convert, export, load_net
from pspnet_repro import PSPNet
from pspnet_repro.errors import UserError
from pspnet_repro.model.settings import MEAN_BGR

# What ports compute otherwise, and Caffe can too.
OTHERS = {"input_order": "rgb", "input_mean": (123.675, 116.28, 103.53),
          "input_std": (58.395, 57.12, 57.375), "contract_dilation": True}


@pytest.mark.parametrize("blocks", [(1, 1, 1, 1), (1, 1, 2, 2)])
@pytest.mark.parametrize("training", [None, {}])
def test_the_options_of_ports_are_exported(tmp_path, blocks, training):
    """The blob data is the scripts': BGR minus the original's mean."""
    image = photograph(89, 89)
    settings = {**MINI, **OTHERS, "blocks": blocks}
    net = drawn(PSPNet(3, 50, **settings))
    paths = tmp_path / "net.prototxt", tmp_path / "w.caffemodel"
    export(net, 89, *paths, training=training)
    data = torch.from_numpy((image[..., ::-1] - np.float32(MEAN_BGR)).transpose(2, 0, 1))
    original = load_net(*paths)
    with torch.inference_mode():
        wanted = net(net.prepare(image))
        original(data=data[None])
    got = original.blobs["conv6_interp"]
    assert (got - wanted).abs().max() <= 1e-5 * wanted.abs().max()
    again = convert(*paths)
    if max(blocks) > 1:
        assert_same_network(again, net)
    else:  # a stage of one bottleneck does not tell
        assert again.settings.input_std == net.settings.input_std


def test_half_pixel_centres_are_no_caffe_network(tmp_path):
    with pytest.raises(UserError, match="half-pixel centres .* cannot be exported to Caffe's"):
        export(PSPNet(3, 50, **MINI, align_corners=False), 89, tmp_path / "a", tmp_path / "b")
