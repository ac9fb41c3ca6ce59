"""From nothing to a page, with networks that were not trained."""

import functools
import json

from experiments import demo
from experiments.experiment import Experiment
from experiments.plan import select_tables
from pspnet_repro import PSPNet
from pspnet_repro.__main__ import main
from pspnet_repro.data import scenes
from pspnet_repro.outputs import LIST
from pspnet_repro.weights import model_file


def test_demo_trains_and_shows_scenes_that_the_training_never_saw(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(scenes, "write_scenes",
                        functools.partial(scenes.write_scenes, train=2, val=1))
    asked = []

    def train(words):
        asked.append(words)
        experiment = Experiment(demo.MINI, demo.MINI.folder(None, tmp_path / "cache"),
                                tmp_path / "runs" / "mini")
        trainings, _ = experiment.plan(select_tables("1", demo.ROWS), 1)
        for training in trainings:
            model_file.save_model(training.folder / "weights.pt", PSPNet(**training.settings.model))
        return 0

    monkeypatch.setattr(demo.run_table, "main", train)
    words = [f"--output={tmp_path / 'out'}", f"--runs={tmp_path / 'runs'}",
             f"--cache={tmp_path / 'cache'}"]
    assert main(["demo", *words]) == 0
    assert ["--rows", demo.ROWS] == asked[0][:2]
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert all(f"scene {number}" in page for number in range(500, 506))
    assert "without the pyramid" in page and "skyscraper" in page
    said = capsys.readouterr().out
    assert f"The page is {tmp_path / 'out' / 'index.html'}" in said
    assert "pspnet predict FOLDER --weights WEIGHTS -o OUT --html" in said
    assert main(["demo", *words]) == 0  # its own page is replaced
    assert [each["name"] for each in json.loads((tmp_path / "out" / LIST).read_text())][0] == (
        "index.html")
    (tmp_path / "out" / "index.html").write_text("mine")
    assert main(["demo", *words]) == 1 and len(asked) == 2
    assert (tmp_path / "out" / "index.html").read_text() == "mine"


def test_demo_ends_where_its_training_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(demo.run_table, "main", lambda words: 130)
    assert main(["demo", f"--output={tmp_path / 'out'}"]) == 130
    assert not (tmp_path / "out").exists()
