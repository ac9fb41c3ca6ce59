"""The command evaluate, from the command line to the files it writes."""

import json

import cv2
import numpy as np
import pytest
import torch
from helpers.commands import SIZES, labels_by_hand, run
from helpers.image_files import photograph, put
from helpers.networks import tiny_net

from pspnet_repro import Predictor
from pspnet_repro.data.images import read_image
from pspnet_repro.data.labels import read_label
from pspnet_repro.data.pairs import read_pair
from pspnet_repro.evaluation import ConfusionMatrix, Protocol
from pspnet_repro.files import lock_folder
from pspnet_repro.weights import model_file


def counted_by_hand(data, net, **changes):
    matrix = ConfusionMatrix(4)
    for k in range(5):
        matrix.update(labels_by_hand(net, data / f"{k}.png", **changes),
                      cv2.imread(str(data / f"{k}_label.png"), cv2.IMREAD_UNCHANGED))
    return matrix


def _close(counts, wanted):
    """Whether counts agree but for the few pixels that other batches of a convolution may turn."""
    return (np.sum(counts) == wanted.counts.sum()
            and np.abs(np.array(counts) - wanted.counts).sum() <= 2e-3 * wanted.counts.sum())


def test_evaluate_writes_figures(photos, weights, tmp_path, capfd):
    code, said, _ = run(capfd, "evaluate", "--weights", weights, "--data", photos, *SIZES,
                        "--batch-size", 3)
    assert code == 0
    out = tmp_path / "evaluation-scenes-val"  # beside the weights
    figures = json.loads((out / "result.json").read_text())
    wanted = counted_by_hand(photos, tiny_net())
    assert _close(figures["confusion"], wanted)
    assert figures["mean_iou"] == pytest.approx(wanted.mean_iou, abs=2e-3)
    assert figures["classes"] == ["dust", "sea", "wide land", "sky"] and figures["failed"] == 0
    assert figures["protocol"]["crop_size"] == 89 and figures["images"] == 5
    assert f"mean IoU {100 * figures['mean_iou']:.2f}  pixel accuracy " in said
    for name, words in (("mean_accuracy", "mean class accuracy"), ("score", "score"),
                        ("frequency_weighted_iou", "frequency-weighted IoU")):
        assert figures[name] == pytest.approx(getattr(wanted, name), abs=2e-3)
        assert f"{words} {100 * figures[name]:.2f} " in said
    assert f"class   2  wide land  IoU {100 * figures['iou'][2]:6.2f}" in said
    assert cv2.imread(str(out / "confusion.png")).shape[2] == 3
    assert not (out / "predictions").exists()


@pytest.mark.parametrize("words, changes", [
    (("--multi-scale",), {"scales": (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)}),
    (("--no-flip",), {"flip": False}), (("--no-antialias",), {"antialias": False}),
    (("--no-plus-one",), {"plus_one": False}), (("--centre-padding",), {"padding": "centre"}),
    (("--whole-image",), {"whole_image": True}), (("--window-stride", "4"), {"stride": 4}),
    (("--average-probabilities",), {"merge": "probabilities"}),
    (("--half-pixel-logits",), {"align_corners": False})])
def test_evaluate_switches(photos, weights, tmp_path, capfd, words, changes):
    code, _, _ = run(capfd, "evaluate", "--weights", weights, "--data", photos, *SIZES, *words,
                     "--output", tmp_path / "out")
    assert code == 0
    figures = json.loads((tmp_path / "out" / "result.json").read_text())
    for name, value in changes.items():
        assert figures["protocol"][name] == (list(value) if isinstance(value, tuple) else value)
    assert _close(figures["confusion"], counted_by_hand(photos, tiny_net(), **changes))
    assert not np.array_equal(figures["confusion"], counted_by_hand(photos, tiny_net()).counts)


def test_evaluate_goes_on_where_it_stopped(photos, weights, tmp_path, capfd, monkeypatch):
    command = ("evaluate", "--weights", weights, "--data", photos, *SIZES, "--batch-size", 1,
               "--output", tmp_path / "out")
    assert run(capfd, *command)[0] == 0
    whole = (tmp_path / "out" / "result.json").read_text()
    counts = tmp_path / "out" / "counts.jsonl"
    lines = counts.read_text().splitlines(keepends=True)
    assert len(lines) == 6
    # As if killed while the fourth image's line was written.
    counts.write_text("".join(lines[:4]) + lines[4][:20])
    (tmp_path / "out" / "result.json").unlink()
    read = []
    monkeypatch.setattr("pspnet_repro.evaluation.evaluate.read_pair",
                        lambda pair, *rest: read.append(pair.image.name) or read_pair(pair, *rest))
    assert run(capfd, *command)[0] == 0
    assert read == ["3.png", "4.png"]
    assert (tmp_path / "out" / "result.json").read_text() == whole
    assert counts.read_text() == "".join(lines)


def test_evaluate_guards_its_folder(photos, weights, tmp_path, capfd):
    with lock_folder(tmp_path / "out"):
        code, _, error = run(capfd, "evaluate", "--weights", weights, "--data", photos, *SIZES,
                             "--output", tmp_path / "out")
    assert code == 1 and "out: another process is at work in this folder" in error


def test_evaluate_refuses_counts_of_another_test(photos, weights, tmp_path, capfd):
    command = ("evaluate", "--weights", weights, "--data", photos, "--output", tmp_path / "out")
    assert run(capfd, *command, *SIZES)[0] == 0
    code, _, error = run(capfd, *command, *SIZES, "--no-flip")
    assert code == 1
    assert error.endswith("counts.jsonl: holds a test with protocol.flip = True, not False; it is "
                          "finished: choose another --output\n")
    # Images that are done would go without.
    code, _, error = run(capfd, *command, *SIZES, "--save-predictions")
    assert code == 1 and "holds a test with predictions = False, not True" in error
    net = tiny_net()
    with torch.no_grad():
        net.head.score.bias += 1
    model_file.save_model(weights, net)
    code, _, error = run(capfd, *command, *SIZES)
    assert code == 1 and "holds a test with weights_sha256 = " in error
    (tmp_path / "out" / "counts.jsonl").write_text("nonsense\n")
    code, _, error = run(capfd, *command, *SIZES)
    assert code == 1 and "counts.jsonl, line 1: not a record of a test" in error


def test_evaluate_reports_bad_images_and_goes_on(photos, weights, tmp_path, capfd):
    (photos / "1.png").write_text("no image")
    put(photos / "3_label.png", np.full((69, 80), 9))
    code, said, error = run(capfd, "evaluate", "--weights", weights, "--data", photos, *SIZES,
                            "--output", tmp_path / "out")
    assert code == 1 and "mean IoU" in said and "2 of 5 images could not be used" in error
    assert "1.png: not an image" in error and "3_label.png: labels must be 0..3 or 255" in error
    figures = json.loads((tmp_path / "out" / "result.json").read_text())
    assert figures["images"] == 3 and figures["failed"] == 2
    assert np.sum(figures["confusion"]) == (60 + 66 + 72 - 27) * 80
    # Mended, the same command tests what is missing.
    put(photos / "1.png", photograph(63, 80, seed=1)[..., ::-1])
    put(photos / "3_label.png", np.zeros((69, 80)))
    assert run(capfd, "evaluate", "--weights", weights, "--data", photos, *SIZES, "--output",
               tmp_path / "out")[0] == 0


def test_evaluate_says_what_was_counted(photos, weights, tmp_path, capfd):
    for k in range(5):
        label = np.full((60 + 3 * k, 80), 255)
        label[0, :7] = 1
        label[1, 0] = 3 * (k == 2)
        put(photos / f"{k}_label.png", label)
    code, said, _ = run(capfd, "evaluate", "--weights", weights, "--data", photos, *SIZES,
                        "--output", tmp_path / "out")
    assert code == 0 and "40 labelled pixels of 5 images counted\n" in said
    assert "classes that never occur in the labels and count as IoU 0: 1 of 4, wide land\n" in said
    figures = json.loads((tmp_path / "out" / "result.json").read_text())
    assert figures["labelled_pixels"] == 40 == np.sum(figures["confusion"])
    assert figures["classes_without_labels"] == ["wide land"]


def test_evaluate_writes_no_figures_of_no_images(photos, weights, tmp_path, capfd):
    for k in range(5):
        (photos / f"{k}.png").write_text("no image")
    code, said, error = run(capfd, "evaluate", "--weights", weights, "--data", photos, *SIZES,
                            "--output", tmp_path / "out")
    assert code == 1 and said == "" and error.endswith("none of the 5 images could be used\n")
    assert not (tmp_path / "out" / "result.json").exists()


def test_evaluate_tells_no_accuracy_without_labels(photos, weights, tmp_path, capfd):
    for file in photos.glob("*_label.png"):
        put(file, np.full(cv2.imread(str(file), cv2.IMREAD_GRAYSCALE).shape, 255))
    code, out, err = run(capfd, "evaluate", "--weights", weights, "--data", photos, "--output",
                         tmp_path / "out", *SIZES)
    assert code == 1 and "accuracy" not in out
    assert "no pixel of the 5 images is labelled, so no accuracy is defined" in err
    assert not (tmp_path / "out" / "result.json").exists()


def test_evaluate_writes_submissions(ade, weights, tmp_path, capfd):
    model_file.save_model(weights, tiny_net(150))
    image = photograph(50, 70)
    put(ade / "release_test" / "testing" / "ADE_test_00000007.jpg", image)
    code, said, _ = run(capfd, "evaluate", "--weights", weights, "--data", f"ade20k={ade}",
                        "--split", "test", *SIZES, "--output", tmp_path / "out")
    assert code == 0 and "1 prediction is in" in said
    (file,) = (tmp_path / "out" / "predictions").rglob("*.png")
    assert file.name == "ADE_test_00000007.png"
    written = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
    wanted = labels_by_hand(tiny_net(150), ade / "release_test" / "testing" /
                            "ADE_test_00000007.jpg", classes=150) + 1
    assert written.dtype == np.uint8 and written.shape == (50, 70)
    assert (written == wanted).mean() > 0.998
    assert not (tmp_path / "out" / "result.json").exists()


def test_evaluate_saves_predictions_when_asked(photos, weights, tmp_path, capfd):
    assert run(capfd, "evaluate", "--weights", weights, "--data", photos, *SIZES, "--output",
               tmp_path / "out", "--save-predictions")[0] == 0
    files = sorted((tmp_path / "out" / "predictions").iterdir())
    assert [file.name for file in files] == [f"{k}.png" for k in range(5)]


def test_several_weights_are_an_ensemble(photos, weights, tmp_path, capfd):
    other, net = tmp_path / "other.pt", tiny_net()
    with torch.no_grad():
        net.head.score.weight.copy_(net.head.score.weight.roll(1, 0))
    model_file.save_model(other, net, crop_size=89)
    code, _, error = run(capfd, "evaluate", "--weights", weights, other, "--data", photos,
                         "--output", tmp_path / "out", *SIZES)
    assert code == 0, error
    figures = json.loads((tmp_path / "out" / "result.json").read_text())
    assert len(set(figures["weights_sha256"])) == 2
    predictor = Predictor([weights, other], protocol=Protocol(**{
        **figures["protocol"], "scales": tuple(figures["protocol"]["scales"])}))
    wanted = ConfusionMatrix(len(predictor.names))
    for line in (photos / "val.txt").read_text().splitlines():
        image, label = (photos / name for name in line.split())
        wanted.update(predictor(np.ascontiguousarray(read_image(image)[:, :, ::-1])).labels,
                      read_label(label, len(predictor.names)))
    assert np.array_equal(figures["confusion"], wanted.counts)
