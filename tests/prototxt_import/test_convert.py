"""Original files into our networks: settings read, weights placed, bad input refused."""

import random
import re
import warnings

import numpy as np
import pytest
import torch
from helpers.golden import assert_same_bits, golden_files, read_golden
from helpers.import_files import (
    NSFW,
    assert_same_network,
    change_layer,
    seeded_weights,
    small_network,
    write_files,
)
from helpers.import_fuzz import mutate

from prototxt_import import convert, convert_backbone, export, load_net, write_caffemodel
from prototxt_import.__main__ import main
from prototxt_import.conversion.graph import Graph
from prototxt_import.conversion.miniature import MiniPSPNet
from prototxt_import.conversion.structure import read_parts
from pspnet_repro import PSPNet
from pspnet_repro.data.conventions import MEAN_BGR
from pspnet_repro.errors import UserError
from pspnet_repro.files import file_sha256
from pspnet_repro.model.caffe_names import caffe_names
from pspnet_repro.weights import model_file


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return small_network(tmp_path_factory.mktemp("files"))


@pytest.mark.slow
def test_pspnet50_matches_golden(shared, tmp_path):
    """With types and the auxiliary layers as in the released caffemodels."""
    arrays = read_golden(shared / "golden" / "net" / "pspnet50_ADE20K_473.npz")
    prototxt = shared / "prototxt" / "pspnet50_ADE20K_473.prototxt"
    with torch.device("meta"):
        net = load_net(prototxt)
    weights = {name: (f"{kind}Data", [blob.reshape(1, -1) for blob in blobs] if kind == "BN"
                      else blobs) for name, (kind, blobs) in seeded_weights(net, arrays).items()}
    weights["conv4_7"] = ("HoleConvolutionData", [np.full((256, 1024, 3, 3), 0.5, np.float32)])
    weights["conv4_7/bn"] = ("BNData", [np.full((1, 256, 1, 1), k, np.float32) for k in range(4)])
    weights["conv6_1"] = ("Convolution", [np.ones((150, 256, 1, 1), np.float32),
                                          np.zeros(150, np.float32)])
    write_caffemodel(tmp_path / "w.caffemodel", "pspnet50", weights)
    net = convert(prototxt, tmp_path / "w.caffemodel")
    assert net.settings == PSPNet(150, 50).settings
    assert net.auxiliary.conv.bn.running_var.tolist() == [3] * 256
    image = (arrays["image_bgr"].astype(np.float32) - MEAN_BGR).transpose(2, 0, 1)[None]
    with torch.inference_mode():
        logits = net.logits(torch.from_numpy(image))
        scores = torch.ops.pspnet.interp2d(logits, (473, 473), 0, 0)[0].numpy()
    error = np.abs(logits[0].numpy() - arrays["logits"]).max()
    assert error <= 2e-4 * np.abs(arrays["logits"]).max()
    clear = arrays["margin"] > 0.01
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(scores.argmax(0)[clear], arrays["argmax"][clear])


@pytest.mark.parametrize("name, settings", [
    ("pspnet101_VOC2012_473", (21, 101)), ("pspnet101_cityscapes_713", (19, 101))])
def test_settings_of_released_networks(shared, tmp_path, name, settings):
    """Without weights: everything is missing, and the first layers are named."""
    prototxt = shared / "prototxt" / f"{name}.prototxt"
    with torch.device("meta"):
        net = PSPNet(*settings, aux=False)
        read = PSPNet(**read_parts(Graph(prototxt)).settings)
    assert read.settings == net.settings
    write_caffemodel(tmp_path / "w.caffemodel", "x", {"a": ("Scale", [np.ones(2, np.float32)])})
    with pytest.raises(UserError, match=r"fits another network: 0 of 223 layers of .* match; it "
                                        "lacks conv1_1_3x3_s2, conv1_1_3x3_s2/bn, .* and 220 more, "
                                        "and has a$"):
        convert(prototxt, tmp_path / "w.caffemodel")


@pytest.mark.parametrize("path", golden_files("solver"))
def test_golden_caffemodels_become_the_final_parameters(path, tmp_path):
    arrays = read_golden(path)
    (tmp_path / "net.prototxt").write_text(str(arrays["net"]))
    net = convert(tmp_path / "net.prototxt", path.with_suffix(".caffemodel"))
    assert type(net) is MiniPSPNet and net.settings == MiniPSPNet(
        5, pool="max" if "max" in path.stem else "ave", dropout=0.0, variance="biased",
        stem_width=8, head_width=16, aux_width=8).settings
    last = max(int(name.split("/")[0][4:]) for name in arrays if name.startswith("step"))
    names = caffe_names(net)
    assert {f"step{last}/{layer}/0" for layer in names.values()} == {
        name for name in arrays if re.fullmatch(rf"step{last}/.*/0", name)}
    for module, layer in names.items():
        for k, tensor in enumerate(net.get_submodule(module).state_dict().values()):
            wanted = arrays[f"step{last}/{layer}/{k}"]
            assert_same_bits(tensor, wanted.reshape(tensor.shape))


def test_backbone_features_match_golden(shared):
    folder = shared / NSFW
    arrays = read_golden(folder / "golden.npz")
    net = convert_backbone(folder / "deploy.prototxt", folder / "resnet_50_1by2_nsfw.caffemodel")
    assert net.settings == {
        "blocks": (3, 4, 6, 3), "stem": "classic", "stem_width": 64, "widths": (32, 64, 128, 256),
        "strides": (1, 2, 2, 2), "dilations": (1, 1, 1, 1), "stride_in": "1x1", "pool_padding": 0}
    with torch.inference_mode():
        features = dict(zip(("eltwise_stage2_block5", "eltwise_stage3_block2"),
                            net(torch.from_numpy(arrays["data"]))))
    for k in range(4):
        pool, wanted = features["eltwise_stage3_block2"][k].mean((1, 2)), arrays[f"{k}/pool"]
        np.testing.assert_allclose(pool.numpy(), wanted, rtol=0, atol=1e-5 * wanted.max())
        for blob, tensor in features.items():
            values = tensor[k].numpy().ravel()
            picked = np.linspace(0, values.size - 1, 16).astype(np.int64)
            np.testing.assert_allclose(values[picked], arrays[f"{k}/sample/{blob}"], rtol=0,
                                       atol=1e-5 * np.abs(values).max())
            np.testing.assert_allclose(np.abs(values).mean(), arrays[f"{k}/mean_abs/{blob}"],
                                       rtol=1e-5)


def test_names_of_layers_do_not_matter(files, tmp_path):
    net, text, weights = files
    weights = {name: w for name, w in weights.items()
               if w.blobs and name not in ("conv4_2", "conv4_2/bn", "conv6_1")}
    names = {name: f"L{k}" for k, name in enumerate(weights)}
    text = re.sub(r'  name: "([^"]+)"', lambda m: f'  name: "{names.get(m[1], "x" + m[1])}"', text)
    again = convert(*write_files(tmp_path, text, {names[name]: w for name, w in weights.items()}))
    without = PSPNet(**{**net.settings, "aux": False, "aux_width": None})
    without.load_state_dict({name: tensor for name, tensor in net.state_dict().items()
                             if not name.startswith("auxiliary.")})
    assert_same_network(again, without)


def test_converted_files_compute_what_the_original_file_says(files, tmp_path):
    """CaffeNet and PSPNet on the same files."""
    _, text, weights = files
    paths = write_files(tmp_path, text, weights)
    x = torch.randn(1, 3, 89, 89) * 50
    with torch.inference_mode():
        wanted = load_net(*paths)(data=x)["conv6_interp"]
        scores = convert(*paths)(x)
    torch.testing.assert_close(scores, wanted, rtol=0, atol=1e-5 * wanted.abs().max().item())


def test_training_net_with_data_layers(files, tmp_path):
    """Its phase TRAIN counts; sizes are those of the data layer, bins may pool globally."""
    net, _, weights = files
    export(net, 89, tmp_path / "net.prototxt", tmp_path / "w.caffemodel", training={})
    text = (tmp_path / "train_val.prototxt").read_text()
    data = ('layer { name: "data" type: "ImageSegData" top: "data" top: "label" include { phase: %s'
            ' } transform_param { mirror: true crop_size: %d } image_data_param { batch_size: 2 '
            'label_type: PIXEL anything: "else" } }\n')
    text = data % ("TRAIN", 89) + data % ("TEST", 97) + text[text.index("layer {"):]
    text += ('layer { name: "accuracy" type: "Accuracy" bottom: "conv6" bottom: "label_shrink" '
             'top: "accuracy" include { phase: TEST } }')
    text = change_layer("conv5_1_pool1", "kernel_size: 12\n    stride: 12",
                        "global_pooling: true")(text)
    again = convert(*write_files(tmp_path, text, weights))
    assert_same_network(again, net)
    with pytest.raises(UserError, match="the size of input 'data' is not in the file"):
        convert(*write_files(tmp_path, text.replace("crop_size: 89", ""), weights))


def test_damaged_files_end_in_a_network_or_an_error(files, tmp_path):
    _, text, weights = files
    paths = write_files(tmp_path, text, weights)
    whole = [("net", paths[0].read_bytes()), ("weights", paths[1].read_bytes())]
    count = {"networks": 0, "errors": 0}
    for seed in range(200):
        draw = random.Random(seed)
        k = draw.randrange(2)
        paths[k].write_bytes(mutate(*whole[k], whole, draw))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                convert(*paths)
                count["networks"] += 1
            except UserError as error:
                assert "\n" not in str(error)
                count["errors"] += 1
        paths[k].write_bytes(whole[k][1])
    assert min(count.values()) >= 10


def test_convert_says_how_variances_are_counted(files, tmp_path):
    _, text, weights = files
    for change, variance in (
            (lambda t: t, "unbiased"), (lambda t: t.replace("frozen: true", "frozen: false"),
                                        "biased"),
            (lambda t: t.replace("frozen: true", "frozen: false\n    engine: CUDNN"), "torch"),
            (lambda t: t.replace('"BN"', '"SyncBN"').replace("frozen: true", ""), "unbiased")):
        net = convert(*write_files(tmp_path, change(text), weights))
        assert net.settings["variance"] == variance
    mixed = change_layer("conv5_2/bn", "frozen: true", "frozen: false")
    half = text.replace('"BN"', '"SyncBN"', 1)
    with pytest.raises(UserError, match="'conv5_2/bn' .*counts variances otherwise than"):
        convert(*write_files(tmp_path, mixed(half), weights))
    thawed = text.replace("frozen: true\n", "")
    assert net.settings.bn_momentum == 0.05
    assert convert(*write_files(tmp_path, thawed.replace("0.95", "0.9"),
                                weights)).settings.bn_momentum == 0.1
    with pytest.raises(UserError, match=r"has another momentum than .* \(0.9, 0.95\)"):
        convert(*write_files(tmp_path, thawed.replace("0.95", "0.9", 1), weights))


def test_convert_says_that_sync_bn_ignores_frozen(files, tmp_path, capsys):
    _, text, weights = files
    text = text.replace('"BN"', '"SyncBN"')
    paths = write_files(tmp_path, text, weights)
    assert main(["convert", *map(str, paths), "-o", str(tmp_path / "net.pt")]) == 0
    assert "SyncBN ignores frozen: true" in capsys.readouterr().err
    assert model_file.load_model(tmp_path / "net.pt").settings["variance"] == "unbiased"
    # Python prints a warning of the same words once in a process: another name.
    other = paths[0].rename(tmp_path / "other.prototxt")
    assert main(["inspect", str(other)]) == 0
    assert capsys.readouterr().err.count("SyncBN ignores frozen: true") == 1
    # What is ignored excuses nothing: it trains with that momentum.
    net = convert(*write_files(tmp_path, text.replace("0.95", "0.9"), weights))
    assert net.settings.bn_momentum == 0.1


def test_convert_command(files, tmp_path, capsys):
    net, text, weights = files
    paths = write_files(tmp_path, text, weights)
    for name in ("net.safetensors", "net.pth"):
        assert main(["convert", *map(str, paths), "-o", str(tmp_path / name)]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].split() == ["conv1_1_3x3_s2", "8x3x3x3", "backbone.stem.0.conv"]
        names = caffe_names(net)
        assert {tuple(line.split()[::2]) for line in lines[:len(names)]} == {
            (layer, module) for module, layer in names.items()}
        assert f"{len(names)} layers filled the network, 0 left out" in lines
        assert_same_network(model_file.load_model(tmp_path / name), net)
        origin = model_file.read_model_file(tmp_path / name)["origin"]
        assert origin["w.caffemodel"] == file_sha256(paths[1])
