"""The one object of a network's arguments: types, short forms, the mapping, and files of it."""

import dataclasses
import hashlib
import inspect
import io
import json

import numpy as np
import pytest
import safetensors
import torch
from helpers.import_files import MINI, drawn

from prototxt_import.__main__ import main as convert_main
from prototxt_import.conversion.miniature import MiniPSPNet
from pspnet_repro import PSPNet
from pspnet_repro.errors import UsageError, UserError
from pspnet_repro.model.resnet import ResNet
from pspnet_repro.model.settings import BLOCKS, BackboneSettings, NetworkSettings
from pspnet_repro.training.initial_weights import Structure, with_structure
from pspnet_repro.weights import model_file


@pytest.mark.parametrize("name, value, rule", [
    ("classes", "4", "a whole number, got '4'"), ("classes", True, "a whole number, got 'True'"),
    ("classes", None, "a whole number, got 'None'"), ("head_width", 2.0, "a whole number"),
    ("dropout", float("nan"), "a finite number, got 'nan'"), ("dropout", "0", "a finite number"),
    ("initial_running_var", float("inf"), "a finite number"), ("aux", 1, "true or false, got '1'"),
    ("spatial_dropout", None, "true or false"), ("pool", ["ave"], "text"), ("head", None, "text"),
    ("stride_in", 1, "text"), ("bins", 3, "a list of whole numbers, got '3'"),
    ("bins", "12", "a list of whole numbers"), ("blocks", (1, 1.5, 1, 1), "a list of whole num"),
    ("strides", (True, 2, 1, 1), "a list of whole numbers")])
def test_arguments_are_of_their_annotations_types(name, value, rule):
    with pytest.raises(TypeError, match=f"^{name} must be {rule}"):
        PSPNet(**{"classes": 3, name: value})


@pytest.mark.parametrize("settings, arguments", [
    (NetworkSettings, {"classes": 3}), (BackboneSettings, {"blocks": (1, 1, 1, 1)})])
def test_every_argument_is_checked(settings, arguments):
    """Nothing is of every type: an annotation that no rule knows would pass."""
    for name in settings.arguments():
        with pytest.raises((TypeError, ValueError), match=f"^{name} must be "):
            settings(**{**arguments, name: object()})
        assert settings.wrong_type({name: object()})[0] == name


def test_settings_are_a_mapping_of_the_arguments_that_make_the_network_again():
    settings = NetworkSettings(3, 101, width=0.5, initial_running_var=0.0)
    assert settings == NetworkSettings(3, blocks=list(BLOCKS[101]), widths=[32, 64, 128, 256],
                                       stride_in="3x3")
    assert len(settings) == len(dict(settings)) == (
            len(dataclasses.fields(settings)) - 1 - len(NetworkSettings.OTHERS))
    assert "depth" not in settings and "initial_running_var" not in settings
    assert NetworkSettings(**settings) == settings == dict(settings)
    with pytest.raises(KeyError):
        settings["pool_padding"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.classes = 4


def test_networks_show_the_signature_of_their_settings():
    names = list(inspect.signature(PSPNet).parameters)
    assert names[:6] == ["classes", "depth", "bins", "pool", "reduce", "aux"]
    assert names == list(NetworkSettings.arguments())
    assert "pool_padding" not in names
    with pytest.raises(TypeError, match="unexpected keyword argument 'pool_padding'"):
        PSPNet(3, pool_padding=1)


@pytest.mark.parametrize("network, digest", [
    (lambda: PSPNet(4, **MINI), "1e1eb4aadfcbb5d4"),
    (lambda: ResNet(blocks=(1, 1, 1, 1), stem_width=8, widths=(8, 16, 32, 64)),
     "00556460ff134223")],
    ids=["pspnet", "backbone"])
def test_files_keep_their_bytes(network, digest):
    """Trainings are named by the digests of files like these."""
    net = network()
    with torch.no_grad():
        for tensor in net.state_dict().values():
            tensor.zero_()
    file = io.BytesIO()
    model_file.model_writer("x.safetensors", net)(file)
    data = file.getvalue()
    assert hashlib.sha256(data).hexdigest()[:16] == digest


def test_requests_out_of_range_are_refused_beside_a_structure():
    structure = Structure("b.pt", "0", {"stem": "deep", "widths": (8, 16, 32, 64)})
    for request, words in (({"width": 99}, "width must be at most 8 and leave a channel of 64"),
                           ({"depth": 34}, "depth must be one of 50, 101, 152, 269, got 34"),
                           ({"bins": "12"}, "bins must be a list of whole numbers, got '12'"),
                           ({"width": 0.5}, r"width must be that of widths \(8, 16, 32, 64\), for "
                                            r"which the .* b.pt were made, got 0.5: leave")):
        with pytest.raises(UsageError, match=words):
            with_structure({"classes": 3, **request}, structure)


def test_the_miniatures_files_are_the_importers(tmp_path):
    net = drawn(MiniPSPNet(3, stem_width=4, bins=(1, 2)))
    path = tmp_path / "mini.safetensors"
    model_file.save_model(path, net, crop_size=57)
    with safetensors.safe_open(path, "pt") as file:
        settings = json.loads(file.metadata()["settings"])
    assert settings["backbone"] == "mini" and "blocks" not in settings
    with pytest.raises(UserError, match="mini.safetensors: weights and settings do not fit: "
                                        'backbone must be "resnet", got \'mini\': .*convert$'):
        model_file.load_model(path)
    files = [str(tmp_path / name) for name in ("n.prototxt", "w.caffemodel")]
    assert convert_main(["export", str(path), "-o", *files]) == 0
    assert convert_main(["convert", *files, "-o", str(tmp_path / "again.safetensors")]) == 0
    with safetensors.safe_open(tmp_path / "again.safetensors", "pt") as file:
        assert json.loads(file.metadata()["settings"]) == settings
        for name, tensor in net.state_dict().items():
            assert torch.equal(file.get_tensor(name), tensor)


def test_numbers_of_numpy_are_numbers():
    plain = PSPNet(4, 50, (1, 2), blocks=(1, 1, 1, 1), width=0.125, stem_width=8, dropout=0.5)
    numpys = PSPNet(np.int64(4), np.int32(50), np.array([1, 2]), blocks=list(np.ones(4, int)),
                    width=np.float64(0.125), stem_width=np.uint8(8), dropout=np.float32(0.5))
    assert json.dumps(dict(numpys.settings)) == json.dumps(dict(plain.settings))
    with pytest.raises(TypeError, match="classes must be a whole number, got '4.0'"):
        PSPNet(np.float64(4))
