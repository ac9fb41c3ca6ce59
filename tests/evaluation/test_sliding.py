"""Windows in batches, both paths to the canvas, and every switch of the protocol."""

import re
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.image_files import photograph
from helpers.networks import stand_in_net, tiny_net
from helpers.paths import ROOT

from pspnet_repro import PSPNet
from pspnet_repro.data.conventions import MEAN_BGR
from pspnet_repro.evaluation import (
    Protocol,
    imresize,
    predict_probabilities,
    predict_stream,
    sliding,
)


class Recorder:
    """A callable of full-size scores that remembers what it was given."""

    def __init__(self, net=stand_in_net):
        self.net = net
        self.seen = []

    def __call__(self, x):
        self.seen.append(x.clone())
        return self.net(x)


@pytest.mark.parametrize("rows, cols, scales", [(70, 89, (1.0,)), (130, 60, (1.0,)),
                                                (100, 190, (0.5, 1.0, 1.75))])
@pytest.mark.parametrize("flip", [True, False])
def test_both_paths_agree(rows, cols, scales, flip):
    net = tiny_net()
    arguments = dict(classes=4, base_size=150, crop_size=89, scales=scales, flip=flip)
    fast = predict_probabilities(net, photograph(rows, cols), **arguments)
    slow = predict_probabilities(lambda x: net(x), photograph(rows, cols), **arguments)
    # The same logits; interpolation and softmax round differently.
    np.testing.assert_allclose(fast, slow, rtol=0, atol=2e-6)
    np.testing.assert_allclose(fast.sum(2), 1, rtol=0, atol=2e-6)
    assert np.ptp(fast.reshape(-1, 4), axis=0).max() > 0.05


@pytest.mark.parametrize("batch_size", [1, 2, 7, 100])
def test_batches_do_not_change_the_result(batch_size):
    image = photograph(100, 190)
    arguments = dict(classes=4, base_size=180, crop_size=89, scales=(0.5, 1.0))
    # The stand-in treats every window alike, whatever its batch; only einsum's order may differ.
    np.testing.assert_allclose(
        predict_probabilities(stand_in_net, image, batch_size=batch_size, **arguments),
        predict_probabilities(stand_in_net, image, batch_size=3, **arguments), rtol=0, atol=1e-6)


def test_any_module_is_a_network():
    """Its mode and what its attributes are called do not matter."""
    net = torch.nn.Conv2d(3, 4, 1)
    assert net.training and net.stride == (1, 1)
    image = photograph(30, 50)
    probabilities = predict_probabilities(net, image, classes=4, base_size=49, crop_size=57,
                                          whole_image=True)
    pixels = torch.from_numpy(image[:, :, ::-1].astype(np.float32) - MEAN_BGR).permute(2, 0, 1)
    wanted = torch.softmax(2 * net(pixels[None]), 1)[0].permute(1, 2, 0)
    # Scores reach 300: float32 places them to 3e-5.
    np.testing.assert_allclose(probabilities, wanted.detach(), rtol=0, atol=1e-4)


def test_several_images_fill_one_batch():
    images = [photograph(89, 70, seed) for seed in range(5)] + [photograph(60, 130, 9)]
    protocol = Protocol(88, 89)
    net = Recorder()
    results = list(predict_stream(net, images, classes=4, protocol=protocol, batch_size=4))
    # Windows and as many mirror images: five images of one window, one of one.
    assert [len(x) for x in net.seen] == [8, 4]
    for image, result in zip(images, results, strict=True):
        single = predict_probabilities(stand_in_net, image, classes=4, base_size=88, crop_size=89)
        np.testing.assert_allclose(result.permute(1, 2, 0), single, rtol=0, atol=1e-6)


def test_predict_stream_reads_images_as_it_goes():
    read = []

    def images():
        for k in range(6):
            read.append(k)
            yield photograph(40, 40, k)

    stream = predict_stream(stand_in_net, images(), classes=4, protocol=Protocol(40, 41),
                            batch_size=2)
    next(stream)
    # The first batch, the window after it, and the image that is resized meanwhile.
    assert read == [0, 1, 2, 3]


def test_an_image_is_resized_while_the_network_sees_the_one_before(monkeypatch):
    resizes, waits = threading.Event(), []

    def resize(image, size, antialias):
        if image.shape[0] == 41:
            resizes.set()
        return imresize(image, size, antialias)

    def net(x):
        waits.append(resizes.wait(60))
        return stand_in_net(x)

    monkeypatch.setattr(sliding, "imresize", resize)
    images = [photograph(rows, 60) for rows in (40, 40, 41)]
    assert len(list(predict_stream(net, images, classes=4, protocol=Protocol(60, 61),
                                   batch_size=1))) == 3
    assert waits == [True] * 3


def _seen(image, **settings):
    """What a network is shown of an image, without mirror images, as one batch."""
    net = Recorder()
    predict_probabilities(net, image, classes=4, flip=False, batch_size=100, **settings)
    return net.seen[0]


def test_small_images_are_bordered_by_the_mean():
    x = _seen(photograph(40, 60), base_size=59, crop_size=81)
    assert x.shape == (1, 3, 81, 81)
    assert not x[..., 40:, :].any() and not x[..., 60:].any() and x[..., :40, :60].all()


def test_large_images_are_bordered_by_the_rounded_mean():
    x = _seen(photograph(40, 120), base_size=119, crop_size=81)
    assert x.shape == (2, 3, 81, 81)
    border = torch.tensor([104.0, 117, 124]) - torch.from_numpy(MEAN_BGR)
    assert (x[:, :, 40:] == border[:, None, None]).all()


def test_switch_plus_one():
    assert Protocol(512, 473).scaled_size(300, 400, 1.5) == (577, 769)
    assert Protocol(512, 473, plus_one=False).scaled_size(300, 400, 1.5) == (576, 768)


def test_switch_padding():
    x = _seen(photograph(40, 60), base_size=59, crop_size=81, padding="centre")
    end = _seen(photograph(40, 60), base_size=59, crop_size=81)
    assert torch.equal(x[..., 20:60, 10:70], end[..., :40, :60])
    x[..., 20:60, 10:70] = 0
    assert not x.any()
    # A net that tells where it is: the result must be cut at the same place.
    image = np.full((40, 60, 3), 120, np.uint8)
    centred = predict_probabilities(stand_in_net, image, classes=4, base_size=59, crop_size=81,
                                    flip=False, padding="centre")
    whole = torch.zeros(1, 3, 81, 81)
    whole[..., 20:60, 10:70] = 120 - torch.from_numpy(MEAN_BGR)[:, None, None]
    wanted = torch.softmax(stand_in_net(whole), 1)[0, :, 20:60, 10:70].permute(1, 2, 0)
    np.testing.assert_allclose(centred, wanted, rtol=0, atol=1e-6)


def test_switch_padding_agrees_on_both_paths():
    net = tiny_net()
    arguments = dict(classes=4, base_size=129, crop_size=89, padding="centre")
    image = photograph(50, 130)
    fast = predict_probabilities(net, image, **arguments)
    slow = predict_probabilities(lambda x: net(x), image, **arguments)
    np.testing.assert_allclose(fast, slow, rtol=0, atol=2e-6)
    assert np.abs(fast - predict_probabilities(net, image, **arguments | {"padding": "end"})
                  ).max() > 1e-3


def test_switch_stride():
    assert Protocol(512, 97, stride=97).window_starts(200, 97) == [0, 97, 103]
    assert Protocol(512, 97, stride=30).window_starts(161, 97) == [0, 30, 60, 64]
    assert len(_seen(photograph(81, 160), base_size=159, crop_size=81, stride=20)) == 5
    assert len(_seen(photograph(81, 160), base_size=159, crop_size=81)) == 3


def test_switch_whole_image():
    x = _seen(photograph(100, 160), base_size=159, crop_size=81, whole_image=True)
    assert x.shape == (1, 3, 105, 161)
    assert not x[..., 100:, :].any() and not x[..., 160:].any()
    assert x[..., :100, :160].abs().amin() > 0
    assert Protocol(512, 473, whole_image=True).window_size(3, 513) == (41, 513)


def test_switch_antialias():
    ramp = np.array([[0.0, 1.0, 2.0, 3.0]])
    np.testing.assert_allclose(imresize(ramp, (1, 2), antialias=False), [[0.5, 2.5]])
    np.testing.assert_allclose(imresize(ramp, (1, 2)), [[0.625, 2.375]])
    noise = np.random.default_rng(0).integers(0, 256, (160, 160, 3), np.uint8)
    plain = _seen(noise, base_size=80, crop_size=81, antialias=False)
    filtered = _seen(noise, base_size=80, crop_size=81)
    # Twice as small: without a filter a pixel is a mean of 4, with it a wider weighted mean.
    assert plain.std() > 1.2 * filtered.std()


def test_switch_merge():
    image = photograph(81, 81)
    x = _seen(image, base_size=80, crop_size=81)
    once, mirrored = stand_in_net(x)[0], stand_in_net(x.flip(3))[0].flip(2)
    for merge, wanted in (
            ("logits", torch.softmax(once + mirrored, 0)),
            ("probabilities", (torch.softmax(once, 0) + torch.softmax(mirrored, 0)) / 2)):
        actual = predict_probabilities(stand_in_net, image, classes=4, base_size=80, crop_size=81,
                                       merge=merge)
        np.testing.assert_allclose(actual, wanted.permute(1, 2, 0), rtol=0, atol=1e-6)


def test_switch_align_corners():
    net, image = tiny_net(), photograph(89, 89)
    x = _seen(image, base_size=88, crop_size=89)
    with torch.no_grad():
        logits = net.logits(x)
    for align, wanted in ((True, net(x)), (False, F.interpolate(logits, (89, 89), mode="bilinear",
                                                                align_corners=False))):
        actual = predict_probabilities(net, image, classes=4, base_size=88, crop_size=89,
                                       flip=False, align_corners=align)
        wanted = torch.softmax(wanted, 1)[0].permute(1, 2, 0).detach()
        # 89 pixels at +-150 lead to logits of order 1 that depend on the batch in the sixth digit.
        np.testing.assert_allclose(actual, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("field, words", [
    ({"merge": "max"}, 'merge must be "logits" or "probabilities", got \'max\''),
    ({"padding": "left"}, 'padding must be "end" or "centre", got \'left\''),
    ({"stride": 98}, "stride must be 1 to crop_size 97, got 98"),
    ({"stride": 0}, "stride must be 1 to crop_size 97, got 0"),
])
def test_protocol_rejects(field, words):
    with pytest.raises(ValueError, match=words):
        Protocol(512, 97, **field)


def test_predict_stream_rejects():
    image, arguments = photograph(9, 9), dict(classes=4, base_size=9, crop_size=9)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        predict_probabilities(stand_in_net, image, **arguments, batch_size=0)
    with pytest.raises(ValueError, match="align_corners must be True for a network without"):
        predict_probabilities(stand_in_net, image, **arguments, align_corners=False)
    with pytest.raises(ValueError, match=r"net must be in eval mode: call .eval\(\)"):
        predict_probabilities(tiny_net().train(), image, **arguments)
    with pytest.raises(ValueError, match=r"net must return \(N, 4, 9, 9\) for N = 8, got \(1, 4"):
        predict_probabilities(lambda x: stand_in_net(x)[:1], image, **arguments)
    with pytest.raises(ValueError, match=r"net must return \(N, 5, "):
        predict_probabilities(tiny_net(), photograph(41, 41), classes=5, base_size=40, crop_size=41)


@pytest.mark.slow
def test_memory_of_a_street_at_six_scales():
    run = subprocess.run([sys.executable, "-m", "experiments.bench.memory"], capture_output=True,
                         text=True, check=True, cwd=ROOT)
    gibibytes = float(re.search(r"([0-9.]+) GiB", run.stdout)[1])
    # The largest canvas is 1793 x 3585 x 19 float32, 0.45 GiB; the result 0.15, twice.
    assert 0.5 < gibibytes < 2


@pytest.mark.parametrize("deviation", [{}, {"merge": "probabilities"}, {"align_corners": False},
                                       {"whole_image": True}], ids=str)
def test_probabilities_stay_on_the_networks_device(deviation):
    """Nothing can be copied out of the meta device: what comes after the network stays there."""
    with torch.device("meta"):
        net = PSPNet(5, width=0.125, stem_width=4, blocks=(1, 1, 1, 1), head="literal").eval()
    protocol = Protocol(128, 89, (0.5, 1.0, 1.5), **deviation)
    probabilities, = predict_stream(net, [photograph(120, 97)], classes=5, protocol=protocol)
    assert probabilities.device.type == "meta" and probabilities.shape == (5, 120, 97)
