"""Whole networks whose weights and inputs are drawn from a seed; OpenCV has run them.

`PYTHONPATH=tests python -m helpers.opencv_nets FOLDER` writes each into FOLDER as NAME.prototxt,
NAME.caffemodel, NAME.npy (the input) and NAME.json ({blob: its last layer}), for
tests/programs/record_opencv.py.
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np

from helpers.golden import GOLDEN
from prototxt_import import load_net, write_caffemodel

PROTOTXTS = sorted((GOLDEN / "opencv").glob("*.prototxt"))


def drawn_blobs(kind, shapes, random):
    """Blobs of a layer, in numpy's old generator, whose numbers no release changes."""
    if kind == "BatchNorm":
        # Sums of two batches, as a training leaves them.
        mean, variance = (random.randn(*shapes[0]) * 0.1, random.uniform(0.5, 1.5, shapes[1]))
        blobs = [2 * mean, 2 * variance, np.full(shapes[2], 2.0)]
    elif len(shapes[0]) > 1 and min(shapes[0][:2]) > 1 or kind in ("Convolution", "Deconvolution"):
        blobs = [random.randn(*shapes[0]) * np.sqrt(2 / np.prod(shapes[0][1:]))]
        blobs += [random.randn(*shape) * 0.1 for shape in shapes[1:]]
    else:
        blobs = [random.uniform(0.2, 1.2, shapes[0])]
        blobs += [random.randn(*shape) * 0.1 for shape in shapes[1:]]
    return [np.asarray(blob, np.float32) for blob in blobs]


def write_drawn(prototxt, caffemodel):
    """Write the weights of a network; return its input."""
    net, random = load_net(prototxt), np.random.RandomState(0)
    data = random.randn(*net.input_shapes["data"]).astype(np.float32)
    write_caffemodel(caffemodel, prototxt.stem, {
        step.layer.name: (step.layer.type, drawn_blobs(
            step.layer.type, [tuple(p.shape) for p in step.params], random))
        for step in net.steps if step.params})
    return data


def main(folder):
    for prototxt in PROTOTXTS:
        stem = folder / prototxt.stem
        np.save(stem.with_suffix(".npy"), write_drawn(prototxt, stem.with_suffix(".caffemodel")))
        shutil.copy(prototxt, folder)
        stem.with_suffix(".json").write_text(json.dumps(
            {layer.top[0]: layer.name for layer in load_net(prototxt).layers
             if layer.type != "Input"}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
