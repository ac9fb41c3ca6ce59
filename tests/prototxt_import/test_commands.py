"""The commands inspect and run on small files of the test's own."""

import cv2
import numpy as np
import pytest
from helpers.golden import read_golden

from prototxt_import import write_caffemodel
from prototxt_import.__main__ import main
from pspnet_repro.evaluation.imresize import imresize

NET = """name: "small"
layer { name: "data" type: "ImageSegData" top: "data" top: "label" include { phase: TRAIN }
        transform_param { crop_size: 9 } image_data_param { batch_size: 2 } }
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 4 dim: 5 } }
        include { phase: TEST } }
layer { name: "sum" type: "Convolution" bottom: "data" top: "sum" param { name: "w" }
        convolution_param { num_output: 1 kernel_size: 1 bias_term: false } }
layer { name: "twin" type: "Convolution" bottom: "data" top: "twin" param { name: "w" }
        convolution_param { num_output: 1 kernel_size: 1 bias_term: false } }
layer { name: "twin/relu" type: "ReLU" bottom: "twin" top: "twin" }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "sum" bottom: "label" top: "loss"
        include { phase: TRAIN } }
"""


@pytest.fixture
def files(tmp_path):
    (tmp_path / "net.prototxt").write_text(NET)
    weights = np.float32([1, 10, 100]).reshape(1, 3, 1, 1)
    write_caffemodel(tmp_path / "w.caffemodel", "small", {
        "sum": ("ConvolutionData", [weights]), "conv4_7": ("ConvolutionData", [weights])})
    image = np.arange(60, dtype=np.uint8).reshape(4, 5, 3) * 4
    assert cv2.imwrite(str(tmp_path / "a.png"), image)
    return tmp_path, image


def _run(folder, *args):
    return main(["run", str(folder / "net.prototxt"), str(folder / "w.caffemodel"),
                 *map(str, args)])


def test_run_subtracts_the_mean_and_writes_blobs(files, capsys):
    folder, image = files
    assert _run(folder, folder / "a.png", "-o", folder / "o.npz", "--blobs", "sum,data") == 0
    blobs = read_golden(folder / "o.npz")
    assert list(blobs) == ["sum", "data"]
    wanted = (image - np.float32([103.939, 116.779, 123.68])).transpose(2, 0, 1)[None]
    np.testing.assert_array_equal(blobs["data"], wanted)
    np.testing.assert_allclose(blobs["sum"][0, 0],
                               wanted[0, 0] + 10 * wanted[0, 1] + 100 * wanted[0, 2], rtol=1e-5)
    # The shared parameter of "twin" is in the file under its owner's name: no warning.
    assert capsys.readouterr() == (f"sum  1x1x4x5\ndata  1x3x4x5\n{folder / 'o.npz'}\n", "")


def test_run_takes_the_size_of_a_database(files):
    folder, _ = files
    text = NET.replace('"Input"', '"Data"').replace(
        "input_param { shape { dim: 1 dim: 3 dim: 4 dim: 5 } }",
        "data_param { batch_size: 1 } transform_param { crop_height: 4 crop_width: 5 }")
    (folder / "net.prototxt").write_text(text)
    assert _run(folder, folder / "a.png", "-o", folder / "o.npz", "--arithmetic", "torch") == 0
    assert read_golden(folder / "o.npz")["sum"].shape == (1, 1, 4, 5)


def test_run_resizes_and_takes_another_mean(files):
    folder, image = files
    assert cv2.imwrite(str(folder / "b.png"), np.tile(image, (2, 2, 1)))
    assert _run(folder, folder / "b.png", "-o", folder / "o.npz", "--mean", "0,0,0", "--blobs",
                "data") == 0
    np.testing.assert_array_equal(read_golden(folder / "o.npz")["data"][0].transpose(1, 2, 0),
                                  imresize(np.tile(image, (2, 2, 1)), (4, 5)))
    assert _run(folder, folder / "a.png", "-o", folder / "o.npz", "--mean", "-1,-2.5,3", "--blobs",
                "data") == 0
    np.testing.assert_array_equal(read_golden(folder / "o.npz")["data"][0, 0], image[..., 0] + 1.0)


def _golden(folder, **changes):
    """What a run on a.png would have recorded, with changes."""
    assert _run(folder, folder / "a.png", "-o", folder / "o.npz", "--blobs",
                "data,sum,twin") == 0
    arrays = {}
    for name, blob in read_golden(folder / "o.npz").items():
        blob = blob.flatten()
        at = np.linspace(0, blob.size - 1, 8).astype(np.int64)
        arrays[f"sample/{name}"] = blob[at]
        arrays[f"mean_abs/{name}"] = np.abs(blob).mean(dtype=np.float64)
    np.savez(folder / "g.npz", **{**arrays, **changes})
    return arrays


def test_run_compares_with_a_picture_or_the_recorded_one(files, capsys):
    folder, image = files
    _golden(folder, image_bgr=image)
    for picture in ([folder / "a.png"], []):
        assert _run(folder, *picture, "--compare", folder / "g.npz") == 0
        assert "all 3 recorded blobs agree within 0.0002" in capsys.readouterr().out


def test_run_names_the_first_deviation(files, capsys):
    folder, _ = files
    arrays = _golden(folder)
    capsys.readouterr()
    sample = arrays["sample/sum"].copy()
    sample[3] += 0.01 * np.abs(sample).max()
    for changes in ({"sample/sum": sample, "sample/twin": sample},
                    {"mean_abs/sum": arrays["mean_abs/sum"] * 1.01}):
        _golden(folder, **changes)
        assert _run(folder, folder / "a.png", "--compare", folder / "g.npz") == 1
        said = capsys.readouterr().err.splitlines()[-1]
        assert said.startswith(f"error: {folder / 'g.npz'}: image 0: the first blob that deviates "
                               "is 'sum', made by layer 'sum' (Convolution): by 0.0")
    assert _run(folder, folder / "a.png", "--compare", folder / "g.npz", "--tolerance", "0.1") == 0


def test_run_does_not_pass_nan(files, capsys):
    folder, _ = files
    arrays = _golden(folder)
    _golden(folder, **{"sample/twin": np.full_like(arrays["sample/twin"], np.nan)})
    assert _run(folder, folder / "a.png", "--compare", folder / "g.npz") == 1
    assert "deviates is 'twin', made by layer 'twin/relu' (ReLU)" in capsys.readouterr().err


BIG = """layer {{ name: "{0}" type: "Interp" bottom: "data" top: "{0}"
         interp_param {{ height: {1} width: {1} }} }}"""


@pytest.mark.parametrize(("layers", "message"), [
    ([("a", 12000)], "layer 'a' (Interp): a blob must be at most 1073741824 bytes, 'a' of shape "
                     "(1, 3, 12000, 12000) needs 1728000000"),
    ([(name, 9000) for name in "abcdef"],
     "layer 'e' (Interp): blobs up to this layer must be at most 4294967296 bytes, got 4860000"),
    ([("a", 9)], None)])
def test_run_limits_the_memory_of_blobs(files, capsys, layers, message):
    folder, _ = files
    path = folder / "net.prototxt"
    path.write_text(NET + "".join(BIG.format(*layer) for layer in layers))
    code = _run(folder, folder / "a.png", "-o", folder / "o.npz")
    said = capsys.readouterr().err
    if message is None:
        assert code == 0 and said == ""
        return
    assert code == 1 and said.startswith(f"error: {path}: {message}") and said.count("\n") == 1


def test_run_limits_the_memory_of_columns(files, capsys):
    folder, _ = files
    path = folder / "net.prototxt"
    path.write_text(NET + BIG.format("a", 300) + """
        layer { name: "c" type: "Convolution" bottom: "a" top: "c"
                convolution_param { num_output: 1 kernel_size: 99 pad: 49 } }""")
    assert _run(folder, folder / "a.png", "-o", folder / "o.npz") == 1
    assert ("layer 'c' (Convolution): the columns of an image must be at most 2147483648 bytes, "
            "got 10585080000") in capsys.readouterr().err


@pytest.mark.parametrize(("old", "new"), [
    # A header that is no Python, one that ends too early, and a part that is encrypted.
    (b"{'descr'", b"'{descr'"), (b"(8,), }", b"(8,), ("),
    (b"PK\x01\x02\x2d\x03\x2d\x00\x00", b"PK\x01\x02\x2d\x03\x2d\x00\x01")])
def test_run_refuses_damaged_records(files, capsys, old, new):
    folder, _ = files
    _golden(folder)
    path = folder / "g.npz"
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new))
    capsys.readouterr()
    assert _run(folder, folder / "a.png", "--compare", path) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"error: {path}: ") and said.count("\n") == 1


def test_run_limits_the_recorded_input(files, capsys):
    folder, _ = files
    path = folder / "net.prototxt"
    path.write_text(NET.replace("kernel_size: 1 ", "kernel_size: 1 pad: 4000 "))
    np.savez(folder / "g.npz", data=np.zeros((8, 3, 40, 5), np.float32))
    assert _run(folder, "--compare", folder / "g.npz") == 1
    said = capsys.readouterr().err
    assert said.startswith(f"error: {path}: layer 'sum' (Convolution): a blob must be at most "
                           "1073741824 bytes, 'sum' of shape (8, 1, 8040, 8005)")


RECORD = np.zeros(2, [("a", "f4"), ("b", "i4")])


@pytest.mark.parametrize(("name", "value", "rule"), [
    ("mean_abs/sum", None, "is missing: each sample needs its mean"),
    ("mean_abs/sum", np.ones(2), "must be a single number, has shape (2,)"),
    ("mean_abs/sum", "high", "must be real numbers, is <U4"),
    ("sample/sum", np.zeros(0), "must be of shape (n), none empty, has shape (0,)"),
    ("sample/sum", np.ones((2, 2)), "must be of shape (n), none empty, has shape (2, 2)"),
    ("sample/sum", np.array(["a"]), "must be real numbers, is <U1"),
    ("sample/sum", np.array(["2017-07-21"], "M8[D]"), "must be real numbers, is datetime64"),
    ("sample/sum", RECORD, "must be real numbers, is [('a'"),
    ("sample/sum", np.ones(3, complex), "must be real numbers, is complex128"),
    ("7/sample/sum", np.ones(3), "'7/mean_abs/sum' is missing"),
    ("data", np.array(["a"]), "must be real numbers"), ("data", RECORD, "must be real numbers"),
    ("data", np.zeros((1, 3, 4, 5), "M8[s]"), "must be real numbers"),
    ("data", np.zeros((1, 4, 4, 5)), "must be of shape (N, 3, H, W)"),
    ("data", np.zeros((0, 3, 4, 5)), "must be of shape (N, 3, H, W)"),
    ("image_bgr", np.zeros(3), "must be of shape (H, W, 3), none empty, has shape (3,)"),
    ("image_bgr", np.zeros((4, 5)), "must be of shape (H, W, 3)"),
    ("image_bgr", np.zeros((4, 5, 4)), "must be of shape (H, W, 3)"),
    ("image_bgr", np.array("picture"), "must be real numbers"),
    ("sample/sum", np.array([{}], object), "not an .npz file of arrays without Python objects")])
def test_run_checks_what_was_recorded(files, capsys, name, value, rule):
    folder, _ = files
    arrays = _golden(folder)
    arrays[name] = value
    if value is None:
        del arrays[name]
    np.savez(folder / "g.npz", **arrays)
    capsys.readouterr()
    assert _run(folder, "--compare", folder / "g.npz") == 1
    said = capsys.readouterr().err
    assert said.startswith(f"error: {folder / 'g.npz'}: ") and said.count("\n") == 1
    assert name.split("/")[-1] in said and rule in said and "allow_pickle" not in said


def test_run_takes_recorded_integers(files, capsys):
    folder, _ = files
    np.savez(folder / "g.npz", data=np.full((1, 3, 4, 5), -128, np.int16), **{
        "sample/data": np.full(4, -128, np.int8), "mean_abs/data": np.uint8(128)})
    assert _run(folder, "--compare", folder / "g.npz") == 0
    assert "the 1 recorded blob agrees" in capsys.readouterr().out


@pytest.mark.parametrize(("args", "code", "message"), [
    (["-o", "o.npz"], 2, "needs an image"),
    (["a.png"], 2, "needs --output, --compare or both"),
    (["a.png", "--compare", "g.npz", "--blobs", "sum"], 2, "--blobs needs --output"),
    (["a.png", "-o", "o.npz", "--blobs", "sum,odd"], 2, "--blobs: odd not in"),
    (["a.png", "-o", ""], 2, "--output must name a file, got '.'"),
    (["a.png", "-o", "/"], 2, "--output must name a file, got '/'"),
    (["a.png", "-o", "./a.png"], 2, "--output a.png is also read"),
    (["a.png", "-o", "g.npz", "--compare", "g.npz"], 2, "--output g.npz is also read"),
    (["none.png", "-o", "o.npz"], 1, "none.png: no such image"),
    (["w.caffemodel", "-o", "o.npz"], 1, "w.caffemodel: not an image"),
    (["a.png", "--compare", "none.npz"], 1, "none.npz: no such file"),
    (["a.png", "--compare", "a.png"], 1, "a.png: not an .npz file of arrays"),
    (["a.png", "--compare", "empty.npz"], 1, "no recorded values of this network's blobs"),
    (["--compare", "empty.npz"], 1, "holds no data and no image_bgr: name an image")])
def test_run_refuses(files, capsys, monkeypatch, args, code, message):
    folder, _ = files
    _golden(folder)
    np.savez(folder / "empty.npz", other=1)
    capsys.readouterr()
    monkeypatch.chdir(folder)
    assert _run(folder, *args) == code
    said = capsys.readouterr().err.splitlines()
    assert message in said[-1] and said[-1].startswith("error: ")


@pytest.mark.parametrize("args", [
    ["--mean", "1,2"], ["--mean", "nan,inf,0"], ["--mean", "0,1e39,0"], ["--mean", "1,2,"],
    ["--tolerance", "x"]])
def test_run_refuses_arguments(files, capsys, args):
    with pytest.raises(SystemExit, match="2"):
        _run(files[0], "a.png", *args)


def test_inspect_counts_shared_parameters_once(files, capsys):
    folder, _ = files
    assert main(["inspect", str(folder / "net.prototxt"), str(folder / "w.caffemodel")]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[1] == ["input", "1x3x4x5", "data"]
    assert lines[2] == ["sum", "Convolution", "1x1x4x5", "1x3x1x1", "3", "60", "data", "sum"]
    assert lines[4][:3] == ["twin/relu", "ReLU", "1x1x4x5"]
    assert lines[5] == ["total", "3", "layers", "3", "120"]
    assert lines[6][-1] == "conv4_7"


@pytest.mark.parametrize("words, code, said", [
    (["inspect", "w.caffemodel"], 2, "w.caffemodel: inspect takes a prototxt, and this is a "
     "caffemodel: pspnet inspect NET.prototxt w.caffemodel\n"),
    (["inspect", "w.caffemodel", "net.prototxt"], 2,
     "put the prototxt first: pspnet inspect net.prototxt w.caffemodel\n"),
    (["run", "w.caffemodel", "net.prototxt", "a.png", "-o", "o.npz"], 2,
     "put the prototxt first: pspnet run net.prototxt w.caffemodel\n"),
    (["export", "w.pt", "-o", "o.caffemodel", "o.prototxt"], 2, "--output must be NET.prototxt "
     "W.caffemodel in this order, got o.caffemodel o.prototxt\n"),
    (["predict", "a.png", "-o", "o", "--weights", "w.caffemodel", "net.prototxt"], 2,
     "--weights: put the prototxt first: net.prototxt,w.caffemodel\n"),
    (["predict", "-o", "o", "--weights", "w.caffemodel", "net.prototxt", "a.png"], 2,
     "--weights: put the prototxt first: net.prototxt,w.caffemodel\n"),
    (["inspect", "s/solver.prototxt"], 1,
     "s/solver.prototxt: is a solver, and must be a network: name its net, s/net.prototxt\n"),
    (["inspect", "s/train.prototxt"], 1, "name its train_net, net.prototxt\n"),
    (["inspect", "s/alone.prototxt"], 1, "must be a network: name a network's prototxt\n"),
    (["predict", "a.png", "-o", "o", "--weights", "s/solver.prototxt,w.caffemodel"], 1,
     "s/solver.prototxt: is a solver, and must be a network: name its net, s/net.prototxt\n"),
    (["export", "s/solver.txt", "-o", "o.prototxt", "o.caffemodel"], 1,
     "s/solver.txt: this is a solver of Caffe: it holds no weights; name its network")])
def test_files_in_the_wrong_place_are_told(files, capsys, monkeypatch, words, code, said):
    folder, _ = files
    (folder / "s").mkdir()
    for name, text in (("solver.prototxt", 'net: "net.prototxt" base_lr: 0.1'),
                       ("train.prototxt", 'base_lr: 0.1\ntrain_net: "net.prototxt"\n'),
                       ("alone.prototxt", "base_lr: 0.1"),
                       ("solver.txt", 'net: "net.prototxt"\nbase_lr: 0.1\n')):
        (folder / "s" / name).write_text(text)
    if "train" not in words[1]:
        (folder / "s" / "net.prototxt").write_text(NET)
    monkeypatch.chdir(folder)
    assert main(words) == code
    error = capsys.readouterr().err
    assert said in error and error.startswith("error: ") and error.count("\n") == 1
    assert not any(path.name.startswith("o") for path in folder.iterdir())


def test_inspect_shows_the_training_network(files, capsys):
    folder, _ = files
    assert main(["inspect", str(folder / "net.prototxt"), "--phase", "TRAIN"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[1:3] == [["input", "2x3x9x9", "data"], ["input", "2x1x9x9", "label"]]
    assert lines[-2][:3] == ["loss", "SoftmaxWithLoss", "1"]
