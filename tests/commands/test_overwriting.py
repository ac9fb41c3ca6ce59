"""No command overwrites what it reads, or what no command of this program made."""

import json
import shutil

import pytest
from helpers.commands import SIZES, run
from helpers.image_files import photograph, put
from helpers.trainings import train_settings

from experiments import run_table
from experiments.bench.networks import KEYS
from experiments.provenance import claim as claim_by_keys
from experiments.report import claim_report
from prototxt_import.__main__ import main as imports
from pspnet_repro.data.pairs import read_list
from pspnet_repro.errors import UserError
from pspnet_repro.outputs import LIST
from pspnet_repro.training.loop import train

KINDS = ("label", "colour", "overlay")


def contents(folder):
    """{name: bytes} of all files below a folder but the list and the lock."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name not in (LIST, ".lock")}


def photographs(folder, *names):
    for number, name in enumerate(names):
        put(folder / name, photograph(30, 40, seed=number)[..., ::-1])
    return folder


def test_predict_beside_its_photographs_gives_the_same_twice(weights, tmp_path, capfd):
    folder = photographs(tmp_path / "in", "0.png", "1.png")
    before = contents(folder)
    words = ("predict", folder, "--weights", weights, "-o", folder, *SIZES)
    code, said, _ = run(capfd, *words)
    assert code == 0 and said.startswith("6 pictures of 2 photographs")
    first = contents(folder)
    assert first == before | {name: first[name] for name in first} and len(first) == 2 + 6
    code, said, _ = run(capfd, *words)
    assert code == 0 and said.startswith("6 pictures of 2 photographs")
    assert contents(folder) == first
    # A result that was changed is a photograph like others, and stays.
    (folder / "0.colour.png").write_bytes(before["1.png"])
    code, _, error = run(capfd, *words)
    assert code == 2 and "0.colour.png is also read" in error
    code, _, error = run(capfd, *words[:1], folder / "0.png", *words[2:])
    assert code == 1 and "0.colour.png: was changed after this program wrote it" in error
    for name in before:
        (folder / name).unlink()
    (folder / "0.colour.png").unlink()
    code, _, error = run(capfd, *words)
    assert code == 1 and "in: holds no files but this program's" in error


@pytest.mark.parametrize("kind", KINDS)
def test_predict_keeps_files_of_its_outputs_names(weights, tmp_path, capfd, kind):
    """A photograph of such a name, and ground truth: nothing is written at all."""
    folder = photographs(tmp_path / "in", "a.png", f"a.{kind}.png", "b.png")
    before = contents(folder)
    name = folder / f"a.{kind}.png"
    for images in ([folder], [folder / "a.png"], [folder / "b.png", folder / "a.png"]):
        code, _, error = run(capfd, "predict", *images, "--weights", weights, "-o", folder, *SIZES)
        assert (code, error) == ((2, f"error: --output {name} is also read: choose another, no "
                                  "output may be an input\n") if images == [folder] else
                                 (1, f"error: {name}: is there already, and this command did not "
                                  "make it; it is not overwritten: choose another --output, or "
                                  "move it away\n"))
        assert contents(folder) == before


def test_predict_keeps_its_own_results_that_it_reads(weights, tmp_path, capfd):
    folder = photographs(tmp_path / "in", "a.png")
    words = ("predict", "--weights", weights, "-o", folder, *SIZES)
    assert run(capfd, *words, folder / "a.png")[0] == 0
    before = contents(folder)
    (tmp_path / "link.png").symlink_to(folder / "a.label.png")
    for name in (folder / "a.label.png", folder / ".." / "in" / "a.label.png",
                 tmp_path / "link.png"):
        code, _, error = run(capfd, *words, folder / "a.png", name)
        assert code == 2 and "a.label.png is also read" in error
        assert contents(folder) == before


def test_evaluate_keeps_its_images(weights, tmp_path, capfd):
    """Images where predictions go: 0.png would be replaced by its label map."""
    out = tmp_path / "X"
    folder = photographs(out / "predictions", "0.png", "1.png")
    put(folder / "0_label.png", photograph(30, 40)[..., 0] % 4)
    (folder / "val.txt").write_text("0.png 0_label.png\n")
    before = contents(out)
    code, _, error = run(capfd, "evaluate", "--weights", weights, "--data", folder,
                         "--save-predictions", "--output", out, *SIZES)
    assert code == 2 and "predictions/0.png is also read" in error
    assert contents(out) == before


@pytest.mark.parametrize("name", ["result.json", "confusion.png", "predictions/3.png"])
def test_evaluate_keeps_files_of_its_outputs_names(photos, weights, tmp_path, capfd, name):
    out = tmp_path / "out"
    (out / name).parent.mkdir(parents=True)
    (out / name).write_text("mine")
    words = ("evaluate", "--weights", weights, "--data", photos, "--output", out,
             "--save-predictions", *SIZES)
    code, _, error = run(capfd, *words)
    assert code == 1 and f"{out / name}: is there already, and this command did not" in error
    assert contents(out) == {name: b"mine"} and not (out / LIST).exists()
    (out / name).unlink()
    assert run(capfd, *words)[0] == 0
    (out / name).write_text("changed")
    code, _, error = run(capfd, *words)
    assert code == 1 and f"{out / name}: was changed after this program wrote it" in error
    assert (out / name).read_text() == "changed"


def test_evaluate_resumes_in_a_folder_of_an_earlier_version(photos, weights, tmp_path, capfd):
    out = tmp_path / "out"
    words = ("evaluate", "--weights", weights, "--data", photos, "--output", out,
             "--save-predictions", *SIZES)
    assert run(capfd, *words)[0] == 0
    wanted = contents(out)
    (out / LIST).unlink()
    (out / ".lock").unlink()
    lines = (out / "counts.jsonl").read_text().splitlines(keepends=True)
    (out / "counts.jsonl").write_text("".join(lines[:3]))
    assert run(capfd, *words)[0] == 0
    assert contents(out) == wanted
    # What comes now is not of that version.
    (out / "result.json").write_text("mine")
    assert run(capfd, *words)[0] == 1 and (out / "result.json").read_text() == "mine"


def test_evaluate_refuses_two_images_of_one_prediction(weights, tmp_path, capfd):
    folder = photographs(tmp_path / "in", "a.png", "a.bmp")
    (folder / "val.txt").write_text("a.png\na.png\na.bmp\n")
    code, _, error = run(capfd, "evaluate", "--weights", weights, "--data", folder, "--output",
                         tmp_path / "out", *SIZES)
    assert code == 1 and "a.png and " in error and "a.bmp would have one prediction" in error
    assert not (tmp_path / "out").exists()
    (folder / "val.txt").write_text("a.png\na.png\n")  # said twice: one image
    assert run(capfd, "evaluate", "--weights", weights, "--data", folder, "--output",
               tmp_path / "out", *SIZES)[0] == 0


@pytest.mark.parametrize("name, text", [
    ("settings.json", '{"model": "mine"}'), ("settings.json", "[1]"), ("log.txt", "my notes\n"),
    ("log.txt", "2024-01-01 00:00:00 INFO begun\n"), ("losses.jsonl", "mine"),
    ("losses.jsonl", "1\n2\n"), ("losses.jsonl", '{"iteration": 0, "mine": 1}\n'),
    ("curve.jsonl", "mine"), ("curve.jsonl", '{"x": 1}\n'), ("weights.pt", "mine"),
    ("checkpoint.pt", "mine")])
def test_train_keeps_files_of_its_outputs_names(squares, tmp_path, name, text):
    (tmp_path / name).write_text(text)
    pairs = read_list(squares / "train.txt")
    with pytest.raises(UserError, match=name):
        train(train_settings(squares, max_iter=1), pairs, tmp_path, progress=False,
              watch=(1, lambda net: {"mean_iou": 0.0}))
    assert (tmp_path / name).read_text() == text
    left = {path.name for path in tmp_path.iterdir()} - {".lock"}
    assert left <= {name, "settings.json", "losses.jsonl"} and (name != "log.txt" or len(left) == 1)


def test_importer_keeps_files_of_its_outputs_names(tmp_path, capsys, weights):
    net, caffemodel = tmp_path / "net.prototxt", tmp_path / "w.caffemodel"
    export = ["export", str(weights), "-o", str(net), str(caffemodel), "--crop-size", "89"]
    (tmp_path / "solver.prototxt").write_text("mine")
    assert imports([*export, "--train"]) == 1
    assert f"{tmp_path / 'solver.prototxt'}: is there already" in capsys.readouterr().err
    assert contents(tmp_path).keys() == {"solver.prototxt", "weights.pt"}
    assert imports(export) == 0 and imports(export) == 0
    net.write_text(net.read_text() + "# mine\n")
    before = contents(tmp_path)
    assert imports(export) == 1
    assert "was changed after this program wrote" in capsys.readouterr().err
    # Another's weights, though of this program, are not of this command's making.
    convert = ["convert", str(net), str(caffemodel), "-o"]
    assert imports([*convert, str(weights)]) == 1 and contents(tmp_path) == before
    out = str(tmp_path / "out.pt")
    assert imports([*convert, out]) == 0 and imports([*convert, out]) == 0
    put(tmp_path / "a.png", photograph(20, 20))
    (tmp_path / "o.npz").write_text("mine")
    assert imports(["run", str(net), str(caffemodel), str(tmp_path / "a.png"), "-o",
                    str(tmp_path / "o.npz")]) == 1
    assert (tmp_path / "o.npz").read_text() == "mine"


@pytest.mark.parametrize("name", ["report.json", "report.md", "report.html", "report-gain.png"])
def test_tables_keep_files_of_their_reports_names(tmp_path, monkeypatch, capsys, name):
    """Before any training."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("mine")
    monkeypatch.setattr(run_table, "run_all", lambda *_: pytest.fail("trains"))
    data_folder = tmp_path / "data"
    put(data_folder / "a.png", photograph(60, 60))
    put(data_folder / "l.png", photograph(60, 60)[..., 0] % 12)
    for split in ("train", "val"):
        (data_folder / f"{split}.txt").write_text("a.png l.png\n")
    assert run_table.main(["--data", str(data_folder), "--runs", str(tmp_path / "runs"),
                           "--output", str(tmp_path / "out")]) == 1
    assert f"{name}: is there already, and this command did not make it" in capsys.readouterr().err
    assert contents(tmp_path / "out") == {name: b"mine"}


@pytest.mark.parametrize("claim, key, names, text", [
    (claim_report, "report.json", ("report.md", "report-x.png"),
     {"profile": "mini", "tables": {}, "results": {}}),
    (lambda folder: claim_by_keys([folder / "networks.json", folder / "networks.md"], KEYS),
     "networks.json", ("networks.md",), {"settings": {}, "provenance": {}, "results": {}})])
def test_reports_of_an_earlier_version_are_known_by_their_json(tmp_path, claim, key, names, text):
    for name in names:
        (tmp_path / name).write_text("of an earlier version")
    for other in (None, "[]", "{}", "mine"):
        if other is not None:
            (tmp_path / key).write_text(other)
        with pytest.raises(UserError, match="is there already"):
            claim(tmp_path)
    (tmp_path / key).write_text(json.dumps(text))
    claim(tmp_path)
    shutil.move(tmp_path / key, tmp_path / "kept")
    (tmp_path / key).write_text(json.dumps({**text, "mine": 1}))
    with pytest.raises(UserError, match="was changed after"):
        claim(tmp_path)


@pytest.mark.parametrize("words", [
    ("convert", "{w}", "-o", "{out}/l.pt"),
    ("export", "{w}", "-o", "{out}/l.pt", "{out}/b"),
    ("export", "{w}", "-o", "{out}/b", "{out}/l.pt"),
    ("export", "{w}", "--semseg", "{out}/l.pt"),
    ("predict", "{in}/l.png", "--weights", "{w}", "-o", "{out}", *SIZES),
    ("predict", "{in}/a.png", "--weights", "{w}", "-o", "{out}", "--html", *SIZES),
    ("evaluate", "--weights", "{w}", "--data", "{photos}", "-o", "{out}", *SIZES)])
@pytest.mark.parametrize("target", ["mine", "nowhere"])
def test_no_command_replaces_a_link_or_what_it_leads_to(photos, weights, tmp_path, capfd, words,
                                                        target):
    photographs(tmp_path / "in", "a.png", "l.png")
    out = tmp_path / "out"
    out.mkdir()
    (tmp_path / "mine").write_text("mine")
    for name in ("l.pt", "l.label.png", "index.html", "result.json"):
        (out / name).symlink_to(f"../{target}")
    code, _, said = run(capfd, *(str(word).format(w=weights, out=out, photos=photos,
                                                  **{"in": tmp_path / "in"}) for word in words))
    assert code == 1 and "is there already, and this command did not make it" in said
    assert said.count("error: ") == 1 and (tmp_path / "mine").read_text() == "mine"
    assert all(path.is_symlink() for path in out.iterdir())
    assert not (tmp_path / "nowhere").exists()
