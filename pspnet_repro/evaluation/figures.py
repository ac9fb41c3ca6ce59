"""Charts."""

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from pspnet_repro.evaluation.metrics import ConfusionMatrix

MAX_NAME = 40  # characters


def confusion_png(matrix: ConfusionMatrix, names: Sequence[str]) -> bytes:
    """A PNG file's bytes: the matrix, each row a share of its class's labelled pixels."""
    shares = matrix.counts / np.maximum(matrix.counts.sum(1, keepdims=True), 1)
    few = len(names) <= 30
    side = 3.5 + (0.26 if few else 0.12) * max(len(names), 6)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    picture = axes.imshow(100 * shares, cmap="Blues", vmin=0, vmax=100)
    names = [name if len(name) <= MAX_NAME else f"{name[:MAX_NAME - 1]}\N{HORIZONTAL ELLIPSIS}"
             for name in names]
    axes.set_xticks(range(len(names)), names, rotation=90, parse_math=False)
    axes.set_yticks(range(len(names)), names, parse_math=False)
    axes.tick_params(labelsize=8 if few else 5.5)
    axes.set_xlabel("predicted", fontsize=max(10, side))
    axes.set_ylabel("label", fontsize=max(10, side))
    axes.set_title(f"mean IoU {100 * matrix.mean_iou:.2f}, pixel accuracy "
                   f"{100 * matrix.pixel_accuracy:.2f}", fontsize=max(12, side))
    if few:
        for y, x in zip(*np.nonzero(shares >= 0.005)):
            axes.text(x, y, f"{100 * shares[y, x]:.0f}", ha="center", va="center", fontsize=7,
                      color="white" if shares[y, x] > 0.5 else "black")
    figure.colorbar(picture, label="% of the label's pixels", shrink=0.7, aspect=30, pad=0.01)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
