"""The results of the tables as an HTML page, as Markdown with pictures, and as JSON."""

import json
from collections.abc import Sequence
from pathlib import Path

from pspnet_repro.outputs import Outputs

from ..experiment import Experiment
from ..provenance import claim
from ..rows import Row
from .details import class_blocks, curve_blocks, provenance_blocks
from .document import Heading, Table, Text
from .fidelity import costs, fidelity_blocks
from .markdown import markdown_files, table_lines
from .page import page_text
from .pictures import picture_blocks
from .results import METRICS, PAPER, Results
from .tables import (
    PAPER_DATA,
    claims_blocks,
    depth_blocks,
    orderings,
    row_label,
    summary_blocks,
    table_blocks,
)

FIDELITY = "fidelity"
KEYS = "profile", "tables", "results"  # of report.json


def _opening(results, profile, with_paper):
    tests = {folder for folders in results.folders.values() for folder in folders}
    trainings = {folder.parent for folder in tests}
    seeds = sorted({run["seed"] for runs in results.runs.values() for run in runs})
    text = (f"Rows: {len(results.runs)}. Trainings: {len(trainings)}. Tests: {len(tests)}. Number "
            f"of seeds: {len(seeds)} ({', '.join(map(str, seeds)) or 'none'}). Figures are in "
            "percent, differences in percentage points.")
    if len(seeds) > 1:
        text += " ± is the sample deviation over the seeds."
    title = ("Tables of the PSPNet paper" if with_paper
             else "Cost of each deviation from the authors' program")
    blocks = [Heading(1, f"{title}, profile {profile.name}"), Text(text)]
    if with_paper and profile.data != PAPER_DATA:
        blocks.append(Text(
            "The paper's figures are on ADE20K and ours are on other data, so the figures cannot "
            "be compared. The order of the rows can. Ranks, and the pairs counted for each row, "
            "are by mean IoU, among the rows that were run."))
    blocks.append(Text(f"Differences from the paper's setting: {profile.differs}."))
    if profile.preset != "caffe":
        blocks.append(Text(f"Tests follow the protocol {profile.preset}, not the authors' scripts. "
                           "Curves along the trainings are of the authors' protocol."))
    if with_paper:
        blocks.append(Text(
            "Rows have the paper's names. B1 and B1236: pyramids of one and of four levels; MAX "
            "and AVE: their pooling; DR: with fewer channels per level; AL: with the auxiliary "
            "loss, of weight α; DA: with data augmentation; PSP: with the pyramid; MS: tested at "
            "several scales. The last column of a table is the name that --rows takes."))
    if with_paper and profile.contextual:
        blocks.append(Text(
            "Local is the mean IoU of the classes that a small neighbourhood shows. Contextual is "
            "the mean IoU of the classes that need a view of the whole scene: a network that sees "
            "too little confuses them in pairs."))
    return blocks


def _results_text(tables, results, profile):
    """All results and what follows from them as JSON, one run a line."""
    def spread(value):
        return {"mean": value.mean, "deviation": value.deviation, "interval": value.interval,
                "by_seed": {str(seed): v for seed, v in value.values.items()}}

    contents = {number: {"rows": [row.name for row in rows]} for number, rows in tables.items()}
    for number, content in contents.items():
        if number in PAPER:
            content |= {"paper": PAPER[number], "orderings": [
                {"lower": o.lower, "higher": o.higher, "metric": o.metric, "paper": o.paper,
                 "ours": spread(o.ours), "holds": o.holds}
                for o in orderings(number, results)]}
        else:
            content["costs"] = {
                row.name: {metric: spread(cost[metric]) for metric in METRICS}
                for group in costs(results).values() for row, cost in group if cost["mean_iou"]}
    runs = ",\n".join(
        f" {json.dumps(name)}: [\n" + ",\n".join(f"  {json.dumps(run)}" for run in runs) + "\n ]"
        for name, runs in results.runs.items())
    return (f'{{"profile": {json.dumps(profile.name)},\n"tables": {json.dumps(contents)},\n'
            f'"results": {{\n{runs}\n}}}}\n')


def claim_report(output: Path) -> Outputs:
    """Claim a report's files in a folder, see provenance.claim."""
    paths = [output / name for name in ("report.json", "report.md", "report.html")]
    return claim([*paths, *sorted(output.glob("report-*.png"))], KEYS)


def write_report(experiment: Experiment, tables: dict[str, Sequence[Row]],
                 folders: dict[str, Sequence[Path]], output: Path) -> list[str]:
    """Write report.html, report.md with its pictures, and report.json to a folder.

    Args:
        tables: {number of a table, or FIDELITY: the rows asked for, in order}.
        folders: {row name: folders of its tests, one a seed}; rows without are shown as "-".
    Returns:
        The tables as lines of Markdown.
    Raises:
        UserError: a file of a run or of the data cannot be read, or the report not be written,
            also where a file that is not this program's is in its place.
    """
    profile = experiment.profile
    results = Results(folders, profile)
    outputs = claim_report(output)
    papers = [number for number in tables if number in PAPER]
    summary = summary_blocks(papers, results)
    parts, names = [], {}
    for number, rows in tables.items():
        labels = {row.name: row_label(number, row) for row in rows}
        names = names | labels | names  # a row keeps its first place and label
        if number == FIDELITY:
            parts += fidelity_blocks(results, profile) + curve_blocks("Fidelity", labels, results)
            continue
        parts += table_blocks(number, results, profile, rows)
        parts += curve_blocks(f"Table {number}", labels, results)
        if number == "3":
            parts += depth_blocks(results, profile)
    blocks = [*_opening(results, profile, bool(papers)), *summary, *parts]
    blocks += claims_blocks(profile) if papers else []
    blocks += picture_blocks(results, experiment)
    blocks += class_blocks(names, results, profile) + provenance_blocks(names, results)
    outputs.write({
        output / "report.json": _results_text(tables, results, profile),
        **markdown_files(blocks, output / "report.md"),
        output / "report.html": page_text(blocks)})
    shown = [block for block in parts + summary if isinstance(block, Table) and not block.folded]
    return [line for table in shown for line in (table.caption, "", *table_lines(table), "")]
