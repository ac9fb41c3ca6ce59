"""The charts of a report, narrow enough to be read on a phone."""

import io
import re
import textwrap
from collections.abc import Sequence
from html import escape

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from .document import Chart
from .results import Spread

WIDTH = 4.6  # inches
INK = "#1b1f24"  # becomes the page's own colour of text
COLOURS = ("#2f7fd6", "#e08a00", "#12a37a", "#d9483b", "#9a6ad6", "#8f7a5a", "#d65fa5", "#7f8a94")
LINES = ("-", "--", ":")
LOSS_POINTS = 120
DRAWN_CLASSES = 12
LONG_NAME = 26  # characters, of names that stand in two columns

STYLE = {
    "font.size": 10, "font.family": "DejaVu Sans", "text.parse_math": False,
    "svg.fonttype": "none", "axes.spines.top": False, "axes.spines.right": False,
    "axes.unicode_minus": False, "axes.titlesize": 10, "axes.titleweight": "bold",
    "legend.frameon": False, "legend.fontsize": 9, "grid.alpha": 0.25, "axes.grid": True,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color",
                     "ytick.color", "axes.titlecolor", "grid.color"), INK)}


def _save(chart, kind, **how):
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": chart.name}):
        buffer = io.BytesIO()
        # Without dates and versions, so that the same results give the same bytes.
        metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
        chart.figure().savefig(buffer, format=kind, metadata=metadata, **how)
        return buffer.getvalue()


def chart_png(chart: Chart) -> bytes:
    """The content of a PNG file."""
    return _save(chart, "png", dpi=140)


def chart_svg(chart: Chart) -> str:
    """An svg element in the colours of the page that it stands in."""
    text = _save(chart, "svg", transparent=True).decode()
    text = text[text.index("<svg"):].replace(INK, "currentColor")
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{chart.name}-", text)
    text = text.replace(">", f"><title>{escape(chart.alt)}</title>", 1)
    return text.replace("<svg", '<svg role="img"', 1)


def _figure(height, columns=1, rows=1, **sharing):
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **sharing)


def _dot(axes, place, spread, colour):
    """The mean, with a line as long as the deviation on both sides."""
    axes.errorbar(spread.mean, place, xerr=spread.deviation, fmt="o", color=colour, capsize=3,
                  markersize=5)


def _name_above(axes, place, name):
    axes.annotate(name, (0, place - 0.22), xycoords=("axes fraction", "data"), fontsize=9,
                  va="bottom", annotation_clip=False)


def dots_figure(names: Sequence[str], ours: Sequence[Spread], paper: Sequence[Spread]) -> Figure:
    """The mean IoU of rows, ours and the paper's, each on an axis of its own."""
    figure, (panels,) = _figure(0.42 * len(names) + 0.7, 2, sharey=True)
    for axes, title, spreads, colour in zip(panels, ("ours", "paper"), (ours, paper), COLOURS):
        for place, spread in enumerate(spreads):
            _dot(axes, place, spread, colour)
        axes.margins(x=0.12)
        axes.set_ylim(len(names) - 0.4, -0.75)
        axes.tick_params(left=False, labelleft=False)
        axes.spines["left"].set_visible(False)
        axes.grid(False, axis="y")
        axes.set_title(title)
        axes.set_xlabel("mean IoU (%)")
    for place, name in enumerate(names):
        _name_above(panels[0], place, name)
    return figure


def costs_figure(groups: dict[str, Sequence[tuple[str, Spread]]]) -> Figure:
    """Differences to a row, {name of a group: [(label, Spread)]}."""
    lines = [line for group, costs in groups.items() for line in ((group, None), *costs)]
    figure, ((axes,),) = _figure(0.4 * len(lines) + 0.7)
    axes.axvline(0, color=INK, linewidth=0.8)
    for place, (label, spread) in enumerate(lines):
        if spread is None:
            axes.annotate(label, (0, place + 0.2), xycoords=("axes fraction", "data"), fontsize=10,
                          weight="bold", va="bottom")
            continue
        _dot(axes, place, spread, COLOURS[0])
        _name_above(axes, place, label)
    axes.set_ylim(len(lines) - 0.4, -0.9)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("change in mean IoU (points)")
    return figure


def depth_figure(depths: Sequence[int], ours: dict[str, dict[int, Spread]],
                 paper: dict[str, dict[int, Spread]]) -> Figure:
    """Figure 5: (mean IoU + pixel accuracy) / 2 against depth, {name of a line: {depth: Spread}};
    the paper's `depths` increase."""
    figure, ((left, right),) = _figure(2.7, 2)
    for axes, lines, title in ((left, ours, "ours"), (right, paper, "paper")):
        for number, (name, points) in enumerate(lines.items()):
            axes.errorbar([depths.index(depth) for depth in points],
                          [spread.mean for spread in points.values()],
                          yerr=[spread.deviation or 0 for spread in points.values()],
                          fmt="os"[number] + LINES[number], color=COLOURS[number], capsize=3,
                          markersize=5, label=name)
        axes.set_xticks(range(len(depths)), [str(depth) for depth in depths])
        axes.set_xlabel("depth")
        axes.set_title(title)
    left.set_ylabel("(mean IoU + pixel acc.) / 2 (%)")
    figure.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def thinned(values: np.ndarray) -> np.ndarray:
    """Means of equal stretches of a long curve: at most LOSS_POINTS values."""
    parts = np.array_split(values, min(LOSS_POINTS, len(values)))
    return np.array([part.mean() for part in parts])


def curves_figure(losses: dict[str, list], scores: dict[str, list]) -> Figure:
    """Loss and intermediate mean IoU in percent against the iteration, both {name: [(iterations,
    values) of each seed]}."""
    panels = 2 if scores else 1
    columns = 1 if max(map(len, losses)) > LONG_NAME else 2
    height = 2.1 * panels + 0.5 + 0.17 * -(-len(losses) // columns)
    figure, panel = _figure(height, rows=panels, sharex=True)
    for axes, curves, words in zip(panel[:, 0], (losses, scores),
                                   ("loss of the main branch", "mean IoU on a few images (%)")):
        for number, (name, seeds) in enumerate(curves.items()):
            look = {"color": COLOURS[number % len(COLOURS)], "linewidth": 1.4,
                    "linestyle": LINES[number // len(COLOURS) % len(LINES)]}
            length = min(len(x) for x, _ in seeds)
            values = np.array([y[:length] for _, y in seeds])
            x = seeds[0][0][:length]
            axes.plot(x, values.mean(0), **look,
                      label=textwrap.shorten(name, 2 * LONG_NAME, placeholder="..."))
            if len(seeds) > 1:
                axes.fill_between(x, values.min(0), values.max(0), alpha=0.12, linewidth=0,
                                  color=look["color"])
        # The first losses are so large that nothing could be told of the others.
        late = np.concatenate([line.get_ydata()[len(line.get_ydata()) // 20:]
                               for line in axes.lines])
        axes.set_ylim(0, 1.1 * max(late[np.isfinite(late)], default=1))
        axes.set_ylabel(words)
    panel[-1, 0].set_xlabel("iteration")
    figure.legend(*panel[0, 0].get_legend_handles_labels(), loc="outside lower center",
                  ncols=columns)
    return figure


def gains_figure(gains: dict[str, Spread]) -> Figure:
    """Differences in IoU, {class: Spread}; of many classes only those that change most."""
    order = sorted(gains, key=lambda name: -gains[name].mean)
    if len(order) > 2 * DRAWN_CLASSES:
        order = order[:DRAWN_CLASSES] + order[-DRAWN_CLASSES:]
    figure, ((axes,),) = _figure(0.22 * len(order) + 0.7)
    for place, gain in enumerate(map(gains.get, order)):
        axes.barh(place, gain.mean, 0.65, xerr=gain.deviation, ecolor=INK, capsize=2,
                  color=COLOURS[0] if gain.mean >= 0 else COLOURS[3])
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_yticks(range(len(order)), [textwrap.shorten(name, 24, placeholder="...")
                                        for name in order])
    axes.set_ylim(len(order) - 0.4, -0.6)
    axes.grid(False, axis="y")
    axes.set_xlabel("difference in IoU (points)")
    return figure
