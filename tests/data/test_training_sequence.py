"""The sequence of samples that a training sees."""

import os
import re
import shutil
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from helpers.refusals import refused

from pspnet_repro.data.augment import NO_AUGMENTATION, Augmentation
from pspnet_repro.data.labels import ZERO_IS_VOID
from pspnet_repro.data.pairs import read_list
from pspnet_repro.data.training_sequence import TrainingSequence, batches, on_device, spare_cores
from pspnet_repro.errors import UserError


def _sequence(data, table=None, **changes):
    settings = {"classes": 4, "crop_size": 41, "augmentation": Augmentation(), "seed": 3} | changes
    return TrainingSequence(read_list(data / "list.txt", table=table), **settings)


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_do_not_depend_on_workers(listed, workers):
    wanted = list(batches(_sequence(listed), 4, 1, 5, 0))
    actual = list(batches(_sequence(listed), 4, 1, 5, workers))
    assert len(wanted) == len(actual) == 4
    for (image, label), (image0, label0) in zip(actual, wanted):
        assert torch.equal(image, image0) and torch.equal(label, label0)
    assert image.shape == (4, 3, 41, 41) and image.dtype == torch.float32
    assert label.shape == (4, 41, 41) and label.dtype == torch.uint8


def test_sequence_visits_every_image_once_an_epoch(listed):
    sequence = _sequence(listed)
    for epoch in range(3):
        assert len({sequence.pair(p).image for p in range(6 * epoch, 6 * epoch + 6)}) == 6
    orders = [[sequence.pair(p).image for p in range(6 * e, 6 * e + 6)] for e in range(4)]
    assert len({tuple(order) for order in orders}) > 1


def test_sequence_differs_between_seeds_and_epochs(listed):
    first, other = _sequence(listed), _sequence(listed, seed=4)
    assert not torch.equal(first[0][0], other[0][0])
    again = _sequence(listed)
    assert torch.equal(first[7][0], again[7][0])


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_name_the_bad_file(listed, workers):
    (listed / "3.png").write_text("broken")
    with pytest.raises(UserError, match="3.png: not an image that OpenCV can read"):
        list(batches(_sequence(listed), 6, 0, 1, workers))


@pytest.mark.parametrize("classes, zero_is_void, values, words", [
    (4, False, [255], r"every pixel is unlabelled \(255\): give pixels the index .* 0 to 3"),
    (4, True, [0], r"every pixel is unlabelled \(0\): give pixels the index of their class"),
    (2, False, [0, 255], r"class 0 is the only one, and other pixels are unlabelled \(255\): in "
     "masks of 0 and 255 write 1 in place of 255"),
    (1, False, [0, 255], "class 0 .* in masks of 0 and 255 write 1 in place of 255, for 2 classes"),
    (2, True, [0, 1], r"class 0 .* unlabelled \(0\): where 0 and 1 are the two classes, leave "
     "out --zero-is-void")])
def test_labels_that_teach_nothing_are_refused(listed, classes, zero_is_void, values, words):
    for k in range(6):
        label = np.resize(np.array(values, np.uint8), (50, 70))
        cv2.imwrite(str(listed / f"{k}_label.png"), label)
    sequence = _sequence(listed, ZERO_IS_VOID if zero_is_void else None, classes=classes)
    refused(f"0_label.png and 5 of the other 5 label files: {words}", list,
            batches(sequence, 2, 0, 1, 0))


@pytest.mark.parametrize("classes, values", [(2, [0]), (2, [1]), (2, [1, 255]), (3, [0, 255]),
                                             (254, [7])])
def test_labels_of_one_class_are_noted(listed, capfd, classes, values):
    for k in range(6):
        label = np.resize(np.array(values, np.uint8), (50, 70))
        cv2.imwrite(str(listed / f"{k}_label.png"), label)
    assert len(list(batches(_sequence(listed, classes=classes), 2, 0, 1, 0))) == 1
    assert capfd.readouterr().err == (f"note: {listed}/0_label.png and 5 of the other 5 label "
                                      f"files hold no class but {values[0]}\n")


def test_one_labelled_file_is_enough(listed):
    for k in range(5):
        cv2.imwrite(str(listed / f"{k}_label.png"), np.full((50, 70), 255, np.uint8))
    assert len(list(batches(_sequence(listed), 2, 0, 1, 0))) == 1


def test_an_image_that_is_too_large_when_enlarged_is_refused(squares, monkeypatch):
    pairs = read_list(squares / "train.txt")
    monkeypatch.setattr("pspnet_repro.data.training_sequence.MAX_PIXELS", 4 * 72 * 72 - 1)
    whole = TrainingSequence(pairs, 4, 57, NO_AUGMENTATION, 0)[0]
    assert whole[0].shape == (3, 57, 57)
    error = TrainingSequence(pairs, 4, 57, Augmentation(), 0)[0]
    assert re.search("png: must have at most 5183 pixels, as a training enlarges it up to 2 times, "
                     "has 72 x 72: .* --augmentation none", str(error))


def test_batches_reach_the_cpu_as_they_are(listed):
    wanted = list(batches(_sequence(listed), 4, 1, 4, 0))
    for (image, label), (image0, label0) in zip(
            on_device(iter(wanted), torch.device("cpu")), wanted, strict=True):
        assert image is image0 and label is label0


@pytest.mark.parametrize("cores, device, processes, free, workers", [
    (16, "cuda", 1, 2 ** 40, 8), (16, "cuda", 4, 2 ** 40, 3), (2, "cuda", 1, 2 ** 40, 1),
    (2, "cuda", 4, 2 ** 40, 0), (2, "cpu", 1, 2 ** 40, 0), (8, "cpu", 1, 2 ** 40, 6),
    (16, "cuda", 1, 2 ** 26, 0), (16, "cuda", 1, 2 ** 28, 1)])
def test_workers_are_as_many_as_cores_and_memory_are_free(
        monkeypatch, cores, device, processes, free, workers):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    monkeypatch.setattr(os.path, "isdir", lambda _: True)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    batch = 16 * 473 ** 2 // processes
    assert spare_cores(torch.device(device), 2, batch) == workers
