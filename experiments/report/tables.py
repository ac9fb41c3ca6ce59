"""The paper's tables with our figures, and what they say about the paper's orderings."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from pspnet_repro.model.settings import BLOCKS

from ..profiles import Profile
from ..rows import BASELINE, FULL, Row
from .charts import depth_figure, dots_figure
from .document import Block, Chart, Heading, Table, Text
from .resampling import DRAWS, SHARE
from .results import CLAIMS, METRICS, PAPER, Results, Spread, number_text

MARK = " †"
PAPER_DATA = "ade20k"
DEPTHS = tuple(BLOCKS)


def paper_spread(table: str, name: str, metric: str) -> Spread:
    """The paper's figure of a row as a Spread of one value."""
    return Spread({None: PAPER[table][name][metric]})


def row_label(table: str, row: Row) -> str:
    """As in the paper, or the row's own where the paper does not have it."""
    return _label(table, row.name) if row.name in PAPER.get(table, ()) else row.label


def _label(number, name):
    return PAPER[number][name]["label"]


def _were_run(number, results):
    """The names of a table's rows that were run; those that are only reported never are."""
    return [name for name, entry in PAPER[number].items()
            if name in results and not entry.get("reported")]


def paper_table(number: str, results: Results, profile: Profile,
                others: Sequence[Row] = ()) -> Table:
    """A table of the paper, "1" to "4", and `others` below its rows; what was not run, and what the
    paper does not have, is shown as "-".

    On the paper's data it gives ours, the paper's and the difference; on other data, where figures
    cannot be compared, ours and whether the rows stand in the paper's order.
    """
    split = ("local", "contextual") if profile.contextual else ()
    same_data = profile.data == PAPER_DATA
    heads, rows, reported = ["Setting"], [], set()
    for words in METRICS.values():
        heads += [words, *((f"paper's {words}", "difference") if same_data else ())]
    if not same_data:
        heads += ["rank", "rank in the paper", "pairs in the paper's order"]
    ranks = {} if same_data else _ranks(number, results)
    for name, paper in {**PAPER[number], **{row.name: None for row in others}}.items():
        is_reported = paper is not None and paper.get("reported", False)
        if is_reported:
            reported.add(len(rows))
        cells = [(paper["label"] if paper else name) + MARK * is_reported]
        for metric in METRICS:
            ours = results.spread(name, metric)
            cells.append(ours.text())
            if same_data:
                theirs = Spread({None: paper[metric]} if paper else {})
                cells += [theirs.text(), number_text(ours.mean - theirs.mean, "+")
                          if ours and theirs else "-"]
        if not same_data:
            cells += ranks.get(name, ("-",) * 3)
        cells += [results.spread(name, metric).text() for metric in split]
        rows.append((*cells, "" if is_reported else name))
    how = "; difference: ours minus the paper's" * same_data
    return Table(f"Table {number}: figures in percent{how}",
                 (*heads, *split, "row"), tuple(rows), frozenset(reported))


def _ranks(number, results):
    """{row: (our rank, the paper's, "k of n" pairs with another row that stand in the paper's
    order)} by mean IoU, of the rows that were run."""
    ours = {name: results.spread(name, "mean_iou").mean for name in _were_run(number, results)}
    papers = {name: PAPER[number][name]["mean_iou"] for name in ours}
    ranks = {}
    for name in ours:
        pairs = [o for o in orderings(number, results)
                 if o.metric == "mean_iou" and name in (o.lower, o.higher)]
        ranks[name] = (*(str(1 + sum(figure > figures[name] for figure in figures.values()))
                         for figures in (ours, papers)),
                       f"{sum(o.holds for o in pairs)} of {len(pairs)}")
    return ranks


def _reported_text(number):
    """The rows that are not run, with the paper's figures, in words."""
    rows = [f"{entry['label']}: {entry['why']}; the paper has a mean IoU of "
            f"{entry['mean_iou']:.2f} and a pixel accuracy of {entry['pixel_accuracy']:.2f} on "
            "ADE20K"
            for entry in PAPER[number].values() if entry.get("reported")]
    return Text(f"† Not run here. {'. '.join(rows)}.")


def reported_table(number: str) -> Table:
    """A table of which no row is ours: Table 5."""
    rows = tuple((entry["label"] + MARK, entry["rank"], f"{entry['score']:.2f}")
                 for entry in PAPER[number].values())
    return Table(f"Table {number}: as the paper reports it, with its authors as Ours",
                 ("Method", "rank", "score (%)"), rows, frozenset(range(len(rows))))


def claims_blocks(profile: Profile) -> list[Block]:
    """The authors' other figures on a profile's data; nothing where they have none."""
    names = {**METRICS, "score": "score"}
    rows = tuple((claim["what"], f"the {claim['of']}", claim["split"],
                  *(number_text(claim[name]) if name in claim else "-" for name in names))
                 for claim in CLAIMS if claim["data"] == profile.data)
    return [Heading(2, "Other figures on these data"), Table(
        "The authors' figures outside of the tables, in percent; not run here",
        ("Network", "given by", "split", *names.values()), rows)] if rows else []


@dataclass(frozen=True)
class Ordering:
    """Two rows of which the paper has one above the other."""

    lower: str  # name of the row, as the paper has it
    higher: str
    metric: str  # one of METRICS
    paper: float  # points between them in the paper, above 0
    ours: Spread  # the same of ours

    @property
    def holds(self) -> bool:
        """Whether it holds in the means over the seeds."""
        return self.ours.mean > 0

    @property
    def seeds(self) -> int:
        """The number of seeds in which it holds."""
        return sum(value > 0 for value in self.ours.values.values())


def orderings(number: str, results: Results) -> list[Ordering]:
    """Those of a table whose two rows were both run; equal figures are no ordering."""
    found = []
    pairs = itertools.combinations(_were_run(number, results), 2)
    for metric, pair in itertools.product(METRICS, pairs):
        lower, higher = sorted(pair, key=lambda name: PAPER[number][name][metric])
        lead = PAPER[number][higher][metric] - PAPER[number][lower][metric]
        ours = results.spread(higher, metric).minus(results.spread(lower, metric))
        if lead > 0 and ours:
            found.append(Ordering(lower, higher, metric, round(lead, 2), ours))
    return found


def _counts(found, metric):
    """How many of the Orderings in a metric hold, as text."""
    group = [o for o in found if o.metric == metric]
    if not group:
        return "-"
    text = f"{sum(o.holds for o in group)} of {len(group)}"
    sure = []
    if max(len(o.ours.values) for o in group) > 1:
        sure.append(f"{sum(o.seeds == len(o.ours.values) for o in group)} in every seed")
    if all(o.ours.interval for o in group):
        sure.append(f"{sum(o.holds and o.ours.clear for o in group)} clearly")
    return text + (f" ({', '.join(sure)})" if sure else "")


def summary_blocks(numbers: Sequence[str], results: Results) -> list[Block]:
    """How many of the paper's orderings hold, table by table."""
    found = {number: orderings(number, results) for number in numbers}
    rows = tuple((f"Table {number}", *(_counts(group, metric) for metric in METRICS))
                 for number, group in found.items() if group)
    if not rows:
        return []
    means = " in the means over the seeds" if results.seeds > 1 else ""
    blocks = [Heading(2, "Does the paper's order hold?"),
              Text("For each pair of rows the paper says which one is better. The table counts "
                   f"the pairs for which our figures agree{means}."),
              Table("Pairs of rows in the paper's order",
                    ("Table", *(f"by {words}" for words in METRICS.values())), rows)]
    if any(o.ours.interval for group in found.values() for o in group):
        blocks.append(Text(
            f"Clearly means: when the test images are drawn {DRAWS} times {results.how_drawn}, the "
            f"lead keeps its sign in the middle {SHARE}% of the draws. This says how much a lead "
            "depends on the test images. How much it depends on the seed, only more seeds can say. "
            "Pairs share rows, so they are not independent, and among many pairs a few are clear "
            "by chance."))
    return blocks


def _ordering_blocks(number, results):
    found = orderings(number, results)
    if not found:
        return [Text("Fewer than two rows were run, so there is no order to compare.")]
    text = "Pairs of rows in the paper's order: " + "; ".join(
        f"{_counts(found, metric)} by {words}" for metric, words in METRICS.items()) + ". "
    if results.seeds == 1:
        text += ("Each row has one seed. Another seed moves the figures by an unknown amount, so "
                 "small differences decide nothing. ")
    unsure = any(o.ours.interval for o in found)
    failed = [o for o in found if not o.holds or unsure and not o.ours.clear]
    words = " clearly" * unsure
    if not failed:
        return [Text(f"{text}Every pair is{words} in this order.")]
    rows = tuple((f"{_label(number, o.lower)} < {_label(number, o.higher)}",
                  METRICS[o.metric], number_text(o.paper, "+"), o.ours.text("+"),
                  o.ours.interval_text(), f"{o.seeds} of {len(o.ours.values)}") for o in failed)
    return [Text(f"{text}The next table lists the pairs that are not{words} in this order."),
            Table(f"Table {number}: pairs that are not{words} in the paper's order",
                  ("Order in the paper", "by", "paper's lead", "our lead",
                   f"{SHARE}% interval over images", "seeds that agree"), rows,
                  folded=len(rows) > 6)]


def _lead_blocks(results):
    """How far the full row leads the baseline, by kind of class, seed by seed."""
    leads = [results.spread(FULL, metric).minus(results.spread(BASELINE, metric)).values
             for metric in ("mean_iou", "local", "contextual")]
    rows = tuple((f"seed {seed}", *(number_text(lead[seed], "+") for lead in leads))
                 for seed in leads[0])
    return [Table("Lead of PSPNet over the baseline in points of mean IoU",
                  ("Seed", "all classes", "local", "contextual"), rows)]


def table_blocks(number: str, results: Results, profile: Profile,
                 rows: Sequence[Row] = ()) -> list[Block]:
    """A table of the paper, its chart and its orderings; those of `rows` that the paper does not
    have are its last."""
    heading, marked = Heading(2, f"Table {number}"), Text("† The paper's figure; not run here.")
    reported = [entry.get("reported", False) for entry in PAPER[number].values()]
    if all(reported):
        return [heading, reported_table(number), marked]
    others = [row for row in rows if row.name not in PAPER[number]]
    blocks = [heading, paper_table(number, results, profile, others),
              *([_reported_text(number)] if any(reported) else []),
              *_ordering_blocks(number, results)]
    if number == "1" and profile.contextual and BASELINE in results and FULL in results:
        blocks += _lead_blocks(results)
    done = _were_run(number, results)
    if len(done) > 1:
        blocks.append(Chart(
            f"report-table{number}",
            f"Table {number}: mean IoU of each row, ours and the paper's on axes of their own",
            lambda: dots_figure([_label(number, name) for name in done],
                                [results.spread(name, "mean_iou") for name in done],
                                [paper_spread(number, name, "mean_iou") for name in done])))
    return blocks


def _score(miou, accuracy):
    return Spread({seed: (value + accuracy.values[seed]) / 2
                   for seed, value in miou.values.items()})


def depth_scores(results: Results) -> tuple[dict[str, dict[int, Spread]], ...]:
    """Figure 5's points: ({line: {depth: Spread of ours}}, the same of the paper)."""
    ours, paper = {}, {}
    for line, suffix in (("single scale", ""), ("multi scale", "-ms")):
        names = {depth: (f"depth-{depth}" if depth != 50 else FULL) + suffix for depth in DEPTHS}
        ours[line] = {depth: _score(*(results.spread(name, metric) for metric in METRICS))
                      for depth, name in names.items() if name in results}
        paper[line] = {depth: _score(*(paper_spread("3", name, metric) for metric in METRICS))
                       for depth, name in names.items()}
    return ours, paper


def _stand_in(profile, depth):
    words = [f"{name} {'-'.join(map(str, value)) if isinstance(value, tuple) else value}"
             for name, value in profile.depths[depth].items()]
    return ", ".join([*words, f"sees {profile.receptive_field(depth)} pixels"])


def depth_blocks(results: Results, profile: Profile) -> list[Block]:
    """Figure 5 from Table 3's results."""
    ours, paper = depth_scores(results)
    if not any(ours.values()):
        return []
    rows = tuple((str(depth), *(text for line in ours for text in
                                (ours[line].get(depth, Spread({})).text(),
                                 paper[line][depth].text())))
                 for depth in DEPTHS)
    blocks = [Heading(2, "Figure 5: score against depth"),
              Text("The score is (mean IoU + pixel accuracy) / 2 of the rows of Table 3.")]
    if any(profile.depths[depth] != {"depth": depth} for depth in DEPTHS):
        blocks.append(Text("This profile has its own networks for the paper's depths. Without the "
                           "pyramid they see this much of a crop of "
                           f"{profile.train['crop_size']} pixels. "
                           + "; ".join(f"{depth}: {_stand_in(profile, depth)}"
                                       for depth in DEPTHS) + "."))
    return [*blocks,
            Table("Figure 5: scores in percent",
                  ("Depth", "single scale", "paper's single scale", "multi scale",
                   "paper's multi scale"), rows),
            Chart("report-depth", "Score against depth at single and multi scale, ours and the "
                  "paper's", lambda: depth_figure(DEPTHS, ours, paper))]
