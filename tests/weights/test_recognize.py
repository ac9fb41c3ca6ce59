"""What files are that were given as weights: the refusals say it, and a way on that works."""

import argparse
import collections
import io
import json
import os
import random
import warnings

import numpy as np
import pytest
import safetensors.torch
import torch
from helpers.backbone_files import torch_state
from helpers.commands import run
from helpers.foreign_files import FORMS, PROTOTXT, STATE, saved
from helpers.golden import read_golden
from helpers.import_fuzz import mutate

from prototxt_import import convert_backbone, read_caffemodel, read_net, write_caffemodel
from prototxt_import.__main__ import main as import_main
from pspnet_repro import PSPNet
from pspnet_repro.errors import UserError
from pspnet_repro.model.resnet import ResNet
from pspnet_repro.weights import model_file, plain_file, recognize
from pspnet_repro.weights.convert import convert_file
from pspnet_repro.weights.recognize import kind_at


@pytest.mark.parametrize("read", [model_file.load_model, convert_file])
@pytest.mark.parametrize("name", FORMS)
def test_refusals_say_what_a_file_is(tmp_path, name, read):
    data, what, way = FORMS[name]
    path = tmp_path / "x.pth"
    path.write_bytes(data)
    with warnings.catch_warnings(), pytest.raises(UserError) as caught:
        warnings.simplefilter("error")  # nothing of torch's goes to the terminal
        read(path)
    said = str(caught.value)
    assert said.startswith(f"{path}: this is {what}: ")
    assert way.format(path=path) in said and "\n" not in said and "weights_only" not in said


@pytest.mark.parametrize("name", ["html", "lfs", "empty", "zip", "prototxt", "torchscript", "onnx"])
def test_caffemodels_are_refused_in_the_same_words(tmp_path, name):
    data, what, way = FORMS[name]
    path = tmp_path / "w.caffemodel"
    path.write_bytes(data)
    with pytest.raises(UserError) as caught:
        read_caffemodel(path)
    assert str(caught.value).startswith(f"{path}: this is {what}: ")
    assert way.format(path=path) in str(caught.value)


@pytest.mark.parametrize("name", ["html", "lfs", "zip", "npz", "png", "onnx"])
def test_prototxts_are_refused_in_the_same_words(tmp_path, name):
    data, what, _ = FORMS[name]
    path = tmp_path / "net.prototxt"
    path.write_bytes(data)
    with pytest.raises(UserError, match=f"net.prototxt: this is {what}: "):
        read_net(path)


@pytest.mark.parametrize("file, what", [
    ("sgd_multistep_iter_5.caffemodel", "a caffemodel"),
    ("sgd_multistep_iter_5.solverstate", "a solverstate of Caffe"),
    ("sgd_hdf5_iter_4.caffemodel.h5", "an HDF5 caffemodel"),
    ("sgd_hdf5_iter_4.solverstate.h5", "an HDF5 solverstate")])
def test_files_of_caffe_are_known(shared, tmp_path, file, what):
    path = shared / "golden" / "snapshots" / file
    assert kind_at(path).what == what
    with pytest.raises(UserError, match=f"{file}: this is {what}: "):
        model_file.load_model(path)


@pytest.mark.parametrize("tail", [b"", b"\x1a\x00"])
def test_caffemodels_of_the_first_format_are_known(tmp_path, tail):
    path = tmp_path / "w.caffemodel"
    path.write_bytes(b"\x0a\x03net\x12\x06\x12\x01a\x1a\x01b" + tail)
    assert kind_at(path).what == "a caffemodel of the first format (V1 'layers')"
    with pytest.raises(UserError, match="convert it first: pspnet convert"):
        model_file.load_model(path)


def _port(shared, port):
    """A state dict with the port's names and shapes; the tensors share one number."""
    arrays = read_golden(shared / "golden" / "ports" / f"{port}_pspnet50.npz")
    return {name: torch.zeros(()).expand(shape) for name, shape in json.loads(str(arrays["names"]))}


@pytest.mark.parametrize("port, whose", [("semseg", "semseg"), ("mmseg", "mmsegmentation"),
                                         ("kazuto", "kazuto1011")])
def test_ports_are_known_by_their_names(shared, tmp_path, port, whose):
    state, path = _port(shared, port), tmp_path / "x.pth"
    whole = {"module." + name: tensor for name, tensor in state.items()}
    for content, place in ((state, ""), (collections.OrderedDict(whole), " (after 'module.')"),
                           ({"epoch": 200, "state_dict": whole, "optimizer": {}},
                            " (under 'state_dict', after 'module.')")):
        torch.save(content, path)
        what = f"a PyTorch state dict with names of {whose}'s PSPNet{place}"
        assert kind_at(path, content).what == what
        with pytest.raises(UserError) as caught:
            model_file.load_model(path)
        assert str(caught.value) == (f"{path}: this is {what}: pspnet convert {path} -o "
                                     "OUT.safetensors makes a file for this program of it")
    few = {name: torch.ones(1) for name in state}
    safetensors.torch.save_file(few, tmp_path / "x.safetensors", {"format": "pt", "note": "text"})
    with pytest.raises(UserError, match=f"this is a safetensors state dict with names of {whose}"):
        model_file.load_model(tmp_path / "x.safetensors")


BASIC = {f"layer{stage}.0.conv{k}.weight": torch.ones(1) for stage in (1, 2, 3, 4) for k in (1, 2)}


@pytest.mark.parametrize("state, whose, way", [
    (torch_state(), "torchvision's ResNet", "pspnet convert {path} -o OUT.safetensors"),
    (BASIC | {"conv1.weight": torch.ones(1)}, "a ResNet of basic blocks (18 or 34)", "only"),
    (torch_state() | {"layer1.0.conv2.weight": torch.ones(8, 2, 3, 3)},
     "a ResNet other than torchvision's", "only ResNets of torchvision's bottlenecks"),
    (torch_state() | {"layer1.0.se.fc1.weight": torch.ones(1)},
     "a ResNet other than torchvision's", "only ResNets of torchvision's bottlenecks"),
    ({"conv1.x.weight" if name == "conv1.weight" else name: t for name, t in torch_state().items()},
     "a ResNet other than torchvision's", "only ResNets of torchvision's bottlenecks"),
    ({"feats.conv1.weight": torch.ones(1), "psp.stages.0.1.weight": torch.ones(1),
      "up_1.conv.0.weight": torch.ones(1)}, "Lextal's PSPNet", "it has the name but is another "
     "network, whose scores come after three learned upsamplings"),
    ({"encoder.conv1.weight": torch.ones(1), "decoder.psp.blocks.0.pool.1.weight": torch.ones(1)},
     "segmentation_models.pytorch's PSPNet", "it has the name but is another network"),
    ({"generator.0.weight": torch.ones(1), "discriminator.0.weight": torch.ones(1)},
     "another network, such as 'generator.0.weight'", "it cannot be loaded; PSPNets of Caffe"),
    ({f"backbone.{name}": t for name, t in torch_state().items()} | {"classifier.0.weight":
                                                                     torch.ones(1)},
     "torchvision's FCN or DeepLab", "it cannot be loaded"),
    ({f"backbone.{name}": t for name, t in torch_state().items()} | {"decode_head.conv_seg.bias":
                                                                     torch.ones(1)},
     "an mmsegmentation network other than PSPNet", "it cannot be loaded"),
    ({"patch_embed.proj.weight": torch.ones(1)},
     "another network, such as 'patch_embed.proj.weight'", "it cannot be loaded"),
    (PSPNet(3, stem_width=4, width=0.125).state_dict(), "a PSPNet of this program",
     "its settings are missing: save the network with pspnet_repro.weights.model_file.save_model"),
    (ResNet(blocks=(1, 1, 1, 1), stem_width=4, widths=(4, 4, 4, 4)).state_dict(),
     "a backbone of this program", "its settings are missing")])
def test_networks_are_known_by_their_names(tmp_path, state, whose, way):
    path = tmp_path / "x.pth"
    torch.save({"state_dict": state}, path)
    with pytest.raises(UserError) as caught:
        model_file.load_model(path)
    assert str(caught.value).startswith(
        f"{path}: this is a PyTorch state dict with names of {whose} (under 'state_dict'): ")
    assert way.format(path=path) in str(caught.value)


@pytest.mark.parametrize("form", ["plain", "state_dict", "module", "both", "safetensors"])
def test_the_way_on_for_a_resnet_works(tmp_path, capfd, form):
    state = torch_state()
    path, out = tmp_path / "r.pth", tmp_path / "OUT.safetensors"
    whole = {"module." + name: tensor for name, tensor in state.items()}
    content = {"plain": state, "state_dict": {"epoch": 1, "state_dict": state}, "module": whole,
               "both": {"state_dict": whole}, "safetensors": state}[form]
    if form == "safetensors":
        path = tmp_path / "r.safetensors"
        safetensors.torch.save_file(state, path, {"format": "pt"})
    else:
        torch.save(content, path)
    code, _, error = run(capfd, "evaluate", "--weights", path, "--data", tmp_path)
    assert code == 1 and f"pspnet convert {path} -o OUT" in error
    assert import_main(["convert", "--backbone", str(path), "-o", str(out)]) == 0
    torch.save(state, tmp_path / "plain.pth")
    wanted = convert_file(tmp_path / "plain.pth").model.state_dict()
    for name, tensor in model_file.load_backbone(out).state_dict().items():
        assert torch.equal(tensor, wanted[name])


def test_the_way_on_for_objects_works(tmp_path):
    """Tensors alone, saved again, are read: here those of a ResNet."""
    state, path = torch_state(), tmp_path / "r.pth"
    torch.save({"state_dict": state, "args": argparse.Namespace()}, path)
    with pytest.raises(UserError, match="objects of argparse.Namespace: only tensors are read"):
        convert_file(path)
    torch.save({"state_dict": state}, path)
    assert convert_file(path).model.settings["stem"] == "classic"


def test_a_folder_names_the_weights_in_it(tmp_path):
    for read in (model_file.load_model, convert_file):
        with pytest.raises(UserError, match="this is a folder: name the file of weights in it"):
            read(tmp_path)
    (tmp_path / "weights.pt").touch()
    with pytest.raises(UserError, match=f"this is a folder: name {tmp_path}/weights.pt$"):
        model_file.load_model(tmp_path)


def test_files_of_this_program_are_converted_and_known_elsewhere(tmp_path):
    net = ResNet(blocks=(1, 1, 1, 1), stem_width=4, widths=(4, 4, 4, 4))
    for path in (tmp_path / "b.pt", tmp_path / "b.safetensors"):
        model_file.save_model(path, net)
        again = convert_file(path).model.state_dict()
        assert all(torch.equal(again[name], tensor) for name, tensor in net.state_dict().items())
    write_caffemodel(tmp_path / "w.caffemodel", "net", {"a": ("X", [np.ones(2)])})
    (tmp_path / "net.prototxt").write_bytes(PROTOTXT)
    with pytest.raises(UserError, match="b.pt: this is a PyTorch file: if a PSPNet or ResNet is in "
                                        "it, pspnet convert"):
        read_caffemodel(tmp_path / "b.pt")
    with pytest.raises(UserError, match="b.pt: this is a PyTorch file: "):
        convert_backbone(tmp_path / "b.pt", tmp_path / "w.caffemodel")


def test_any_bytes_have_a_kind():
    """Mutated files of every form: a phrase, never an error."""
    rng, kinds = random.Random(0), set()
    wholes = [("weights", data or b"x") for data, _, _ in FORMS.values()]
    wholes += [("weights", saved(STATE)), ("weights", safetensors.torch.save(STATE))]
    for k in range(3000):
        data = (mutate(*wholes[k % len(wholes)], wholes, rng) if k % 2 else
                rng.randbytes(rng.randrange(300)))
        kinds.add(recognize.kind_of(io.BytesIO(data)).what)
    assert len(kinds) > 20


class Stranger:
    """What a pickle may hold, and a file of weights may not."""


@pytest.mark.parametrize("name", ["x.pt", "x.safetensors"])
@pytest.mark.parametrize("content, words", [
    (b"", "an empty file"), (b"some text\n", "a text"),
    (bytes(range(7, 200)), "a file of no known kind"),
    ("pickle", rf"a PyTorch file with objects of {__name__}\.Stranger: only tensors are read")])
def test_damaged_weights_are_named(tmp_path, name, content, words):
    path = tmp_path / name
    if content == "pickle":
        torch.save({"weights": Stranger()}, tmp_path / "any.pt")
        (tmp_path / "any.pt").rename(path)
    else:
        path.write_bytes(content)
    with pytest.raises(UserError, match=f"{name}: this is {words}") as caught:
        model_file.load_model(path)
    assert "weights_only" not in str(caught.value) and "\n" not in str(caught.value)


class _Evil:
    def __reduce__(self):
        return os.system, ("true",)


def test_checkpoint_does_not_run_code(tmp_path):
    torch.save({"weights": _Evil()}, tmp_path / "evil.pt")
    with pytest.raises(UserError,
                       match="evil.pt: this is a PyTorch file with objects of posix.sys"):
        plain_file.load(tmp_path / "evil.pt")
