"""The embedded scenes."""

import json

import numpy as np

from pspnet_repro import PSPNet
from pspnet_repro.data import scenes
from pspnet_repro.data.classes import Classes, read_classes
from pspnet_repro.data.pairs import read_list, read_pair


def test_scenes_repeat_bitwise(tmp_path):
    a = scenes.write_scenes(tmp_path / "a", seed=1, train=3, val=2)
    b = scenes.write_scenes(tmp_path / "b", seed=1, train=3, val=2)
    files = sorted(p.relative_to(a) for p in a.rglob("*") if p.is_file())
    assert len(files) == 2 * 5 + 4 + 1  # lists, classes.txt and classes.json, and the lock
    for name in files:
        assert (a / name).read_bytes() == (b / name).read_bytes()
    assert not np.array_equal(scenes.draw_scene(1, 0)[0], scenes.draw_scene(2, 0)[0])


def test_scenes_are_ordinary_files(tmp_path):
    root = scenes.write_scenes(tmp_path, train=3, val=2)
    about = json.loads((root / "classes.json").read_text())
    assert about["classes"] == list(scenes.CLASSES)
    assert read_classes(root / "classes.txt") == Classes(scenes.CLASSES, scenes.PALETTE_RGB)
    assert len(read_list(root / "train.txt")) == 3
    for pair in read_list(root / "val.txt"):
        image, label = read_pair(pair, len(scenes.CLASSES))
        assert image.shape == (scenes.SIZE, scenes.SIZE, 3)
        assert label.max() < len(scenes.CLASSES)
    before = (root / "classes.json").stat().st_mtime_ns
    assert scenes.write_scenes(tmp_path, train=3, val=2) == root
    assert (root / "classes.json").stat().st_mtime_ns == before


def test_scenes_keep_cues_out_of_sight():
    """What depends on context is farther from every cue than the mini net can see."""
    from experiments.profiles import PROFILES
    profile = PROFILES["mini"]
    field = PSPNet(2, bins=(), **profile.model, **profile.depths[50]).receptive_field()
    contextual = np.flatnonzero(scenes.CONTEXTUAL)
    cues = [scenes.CLASSES.index(name) for name in ("sky", "sand", "pavement")]
    for number in range(40):
        label = scenes.draw_scene(0, number)[1]
        lowest_cue = np.flatnonzero(np.isin(label, cues).any(1)).max()
        first = np.flatnonzero(np.isin(label, contextual).any(1)).min()
        assert first - lowest_cue > field // 2


def test_scenes_agree_with_their_context():
    names = dict(enumerate(scenes.CLASSES))
    kinds = set()
    for number in range(60):
        image, label = scenes.draw_scene(0, number)
        present = {names[k] for k in np.unique(label)}
        assert not {"building", "skyscraper"} <= present
        hazy = image[:10].mean((0, 1))[0] < 207  # blue channel: 185 hazy, 230 clear
        assert ("building" in present) <= (not hazy) and ("skyscraper" in present) <= hazy
        for column in (0, scenes.SIZE - 1):
            strip = {names[k] for k in np.unique(label[:, column])}
            if "sand" in strip:
                assert not strip & {"road", "car"}
            if "pavement" in strip:
                assert not strip & {"water", "boat"}
        kinds |= present
    assert kinds == set(scenes.CLASSES)
