"""Whole networks through CaffeNet against the original's values, and the commands."""

import numpy as np
import pytest
import torch
from helpers.golden import read_golden
from helpers.import_files import NSFW, seeded_weights

from prototxt_import import load_net, read_caffemodel, write_caffemodel
from prototxt_import.__main__ import main
from prototxt_import.commands.work.recorded import deviations, recorded_items
from pspnet_repro.data.conventions import MEAN_BGR
from pspnet_repro.errors import UserError


@pytest.mark.slow
def test_pspnet50_matches_golden(shared, tmp_path):
    arrays = read_golden(shared / "golden" / "net" / "pspnet50_ADE20K_473.npz")
    prototxt = shared / "prototxt" / "pspnet50_ADE20K_473.prototxt"
    weights = seeded_weights(load_net(prototxt), arrays)
    caffemodel = tmp_path / "w.caffemodel"
    write_caffemodel(caffemodel, "pspnet50", weights)
    net = load_net(prototxt, caffemodel)
    image = (arrays["image_bgr"].astype(np.float32) - MEAN_BGR).transpose(2, 0, 1)[None]
    with torch.inference_mode():
        scores = net(data=image)["conv6_interp"][0].numpy()
    logits = net.blobs["conv6"][0].numpy()
    assert np.abs(logits - arrays["logits"]).max() <= 2e-4 * np.abs(arrays["logits"]).max()
    clear = arrays["margin"] > 0.01
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(scores.argmax(0)[clear], arrays["argmax"][clear])
    errors = deviations(net.blobs, arrays)
    recorded = {name[len("sample/"):] for name in arrays if name.startswith("sample/")}
    assert errors.keys() == {name for name in recorded if "_split_" not in name}
    # The original itself moves by 3e-5 with its number of threads.
    assert max(errors.values()) <= 1e-4, errors


@pytest.fixture(scope="module")
def nsfw(shared):
    folder = shared / NSFW
    arrays = read_golden(folder / "golden.npz")
    net = load_net(folder / "deploy.prototxt", folder / "resnet_50_1by2_nsfw.caffemodel")
    with torch.inference_mode():
        outputs = net(data=arrays["data"])
    return net, outputs, arrays


def test_trained_network_matches_golden(nsfw):
    net, outputs, arrays = nsfw
    items = recorded_items(arrays)
    assert items == {k: f"{k}/" for k in range(4)}
    for k, prefix in items.items():
        errors = deviations(net.blobs, arrays, k, prefix)
        recorded = {name[len(prefix + "sample/"):] for name in arrays
                    if name.startswith(prefix + "sample/")}
        assert errors.keys() == {name for name in recorded if "_split_" not in name}
        assert max(errors.values()) <= 1e-5, errors
        pool = net.blobs["pool"][k].flatten().numpy()
        np.testing.assert_allclose(pool, arrays[f"{k}/pool"], rtol=0,
                                   atol=1e-5 * arrays[f"{k}/pool"].max())
        # Relative to the larger one: the smaller is the exponential of a score that is off by up
        # to 1e-6 of its size, about 10.
        np.testing.assert_allclose(outputs["prob"][k].numpy(), arrays[f"{k}/prob"][0], rtol=0,
                                   atol=1e-5 * arrays[f"{k}/prob"].max())


def test_weights_of_a_trained_network_are_read_in_place(shared):
    weights = read_caffemodel(shared / NSFW / "resnet_50_1by2_nsfw.caffemodel")
    kind, blobs = weights["conv_1"]
    assert kind == "Convolution" and [b.shape for b in blobs] == [(64, 3, 7, 7), (64,)]
    assert not blobs[0].flags.owndata


def test_network_takes_other_sizes(nsfw):
    net, _, arrays = nsfw
    with torch.inference_mode():
        net(data=arrays["data"][:1])
    assert net.blobs["conv_1"].shape == (1, 64, 112, 112)
    with torch.inference_mode():
        # 224 and 218 pixels both leave 7 x 7 for the last pooling.
        net(data=torch.zeros(2, 3, 218, 224))
    assert net.blobs["conv_1"].shape == (2, 64, 109, 112)
    with pytest.raises(UserError, match=r"layer 'fc_nsfw' \(InnerProduct\): these inputs need "
                                        r"blob 0 to be \(2, 2048\), it is \(2, 1024\)"):
        net(data=torch.zeros(1, 3, 230, 224))


def _nsfw_files(shared):
    folder = shared / NSFW
    return [str(folder / "deploy.prototxt"), str(folder / "resnet_50_1by2_nsfw.caffemodel")]


def test_inspect_prints_a_table(shared, capsys):
    assert main(["inspect", *_nsfw_files(shared)]) == 0
    lines = capsys.readouterr().out.splitlines()
    first = next(line.split() for line in lines if line.startswith("conv_1 "))
    assert first == ["conv_1", "Convolution", "1x64x112x112", "64x3x7x7", "64", "9,472",
                     f"{64 * 112 * 112 * 3 * 49:,}", "data", "conv_1"]
    assert lines[-2].startswith("total") and "5,944,567" in lines[-2]
    assert lines[-1].endswith("nsfw.caffemodel fits; layers of it that the network lacks: none")


def test_inspect_counts_released_network(shared, capsys):
    assert main(["inspect", str(shared / "prototxt" / "pspnet50_ADE20K_473.prototxt")]) == 0
    total = capsys.readouterr().out.splitlines()[-1].split()
    assert total[:3] == ["total", "205", "layers"]
    # 162 GMAC, 46.8 million numbers with the statistics.
    assert total[3:] == ["46,841,174", "161,528,775,872"]


def test_run_compares_and_writes(shared, tmp_path, capsys):
    output = tmp_path / "blobs.npz"
    golden = str(shared / NSFW / "golden.npz")
    assert main(["run", *_nsfw_files(shared), "--compare", golden, "--tolerance", "1e-5",
                 "-o", str(output), "--blobs", "prob,pool"]) == 0
    assert "all 296 recorded blobs agree" in capsys.readouterr().out
    blobs = read_golden(output)
    assert {name: blob.shape for name, blob in blobs.items()} == {"prob": (4, 2),
                                                                  "pool": (4, 1024, 1, 1)}


def test_run_names_the_first_blob_that_deviates(shared, tmp_path, capsys):
    prototxt, caffemodel = _nsfw_files(shared)
    weights = dict(read_caffemodel(caffemodel))
    kind, (scale, bias) = weights["scale_stage1_block0_branch2b"]
    weights["scale_stage1_block0_branch2b"] = (kind, [scale * 1.01, bias])
    damaged = tmp_path / "w.caffemodel"
    write_caffemodel(damaged, "damaged", weights)
    assert main(["run", prototxt, str(damaged), "--compare",
                 str(shared / NSFW / "golden.npz")]) == 1
    said = capsys.readouterr().err
    assert "image 0: the first blob that deviates is 'conv_stage1_block0_branch2b'" in said
    assert said.count("\n") == 1
