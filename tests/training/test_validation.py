"""Tests along a training: they change nothing, survive a stop, and keep the best network."""

import dataclasses
import os
import signal

import cv2
import numpy as np
import pytest
import torch
from helpers.commands import SMALL
from helpers.trainings import (
    PROTOCOL,
    assert_same_run,
    read_points,
    run_training,
    small_validation,
    train_settings,
)

from pspnet_repro.data.pairs import read_list, read_pair
from pspnet_repro.errors import Interrupted, UserError
from pspnet_repro.evaluation import ConfusionMatrix, Protocol
from pspnet_repro.evaluation.evaluate import evaluate
from pspnet_repro.evaluation.network_file import read_network
from pspnet_repro.training import validation as module
from pspnet_repro.training.validation import centre_of_image, centre_of_label
from pspnet_repro.weights import model_file, plain_file

NET = ("--classes", 4, *SMALL, "--bins", "1,2", "--crop-size", 57)


def _train(data, output, validation, **options):
    return run_training(data, output, validation=validation, **options)


@pytest.fixture(scope="module")
def validated(squares, tmp_path_factory):
    return _train(squares, tmp_path_factory.mktemp("validated"), small_validation(squares))


@pytest.mark.parametrize("windows, interval, workers", [("centre", 5, 0), ("centre", 1, 2),
                                                        ("sliding", 7, 1)])
def test_validation_changes_no_bit_of_the_weights(squares, uninterrupted, tmp_path,
                                                  windows, interval, workers):
    weights = _train(squares, tmp_path, small_validation(squares, interval, windows=windows),
                     workers=workers)
    assert_same_run(weights, uninterrupted)
    assert weights.read_bytes() == uninterrupted.read_bytes()
    assert [point["iteration"] for point in read_points(tmp_path)] == [
        step for step in range(1, 13) if step % interval == 0 or step == 12]
    assert torch.get_num_threads() == 1  # as the settings say


def test_validation_says_what_it_tested(squares, validated):
    output = validated.parent
    assert sorted(path.name for path in output.iterdir()) == [
        ".lock", "best.pt", "log.txt", "losses.jsonl", "settings.json", "validation.jsonl",
        "weights.pt"]
    for point in read_points(output):
        assert point["windows"] == "centre" and point["split"] == "val"
        assert (point["images"], point["failed"]) == (2, 0)
    log = (output / "log.txt").read_text()
    assert (f"validation after every 5 steps and the last: 2 images of {squares}, val; one centre "
            "window of 57 pixels per image, which is quicker and not the figure of") in log
    assert log.count("validation after step") == 3


def test_sliding_windows_give_the_figure_of_evaluate(squares, tmp_path):
    weights = _train(squares, tmp_path, small_validation(squares, 12, windows="sliding"))
    net = model_file.load_model(weights).for_inference()
    matrix = evaluate(net, read_list(squares / "val.txt"), classes=4, protocol=PROTOCOL,
                      progress=False)
    point, = read_points(tmp_path)
    assert {name: point[name] for name in module.FIGURES} == {
        name: matrix.figures[name] for name in module.FIGURES}


def test_centre_windows_are_cut_by_hand(squares, tmp_path):
    """The images have 72 pixels a side, so that none is resized: the middle 57 of them count."""
    weights = _train(squares, tmp_path, small_validation(squares, 12))
    net, matrix = model_file.load_model(weights).for_inference(), ConfusionMatrix(4)
    for pair in read_list(squares / "val.txt"):
        image, label = read_pair(pair, 4)
        window = image[7:64, 7:64].astype(np.float32) - np.float32([103.939, 116.779, 123.68])
        with torch.no_grad():
            scores = net(torch.from_numpy(window.transpose(2, 0, 1)[None].copy()))
        matrix.update(scores[0].argmax(0).numpy(), label[7:64, 7:64])
    point, = read_points(tmp_path)
    assert point["mean_iou"] == pytest.approx(matrix.mean_iou, abs=2e-3)
    assert abs(point["pixel_accuracy"] - matrix.pixel_accuracy) <= 2e-3


@pytest.mark.parametrize("base_size, windows, seen", [
    (71, "centre", ""), (512, "sliding", ""),
    (512, "centre", "note: the centre windows see 1% of ")])
def test_windows_that_see_little_are_told_of(squares, base_size, windows, seen):
    protocol = dataclasses.replace(PROTOCOL, base_size=base_size)
    said = small_validation(squares, windows=windows, protocol=protocol).check(4)
    assert said.startswith(seen) and bool(said) == bool(seen)


@pytest.mark.parametrize("padding, first", [("end", 0), ("centre", 6)])
def test_images_smaller_than_the_window_have_an_unlabelled_border(padding, first):
    protocol = Protocol(44, 57, padding=padding)
    image, label = np.full((45, 45, 3), 200, np.uint8), np.ones((45, 45), np.uint8)
    inside = np.zeros((57, 57), bool)
    inside[first:first + 45, first:first + 45] = True
    assert np.array_equal(centre_of_label(label, protocol), np.where(inside, 1, 255))
    window = centre_of_image(image, protocol)
    assert np.array_equal((window != 0).all(0), inside) and (window[:, ~inside] == 0).all()


def test_best_is_the_first_of_the_highest(squares, tmp_path, monkeypatch):
    figures = iter([0.25, 0.5, 0.5, 0.125])
    monkeypatch.setattr(
        module.Validator, "_figures",
        lambda *_: ({"mean_iou": next(figures), "pixel_accuracy": 0.5, "mean_accuracy": 0.5}, 2, 0))
    _train(squares, tmp_path, small_validation(squares, 3))
    best = plain_file.load(tmp_path / "best.pt")
    assert best["iteration"] == 6 and best["validation"] == read_points(tmp_path)[1]


def test_best_loads_as_weights_do(squares, validated):
    best = validated.parent / "best.pt"
    highest = max(read_points(validated.parent), key=lambda point: point["mean_iou"])
    content, weights = plain_file.load(best), plain_file.load(validated)
    assert content.keys() - weights.keys() == {"iteration", "validation"}
    assert content["iteration"] == highest["iteration"] and content["validation"] == highest
    assert {name: content[name] for name in weights if name != "weights"} == {
        name: weights[name] for name in weights if name != "weights"}
    file = read_network(best)
    assert file.crop_size == 57 and not file.net.training


def _stop_at_image(monkeypatch, number, act):
    """act() when so many validation images were read."""
    read = []

    def read_and_stop(*arguments):
        read.append(1)
        if len(read) == number:
            act()
        return read_pair(*arguments)

    monkeypatch.setattr(module, "read_pair", read_and_stop)
    monkeypatch.setattr(module, "BATCH_SIZE", 1)


@pytest.mark.parametrize("image, step", [(1, 5), (2, 5), (4, 10), (5, 12), (6, 12)])
def test_ctrl_c_in_a_validation_loses_no_step(squares, uninterrupted, validated,
                                              tmp_path, monkeypatch, image, step):
    _stop_at_image(monkeypatch, image, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(Interrupted, match=f"stopped after step {step} of 12, in its validation; "
                                          "the same command resumes"):
        _train(squares, tmp_path, small_validation(squares))
    monkeypatch.undo()
    assert plain_file.load(tmp_path / "checkpoint.pt")["iteration"] == step
    assert not (tmp_path / "weights.pt").exists()
    assert_same_run(_train(squares, tmp_path, small_validation(squares)), uninterrupted)
    assert read_points(tmp_path) == read_points(validated.parent)
    assert (tmp_path / "best.pt").read_bytes() == (validated.parent / "best.pt").read_bytes()
    assert f"stopped after step {step} of 12" in (tmp_path / "log.txt").read_text()


@pytest.mark.parametrize("written", ["nothing", "best.pt", "both"])
def test_a_killed_training_has_each_line_once(squares, uninterrupted, validated,
                                              tmp_path, monkeypatch, written):
    """Killed in the test after step 10, before, between and after its two files."""
    add, save = module.add_point, model_file.save_model

    def cut(path, point):
        if point["iteration"] == 10 and written == "best.pt":
            raise RuntimeError("power cut")
        add(path, point)
        if point["iteration"] == 10:
            raise RuntimeError("power cut")

    def cut_before(path, model, **facts):
        if path.name == "best.pt" and facts["iteration"] == 10 and written == "nothing":
            raise RuntimeError("power cut")
        save(path, model, **facts)

    monkeypatch.setattr(module, "add_point", cut)
    monkeypatch.setattr(model_file, "save_model", cut_before)
    with pytest.raises(RuntimeError, match="power cut"):
        _train(squares, tmp_path, small_validation(squares))
    monkeypatch.undo()
    assert_same_run(_train(squares, tmp_path, small_validation(squares)), uninterrupted)
    assert read_points(tmp_path) == read_points(validated.parent)
    assert (tmp_path / "best.pt").read_bytes() == (validated.parent / "best.pt").read_bytes()


def test_a_resumed_training_may_be_tested_otherwise(squares, uninterrupted, tmp_path, monkeypatch):
    _stop_at_image(monkeypatch, 4, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Interrupted):
        _train(squares, tmp_path, small_validation(squares, 3))
    monkeypatch.undo()
    first = plain_file.load(tmp_path / "best.pt")
    assert first["iteration"] == 3
    weights = _train(squares, tmp_path, small_validation(squares, 4, windows="sliding"))
    assert_same_run(weights, uninterrupted)
    assert [(point["iteration"], point["windows"]) for point in read_points(tmp_path)] == [
        (3, "centre"), (8, "sliding"), (12, "sliding")]
    # Figures of other windows are not comparable.
    assert plain_file.load(tmp_path / "best.pt")["validation"]["windows"] == "sliding"


def test_images_that_cannot_be_used_are_left_out_and_named(squares, tmp_path):
    (tmp_path / "bad.png").write_text("no image")
    (tmp_path / "label.png").write_bytes((squares / "0_label.png").read_bytes())
    (tmp_path / "val.txt").write_text("bad.png label.png\n")
    pairs = read_list(squares / "val.txt") + read_list(tmp_path / "val.txt")
    _train(squares, tmp_path / "run", small_validation(squares, 6, pairs=pairs))
    assert [(point["images"], point["failed"])
            for point in read_points(tmp_path / "run")] == [(2, 1), (2, 1)]
    log = (tmp_path / "run" / "log.txt").read_text()
    assert f"left out of the validation: {tmp_path / 'bad.png'}: not an image" in log
    assert "(2 images, 1 left out)" in log


def test_validation_data_are_checked_before_the_first_step(squares, tmp_path):
    pairs = read_list(squares / "val.txt")
    (tmp_path / "val.txt").write_text("a.png b.png\n")
    with pytest.raises(UserError, match="a.png: no such file, but the validation needs it"):
        _train(squares, tmp_path / "run", small_validation(squares, pairs=[*pairs, *read_list(
            tmp_path / "val.txt")]))
    label = np.zeros((72, 72), np.uint8)
    label[7:64, 7:64] = 255  # the centre window
    cv2.imwrite(str(tmp_path / "b.png"), label)
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((72, 72, 3), np.uint8))
    dark = read_list(tmp_path / "val.txt")
    with pytest.raises(UserError, match="no validation image has a labelled pixel in its centre "
                                        "window, so no accuracy is defined"):
        _train(squares, tmp_path / "run", small_validation(squares, pairs=dark))
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]
    small_validation(squares, pairs=dark, windows="sliding").check(4)


def test_best_stays_where_the_lines_are_gone(squares, tmp_path, monkeypatch):
    figures = iter([0.5, 0.25, 0.25, 0.25, 0.25])
    monkeypatch.setattr(
        module.Validator, "_figures",
        lambda *_: ({"mean_iou": next(figures), "pixel_accuracy": 0.5, "mean_accuracy": 0.5}, 2, 0))

    def stop(_net):
        os.kill(os.getpid(), signal.SIGTERM)
        return {}

    with pytest.raises(Interrupted):
        _train(squares, tmp_path, small_validation(squares, 3), watch=(7, stop))
    (tmp_path / "validation.jsonl").unlink()
    _train(squares, tmp_path, small_validation(squares, 3))
    assert [point["iteration"] for point in read_points(tmp_path)] == [9, 12]
    assert plain_file.load(tmp_path / "best.pt")["iteration"] == 3


def test_best_of_no_validation_is_kept(squares, tmp_path):
    mine = tmp_path / "best.pt"
    for validation in ({}, {"validation": 3}, {"validation": {"iteration": 0, "mean_iou": "high"}}):
        plain_file.save(mine, {"training": train_settings(squares).to_json(), **validation})
        before = mine.read_bytes()
        with pytest.raises(UserError, match="best.pt: is there already, and no validation wrote"):
            _train(squares, tmp_path, small_validation(squares))
        assert mine.read_bytes() == before
    mine.write_bytes(b"")
    with pytest.raises(UserError, match="best.pt: this is an empty file.*choose another --output"):
        _train(squares, tmp_path, small_validation(squares))


def test_lines_that_are_a_folder_are_refused(squares, tmp_path):
    (tmp_path / "validation.jsonl").mkdir()
    with pytest.raises(UserError, match="validation.jsonl: must be a file, and is a folder"):
        _train(squares, tmp_path, small_validation(squares))


@pytest.mark.parametrize("name, text", [
    ("best.pt", "mine"), ("validation.jsonl", "mine"), ("validation.jsonl", '{"iteration": 1}\n'),
    ("validation.jsonl", "[1]\n")])
def test_validation_keeps_files_of_its_outputs_names(squares, tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=name):
        _train(squares, tmp_path, small_validation(squares))
    assert (tmp_path / name).read_text() == text
    assert not (tmp_path / "log.txt").exists() and not (tmp_path / "weights.pt").exists()
