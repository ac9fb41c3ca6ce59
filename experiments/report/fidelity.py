"""What each deviation from the authors' program costs."""

from experiments.report.charts import costs_figure
from experiments.report.document import Chart, Heading, Table, Text
from experiments.report.results import METRICS

RETESTED, RETRAINED = "The same network, tested otherwise", "Trained otherwise, tested alike"


def costs(rows, results):
    """Differences of the rows to the first of them, by seed.

    Args:
        rows: the Rows of the table `fidelity` that were asked for; the first of the whole table
            among them.
        results: Results.
    Returns:
        {RETESTED: [(Row, {metric: Spread})], RETRAINED: ...}, in the order of the rows, of those
        that share a seed with the first.
    """
    first, *others = rows
    groups = {RETESTED: [], RETRAINED: []}
    for row in others:
        if row.name not in results:
            continue
        same = (row.model, row.train) == (first.model, first.train)
        cost = {metric: results.spread(row.name, metric).minus(results.spread(first.name, metric))
                for metric in METRICS}
        if cost["mean_iou"].values:
            groups[RETESTED if same else RETRAINED].append((row, cost))
    return groups


def within_spread(cost):
    """Whether a mean difference is not larger than its deviation over the seeds."""
    return cost.deviation is not None and abs(cost.mean) <= cost.deviation


def _sentence(group, first):
    """What a group of costs amounts to."""
    row, cost = min(group, key=lambda item: item[1]["mean_iou"].mean)
    cost = cost["mean_iou"]
    text = (f"The largest cost is that of \N{LEFT DOUBLE QUOTATION MARK}{row.label}"
            f"\N{RIGHT DOUBLE QUOTATION MARK}: {cost.text('+')} points of mean IoU."
            if cost.mean < 0 else f"No row falls below {first.label} in mean IoU.")
    if cost.deviation is None:
        return text + " One seed was run, so that nothing is known of the spread."
    inside = [row.label for row, cost in group if within_spread(cost["mean_iou"])]
    outside = [row.label for row, cost in group if not within_spread(cost["mean_iou"])]
    text += (f" {len(inside)} of {len(group)} differences in mean IoU are within their own spread"
             " over the seeds: no cost is shown for them.")
    return text + (f" Beyond it: {'; '.join(outside)}." if outside else "")


def fidelity_blocks(rows, results):
    """The table `fidelity` as parts of a report."""
    first = rows[0]
    seeds = results.seeds
    doubt = (f" One beyond it is a hint, no proof: of rows without any effect one in "
             f"{2 ** (seeds - 1)} would show the same sign in all {seeds} seeds."
             if seeds > 1 else "")
    blocks = [Heading(2, "Fidelity: what each deviation costs"),
              Text("Each row deviates from the authors' program in one thing. Cost: the row minus "
                   f"{first.label}, seed by seed, in points; mean ± sample deviation over "
                   "the seeds. Negative: the deviation makes the result worse. A difference no "
                   f"larger than its deviation is called within the spread.{doubt}")]
    if first.name not in results:
        return [*blocks, Text(f"{first.label} was not run, so that no cost is known.")]
    groups = {name: group for name, group in costs(rows, results).items() if group}
    heads = ["Row", *(word for words in METRICS.values() for word in (words, f"cost in {words}")),
             "within the spread"]
    own = tuple(results.spread(first.name, metric).text() for metric in METRICS)
    for name, group in groups.items():
        lines = [(first.label, own[0], "", own[1], "", "")]
        for row, cost in group:
            cells = [text for metric in METRICS for text in
                     (results.spread(row.name, metric).text(), cost[metric].text("+"))]
            single = cost["mean_iou"].deviation is None
            within = [words for metric, words in METRICS.items() if within_spread(cost[metric])]
            lines.append((row.label, *cells, "-" if single else " and ".join(within) or "no"))
        blocks += [Heading(3, name), Text(_sentence(group, first)),
                   Table(f"{name}: figures in percent", tuple(heads), tuple(lines))]
    if groups:
        blocks.append(Chart(
            "report-fidelity", "Cost of each deviation in points of mean IoU, with its spread",
            lambda: costs_figure({name: [(row.label, cost["mean_iou"]) for row, cost in group]
                                  for name, group in groups.items()})))
    return blocks
