"""A table's results as text, JSON and pictures."""

import json
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from experiments.rows import BASELINE, FULL
from experiments.run_row import prediction_name
from pspnet_repro.checkpoint import write_atomically, write_bytes
from pspnet_repro.data.lists import read_label, read_list, read_pair
from pspnet_repro.errors import UserError
from pspnet_repro.visualize import colourize, legend, side_by_side, write_png

PAPER = json.loads((Path(__file__).parent / "paper.json").read_text(encoding="utf-8"))
PICTURES = 4


def class_means(result, contextual):
    """Mean IoU in percent over the locally decidable and over the contextual classes."""
    iou = np.array(list(result["iou"].values())) * 100
    contextual = np.array(contextual)
    return float(iou[~contextual].mean()), float(iou[contextual].mean())


def table_lines(table, rows, results, profile):
    """The table as lines of Markdown, figures in percent, ours beside the paper's.

    Args:
        table: its number as text.
        rows: the Row objects in order.
        results: row name -> list of result dictionaries, one a seed; rows without are left blank.
        profile: Profile.
    """
    split = bool(profile.contextual)
    heads = ["Setting", "mean IoU", "pixel acc.", *(["local", "contextual"] if split else []),
             "paper mean IoU", "paper pixel acc."]
    lines = ["| " + " | ".join(heads) + " |", "|---|" + "---:|" * (len(heads) - 1)]
    for row in rows:
        paper = PAPER[table][row.name]
        runs = results.get(row.name, [])

        def cell(values):
            if not values:
                return "-"
            spread = f" ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else ""
            return f"{np.mean(values):.2f}{spread}"

        cells = [paper["label"], cell([100 * r["mean_iou"] for r in runs]),
                 cell([100 * r["pixel_accuracy"] for r in runs])]
        if split:
            means = [class_means(r, profile.contextual) for r in runs]
            cells += [cell([m[0] for m in means]), cell([m[1] for m in means])]
        cells += [f"{paper['mean_iou']:.2f}", f"{paper['pixel_accuracy']:.2f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _iou_lines(rows, results, classes, labels):
    lines = ["| Class | " + " | ".join(labels) + " |", "|---|" + "---:|" * len(rows)]
    for name in classes:
        cells = [f"{100 * np.mean([r['iou'][name] for r in results[row.name]]):.1f}"
                 for row in rows]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def _lead_lines(results, contextual):
    """How far the full row leads the baseline, seed by seed, in points of mean IoU."""
    lines = ["| Seed | all classes | local | contextual |", "|---|---:|---:|---:|"]
    by_seed = {name: {r["seed"]: r for r in results[name]} for name in (BASELINE, FULL)}
    for seed in sorted(by_seed[BASELINE].keys() & by_seed[FULL].keys()):
        base, full = by_seed[BASELINE][seed], by_seed[FULL][seed]
        leads = [100 * (full["mean_iou"] - base["mean_iou"]),
                 *(f - b for f, b in zip(class_means(full, contextual),
                                         class_means(base, contextual)))]
        lines.append(f"| {seed} | " + " | ".join(f"{lead:+.2f}" for lead in leads) + " |")
    return lines


def _save_figure(figure, path):
    write_atomically(path, lambda file: figure.savefig(file, dpi=110, format="png"))
    plt.close(figure)


def _bars(table, rows, results, path):
    """Ours and the paper's mean IoU, each on an axis of its own: the data sets differ."""
    figure, panels = plt.subplots(1, 2, figsize=(9, 0.45 * len(rows) + 1.2), sharey=True,
                                  layout="constrained")
    places = np.arange(len(rows))
    ours = [np.mean([100 * r["mean_iou"] for r in results[row.name]]) for row in rows]
    paper = [PAPER[table][row.name]["mean_iou"] for row in rows]
    for axes, values, title, colour in ((panels[0], ours, "ours, this profile's data", "C0"),
                                        (panels[1], paper, "paper, ADE20K", "C1")):
        bars = axes.barh(places, values, 0.6, color=colour)
        axes.bar_label(bars, fmt="%.1f", padding=3, fontsize=8)
        axes.set_title(title, fontsize=9)
        axes.set_xlim(0, max(values) * 1.15)
        axes.set_xlabel("mean IoU (%)")
    panels[0].set_yticks(places, [PAPER[table][row.name]["label"] for row in rows])
    panels[0].invert_yaxis()
    _save_figure(figure, path)


def read_losses(folder):
    """The main branch's loss at every step of a run, (steps,) float."""
    with open(Path(folder) / "losses.jsonl", encoding="utf-8") as lines:
        return np.array([json.loads(line)["loss"] for line in lines])


def _curves(table, rows, folders, path):
    figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    for row in rows:
        losses = read_losses(folders[row.name][0])
        window = max(1, len(losses) // 40)
        smooth = np.convolve(losses, np.ones(window) / window, "valid")
        axes.plot(np.arange(len(smooth)) + window, smooth, label=PAPER[table][row.name]["label"])
    axes.set_xlabel("iteration")
    axes.set_ylabel(f"loss, mean of {window} iterations")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=8)
    _save_figure(figure, path)


def read_result(folder):
    """The result.json of a run. Raises UserError where it is damaged."""
    path = Path(folder) / "result.json"
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        np.array([result["mean_iou"], result["pixel_accuracy"], *result["iou"].values()], float)
        return result
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path}: damaged; remove its folder to run the row again") from error


def _comparisons(folders, profile, data, path):
    """Image, truth, baseline and full row of validation images spread evenly over the list."""
    pairs = read_list(data / "val.txt")
    strips = []
    for k in range(PICTURES):
        number = (2 * k + 1) * len(pairs) // (2 * PICTURES)
        pair = pairs[number]
        image, label = read_pair(pair, len(profile.classes), profile.zero_is_void)
        predictions = [read_label(folders[name][0] / "predictions" / prediction_name(number, pair),
                                  len(profile.classes)) for name in (BASELINE, FULL)]
        strips.append(side_by_side(
            [image[:, :, ::-1], *(colourize(m, profile.palette_rgb)
                                  for m in (label, *predictions))],
            ["image", "truth", "baseline", "PSPNet"]))
    strips.append(legend(profile.classes, profile.palette_rgb, strips[0].shape[1]))
    write_png(path, np.concatenate(strips))


def write_report(table, rows, folders, profile, data, output):
    """Write table<N>.md, .json and pictures for the finished rows to `output`.

    Args:
        table, rows, profile: see table_lines.
        folders: row name -> list of run folders, one a seed.
        data: the data set's folder.
        output: folder.
    Returns:
        The table's lines.
    Raises:
        UserError: a file cannot be written.
    """
    results = {name: [read_result(folder) for folder in runs] for name, runs in folders.items()}
    rows_done = [row for row in rows if results.get(row.name)]
    lines = table_lines(table, rows, results, profile)
    labels = [PAPER[table][row.name]["label"] for row in rows_done]
    stem = f"table{table}"
    text = [f"# Table {table}, profile {profile.name}", "", *lines, "",
            "Figures in percent. Rows bear the paper's names; ours and the paper's figures are on "
            "different data and can be compared in their order only. What differs from the "
            f"paper: {profile.differs}.", ""]
    if profile.contextual:
        text += ["Local: mean IoU of the classes that can be told by what lies near; contextual: "
                 "of those that cannot, so that a network that does not see far enough always "
                 "says one of two, or either.", ""]
    _bars(table, rows_done, results, output / f"{stem}.png")
    _curves(table, rows_done, folders, output / f"{stem}-loss.png")
    text += [f"![mean IoU]({stem}.png)", "", f"![loss]({stem}-loss.png)", ""]
    compared = bool(results.get(BASELINE) and results.get(FULL))
    if compared and profile.contextual:
        text += ["Lead of the full row over the baseline:", "",
                 *_lead_lines(results, profile.contextual), ""]
    if compared and profile.palette_rgb:
        _comparisons(folders, profile, data, output / f"{stem}-pictures.png")
        text += ["Validation images, evenly spaced: image, truth, baseline, PSPNet.", "",
                 f"![pictures]({stem}-pictures.png)", ""]
    if len(profile.classes) <= 30:
        text += ["IoU of each class:", "",
                 *_iou_lines(rows_done, results, profile.classes, labels), ""]
    run = results[rows_done[0].name][0]
    facts = run["provenance"]
    text += [f"Tested on {run['finished'][:10]} at commit `{facts['commit']}`: Python "
             f"{facts['python']}, torch {facts['torch']}, {facts['processor']}, "
             f"{facts['cores']} cores. Settings, seeds, digests of lists and initial weights, "
             f"confusion matrices and times are in `{stem}.json`.", ""]
    for suffix, content in ((".md", "\n".join(text)), (".json", json.dumps(results, indent=1))):
        write_bytes(output / f"{stem}{suffix}", content)
    return lines
