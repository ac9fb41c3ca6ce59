"""The test protocol of the authors' later program."""

import numpy as np
import pytest
from helpers.golden import golden_files, read_golden
from helpers.networks import stand_in_net

from pspnet_repro.evaluation import Protocol, predict_probabilities, preset


@pytest.mark.parametrize("path", golden_files("protocol_semseg"))
def test_semseg_protocol_matches_golden(path):
    arrays = read_golden(path)
    sizes = {"base_size": int(arrays["base_size"]), "crop_size": int(arrays["crop_size"])}
    scales = arrays["scales"].tolist()
    image = arrays["image_rgb"]
    protocol = preset("semseg", **sizes, scales=scales)
    assert [protocol.scaled_size(*image.shape[:2], scale) for scale in scales] == [
        tuple(size) for size in arrays["scaled_sizes"].tolist()]
    prob = predict_probabilities(stand_in_net, image, classes=4, scales=scales, protocol="semseg",
                                 **sizes)
    np.testing.assert_allclose(prob, arrays["prob"], rtol=0, atol=1e-5)
    margin = np.sort(arrays["prob"], 2)
    sure = margin[..., -1] - margin[..., -2] > 2e-5
    assert (prob.argmax(2) == arrays["pred"])[sure].all()


def test_switches_of_a_preset_can_be_taken_back():
    protocol = preset("semseg", 64, 41, padding="end")
    assert protocol.padding == "end" and protocol.resize == "opencv" and not protocol.plus_one
    assert protocol.name == "semseg, padding end"
    assert preset("caffe", 64, 41) == Protocol(64, 41) and Protocol(64, 41).name == "caffe"
    assert Protocol(64, 41, stride=9).name == "caffe, stride 9"
    with pytest.raises(ValueError, match="protocol must be one of caffe, semseg, got 'mmseg'"):
        preset("mmseg", 64, 41)
    # What records of tests hold is as it was before there were presets.
    assert "resize" not in Protocol(64, 41).facts()
    assert Protocol(**preset("semseg", 64, 41).facts()) == preset("semseg", 64, 41)
