"""Trainings of the harness, run in this process."""

from experiments.experiment import Experiment
from experiments.rows import ROWS
from experiments.run_row import run_row


def plan_rows(experiment, *names):
    """(list of Training, {row name: [folder of its test]}) of rows with seed 0."""
    return experiment.plan({"any": [ROWS[name] for name in names]}, 1)


def run_rows(profile, data, runs, *names, backbones=None):
    """Train and test rows that share a training; the folders of their tests."""
    experiment = Experiment(profile, data, runs, backbones)
    (training,), folders = plan_rows(experiment, *names)
    run_row(experiment, training, progress=False)
    return [folders[name][0] for name in names]
