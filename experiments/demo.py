"""From nothing to a picture: trains two rows on the drawn scenes and shows what they see."""

import argparse
from collections.abc import Iterator

from pspnet_repro.data.scenes import draw_scene
from pspnet_repro.evaluation import ConfusionMatrix
from pspnet_repro.evaluation.predictor import Predictor
from pspnet_repro.evaluation.viewer import ViewerImage, write_viewer
from pspnet_repro.outputs import Outputs
from pspnet_repro.training.run_folder import WEIGHTS

from . import run_table
from .experiment import Experiment
from .places import CACHE_FOLDER, RUNS_FOLDER
from .plan import select_tables
from .profiles import PROFILES
from .rows import BASELINE, FULL

MINI, ROWS = PROFILES["mini"], f"{BASELINE},{FULL}"
NAMES = {BASELINE: "without the pyramid", FULL: "PSPNet"}
# Of the same drawing as the 400 scenes of the training and the 100 of the test, which they follow.
SCENES = range(500, 506)


def draw_pictures(predictors: dict[str, Predictor]) -> Iterator[ViewerImage]:
    """One of each of SCENES; the predictors by the names of the networks."""
    for number in SCENES:
        image, truth = draw_scene(0, number)
        predictions = {name: predictor(image[:, :, ::-1])
                       for name, predictor in predictors.items()}
        yield ViewerImage(
            f"scene {number}", predictions[NAMES[FULL]].image,
            {name: each.labels for name, each in predictions.items()}, truth,
            {name: each.confidence for name, each in predictions.items()},
            {name: _iou(each.labels, truth) for name, each in predictions.items()})


def _iou(labels, truth):
    """{class: IoU} of the classes that occur."""
    matrix = ConfusionMatrix(len(MINI.classes))
    matrix.update(labels, truth)
    return {name: iou for name, iou, union in zip(MINI.classes, matrix.iou.tolist(), matrix.union)
            if union}


def run(args: argparse.Namespace) -> int:
    """Do the work of the command `demo`; returns its exit code."""
    runs, cache = args.runs or RUNS_FOLDER, args.cache or CACHE_FOLDER
    output = args.output or runs / "demo"
    page, outputs = output / "index.html", Outputs(output)
    outputs.claim([page])
    print("Two networks, a baseline and a PSPNet, are trained on 400 drawn scenes: two minutes on "
          "two cores, unless that was done before.", flush=True)
    code = run_table.main(["--rows", ROWS, f"--runs={runs}", f"--cache={cache}",
                           f"--output={output / 'table'}"])
    if code:
        return code
    experiment = Experiment(MINI, MINI.folder(None, cache), runs / MINI.name)
    trainings, _ = experiment.plan(select_tables("1", ROWS), seeds=1)
    predictors = {NAMES[training.row]: Predictor(training.folder / WEIGHTS,
                                                 protocol=MINI.protocol)
                  for training in trainings}
    write_viewer(page, "Six scenes that the training never saw", MINI.names_and_colours,
                 draw_pictures(predictors), list(predictors),
                 write=lambda path, fill: outputs.write({path: fill}))
    print(f"\nThe page is {page}: open it in a browser.\n"
          "The same with your own photographs and weights:\n"
          "    pspnet predict FOLDER --weights WEIGHTS -o OUT --html\n"
          f"These scenes' PSPNet is {trainings[-1].folder / WEIGHTS}.")
    return 0
