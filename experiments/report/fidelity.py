"""What each deviation from the authors' program costs."""

import math

import numpy as np

from .charts import costs_figure
from .document import Chart, Heading, Table, Text
from .resampling import DRAWS, SHARE
from .results import METRICS
from ..rows import TABLES

FIRST, *OTHERS = TABLES["fidelity"]
RETESTED, RETRAINED = "The same network, tested otherwise", "Trained otherwise"


def costs(results):
    """Differences of the rows of the table `fidelity` to its first, by seed.

    Args:
        results: Results.
    Returns:
        {RETESTED: [(Row, {metric: Spread})], RETRAINED: ...}, in the order of the rows; without a
        seed in common with the first row the Spreads are None.
    """
    groups = {RETESTED: [], RETRAINED: []}
    for row in OTHERS:
        same = (row.model, row.train) == (FIRST.model, FIRST.train)
        cost = dict.fromkeys(METRICS)
        if row.name in results and FIRST.name in results:
            found = {metric: results.spread(row.name, metric).minus(
                results.spread(FIRST.name, metric)) for metric in METRICS}
            cost = found if found["mean_iou"].values else cost
        groups[RETESTED if same else RETRAINED].append((row, cost))
    return groups


def within_spread(cost):
    """Whether a mean difference is not larger than its deviation over the seeds."""
    return cost.deviation is not None and abs(cost.mean) <= cost.deviation


def chance_beyond(seeds):
    """Share of rows without any effect whose mean lies beyond its deviation over the seeds.

    For normal figures: how often Student's t of seeds - 1 degrees exceeds the root of seeds.
    """
    degrees, end = seeds - 1, math.sqrt(seeds)
    places = np.linspace(0, end, 10_001)
    heights = (1 + places ** 2 / degrees) ** (-seeds / 2)
    area = (heights.sum() - (heights[0] + heights[-1]) / 2) * places[1]
    scale = math.exp(math.lgamma(seeds / 2) - math.lgamma(degrees / 2))
    return 1 - 2 * area * scale / math.sqrt(degrees * math.pi)


def _sentence(group):
    """What the costs of a group amount to, [(Row, Spread of mean IoU)]."""
    idle = [row.label for row, cost in group if not any(cost.values.values())]
    group = [(row, cost) for row, cost in group if any(cost.values.values())]
    text = f"Without any effect on mean IoU here: {'; '.join(idle)}. " if idle else ""
    if not group:
        return text.strip()
    lower = [(row, cost) for row, cost in group if cost.mean < 0]
    beyond = [item for item in lower if not within_spread(item[1])]
    if beyond:
        row, cost = min(beyond, key=lambda item: item[1].mean)
        known = " beyond its spread" * (cost.deviation is not None)
        text += (f"The largest cost{known} is that of \N{LEFT DOUBLE QUOTATION MARK}{row.label}"
                 f"\N{RIGHT DOUBLE QUOTATION MARK}: {cost.text('+')} points of mean IoU.")
    else:
        text += (f"No row falls below {FIRST.label} in mean IoU"
                 f"{' by more than its spread' if lower else ''}.")
    if any(cost.deviation is None for _, cost in group):
        return text + " One seed was run, so that nothing is known of the spread."
    outside = [f"{row.label} ({cost.text('+')})" for row, cost in group if not within_spread(cost)]
    if len(outside) < len(group):
        text += (f" {len(group) - len(outside)} of {len(group)}{' other' * bool(idle)} changes in "
                 "mean IoU are within their own spread over the seeds: no effect is shown for "
                 "them.")
    return text + (f" Beyond their own spread: {'; '.join(outside)}." if outside else "")


def _line(row, cost, results):
    cells = [row.label]
    for metric in METRICS:
        spread = results.spread(row.name, metric)
        cells += [spread.text() if spread else "-", cost[metric].text("+") if cost[metric] else "-",
                  cost[metric].interval_text() if cost[metric] else "-"]
    if not cost["mean_iou"] or cost["mean_iou"].deviation is None:
        return (*cells, "-")
    if not any(value for metric in METRICS for value in cost[metric].values.values()):
        return (*cells, "no effect")
    within = [words for metric, words in METRICS.items() if within_spread(cost[metric])]
    return (*cells, ", ".join(within) or "none")


def fidelity_blocks(results, profile):
    """The table `fidelity` as parts of a report; a group none of whose rows was run is left out."""
    seeds = results.seeds
    doubt = (f" One beyond it is a hint, no proof: with {seeds} seeds "
             f"{100 * chance_beyond(seeds):.0f}% of rows without any effect lie beyond theirs."
             if seeds > 1 else "")
    blocks = [Heading(2, "Fidelity: what each deviation costs"),
              Text("Each row deviates from the authors' program in one thing. Change: the row "
                   f"minus {FIRST.label}, seed by seed, in points; mean ± sample deviation over "
                   "the seeds. A negative change is what the deviation costs. A change no larger "
                   f"than its deviation is called within the spread.{doubt} Over images: the "
                   f"change in the middle {SHARE}% of {DRAWS} draws, {results.how_drawn}, of the "
                   "test images; it says how much a change hangs on them, not on the seed.")]
    if profile.fidelity_note:
        blocks.append(Text(profile.fidelity_note))
    if FIRST.name not in results:
        return [*blocks, Text(f"{FIRST.label} was not run, so that no cost is known.")]
    heads = ("Row", *(word for words in METRICS.values() for word in
                       (words, f"change in {words}", f"its {SHARE}% over images")),
             "changes within the spread")
    drawn = {}
    for name, group in costs(results).items():
        if not any(row.name in results for row, _ in group):
            continue
        known = [(row, cost["mean_iou"]) for row, cost in group if cost["mean_iou"]]
        lines = [_line(FIRST, dict.fromkeys(METRICS), results),
                 *(_line(row, cost, results) for row, cost in group)]
        blocks += [Heading(3, name), *([Text(_sentence(known))] if known else []),
                   Table(f"{name}: figures in percent", heads, tuple(lines))]
        if known:
            drawn[name] = [(row.label, cost) for row, cost in known]
    if drawn:
        blocks.append(Chart(
            "report-fidelity", "Change by each deviation in points of mean IoU, with its spread",
            lambda: costs_figure(drawn)))
    return blocks
