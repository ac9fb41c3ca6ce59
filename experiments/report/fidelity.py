"""The cost of each deviation from the authors' program."""

import math

import numpy as np

from ..profiles import Profile
from ..rows import ROWS, TABLES, Row
from .charts import costs_figure
from .document import Block, Chart, Heading, Table, Text
from .resampling import DRAWS, SHARE
from .results import METRICS, Results, Spread

FIRST, *OTHERS = TABLES["fidelity"]
RETESTED, RETRAINED = "Same training, different test", "Different training"


def costs(results: Results) -> dict[str, list[tuple[Row, dict[str, Spread]]]]:
    """Differences of the rows of the table `fidelity`, and of rows that no table has, to its first,
    by seed.

    Returns:
        {RETESTED: [(Row, {metric: Spread})], RETRAINED: ...}, in the order of the rows; without a
        seed in common with the first row the Spreads have no values.
    """
    groups = {RETESTED: [], RETRAINED: []}
    further = [Row(name, label=name, system=()) for name in results.runs if name not in ROWS]
    for row in (*OTHERS, *further):
        same = (row.model, row.train, row.system) == (FIRST.model, FIRST.train, None)
        cost = {metric: results.spread(row.name, metric).minus(results.spread(FIRST.name, metric))
                for metric in METRICS}
        groups[RETESTED if same else RETRAINED].append((row, cost))
    return groups


def within_spread(cost: Spread) -> bool:
    """Whether a mean difference is not larger than its deviation over the seeds."""
    return cost.deviation is not None and abs(cost.mean) <= cost.deviation


def chance_beyond(seeds: int) -> float:
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
    """The costs of a group, [(Row, Spread of mean IoU)], in words."""
    idle = [row.label for row, cost in group if not any(cost.values.values())]
    group = [(row, cost) for row, cost in group if any(cost.values.values())]
    text = f"No effect on mean IoU: {'; '.join(idle)}. " if idle else ""
    if not group:
        return text.strip()
    lower = [(row, cost) for row, cost in group if cost.mean < 0]
    beyond = [item for item in lower if not within_spread(item[1])]
    if beyond:
        row, cost = min(beyond, key=lambda item: item[1].mean)
        known = " beyond its spread" * (cost.deviation is not None)
        text += f"The largest cost{known}: {row.label}, {cost.text('+')} points of mean IoU."
    else:
        text += (f"No row falls below {FIRST.label} in mean IoU"
                 f"{' by more than its spread' if lower else ''}.")
    if any(cost.deviation is None for _, cost in group):
        return text + " One seed was run, so the spread is not known."
    outside = [f"{row.label} ({cost.text('+')})" for row, cost in group if not within_spread(cost)]
    if len(outside) < len(group):
        text += (f" {len(group) - len(outside)} of {len(group)}{' other' * bool(idle)} changes in "
                 "mean IoU are within their spread over the seeds and show no effect.")
    return text + (f" Beyond their spread: {'; '.join(outside)}." if outside else "")


def _line(row, cost, results):
    cells = [row.label]
    for metric in METRICS:
        cells += [results.spread(row.name, metric).text(), cost[metric].text("+"),
                  cost[metric].interval_text()]
    if cost["mean_iou"].deviation is None:
        return (*cells, "-", row.name)
    if not any(value for metric in METRICS for value in cost[metric].values.values()):
        return (*cells, "no effect", row.name)
    within = [words for metric, words in METRICS.items() if within_spread(cost[metric])]
    return (*cells, ", ".join(within) or "none", row.name)


def fidelity_blocks(results: Results, profile: Profile) -> list[Block]:
    """The table `fidelity`; a group none of whose rows was run is left out."""
    blocks = [Heading(2, "Cost of each deviation"),
              Text("Each row deviates from the authors' program in what its name says. Its change "
                   f"is its figure minus that of {FIRST.label}, in points. A negative change is a "
                   "cost. The last column is the name that --rows takes.")]
    if results.seeds > 1:
        blocks.append(Text(
            "Changes are taken seed by seed: mean ± sample deviation. A change that is not larger "
            "than its deviation is within the spread and shows no effect. A change beyond the "
            f"spread is a hint, not a proof: with {results.seeds} seeds, chance alone puts "
            f"{100 * chance_beyond(results.seeds):.0f}% of rows without any effect beyond it."))
    blocks.append(Text(
        f"The interval over images is the middle {SHARE}% of the change when the test images are "
        f"drawn {DRAWS} times {results.how_drawn}. It says how much a change depends on these "
        "images, not on the seed."))
    if profile.fidelity_note:
        blocks.append(Text(profile.fidelity_note))
    if FIRST.name not in results:
        return [*blocks, Text(f"{FIRST.label} was not run, so no cost is known.")]
    heads = ("Row", *(word for words in METRICS.values() for word in
                       (words, f"change in {words}", f"its {SHARE}% interval over images")),
             "changes within the spread", "row")
    drawn = {}
    for name, group in costs(results).items():
        if not any(row.name in results for row, _ in group):
            continue
        known = [(row, cost["mean_iou"]) for row, cost in group if cost["mean_iou"]]
        lines = [_line(FIRST, dict.fromkeys(METRICS, Spread({})), results),
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
