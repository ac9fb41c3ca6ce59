"""Fixtures for tests of several folders."""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.register_assert_rewrite("helpers")

from helpers.browser import Page
from helpers.image_files import GREY, put
from helpers.paths import ROOT
from helpers.processes import Processes


def pytest_collection_modifyitems(items):
    """Files with slow tests come first, so that at the end no process waits long for another."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(scope="session")
def shared():
    """The folder of shared data, where there is one."""
    folder = Path(os.environ.get("PSPNET_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no shared data at {folder}; set PSPNET_SHARED")
    return folder


@pytest.fixture(autouse=True)
def _same_start():
    """Every test starts from the same seed and number of threads, whatever ran before it."""
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def group_of(tmp_path_factory):
    """size -> Processes of that many, made once."""
    groups = {}

    def group(size):
        if size not in groups:
            groups[size] = Processes(size, tmp_path_factory.mktemp("meeting") / "file")
        return groups[size]

    yield group
    for made in groups.values():
        made.close()


@pytest.fixture
def two(group_of):
    """Two processes in one group."""
    return group_of(2)


@pytest.fixture(scope="module")
def squares(tmp_path_factory):
    """Eight images of coloured squares whose labels follow their colours; train.txt, val.txt."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    lines = []
    for k in range(8):
        label = np.kron(rng.integers(0, 4, (3, 3)), np.ones((24, 24))).astype(np.uint8)
        put(folder / f"{k}.png", np.stack([60 * label, 255 - 60 * label, 90 + 20 * label], 2))
        put(folder / f"{k}_label.png", label)
        lines.append(f"{k}.png {k}_label.png\n")
    (folder / "train.txt").write_text("".join(lines))
    (folder / "val.txt").write_text("".join(lines[:2]))
    return folder


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A page of a browser; skips where there is none."""
    with Page(tmp_path_factory.mktemp("browser") / "profile") as page:
        yield page


@pytest.fixture
def ade(tmp_path):
    """ADE20K in small."""
    root = tmp_path / "ADEChallengeData2016"
    for part, numbers in (("training", (1, 2)), ("validation", (1,))):
        for k in numbers:
            name = f"ADE_{part[:5]}_{k:08d}"
            put(root / "images" / part / f"{name}.jpg", GREY)
            put(root / "annotations" / part / f"{name}.png", [[0, 1, 150], [2, 3, 4]])
    put(tmp_path / "release_test" / "testing" / "ADE_test_00000007.jpg", GREY)
    return tmp_path


@pytest.fixture
def voc(tmp_path):
    """VOC 2012 in small."""
    root = tmp_path / "VOCdevkit" / "VOC2012"
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for split, names in (("train", "a"), ("val", "b"), ("train_aug", "ac"), ("test", "t")):
        (lists / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
    for name in "abct":
        put(root / "JPEGImages" / f"{name}.jpg", GREY)
    for name in "ab":
        label = Image.fromarray(np.array([[0, 1, 20], [255, 0, 0]], np.uint8), "L").convert("P")
        palette = [128, 64, 0] * 256
        label.putpalette(palette)
        label.putdata([0, 1, 20, 255, 0, 0])
        (root / "SegmentationClass").mkdir(exist_ok=True)
        label.save(root / "SegmentationClass" / f"{name}.png")
    for name in "ac":
        put(root / "SegmentationClassAug" / f"{name}.png", [[0, 1, 20], [255, 0, 0]])
    return tmp_path
