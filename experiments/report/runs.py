"""Curves, per-class figures and provenance of the runs."""

import re

from pspnet_repro.errors import UserError
from pspnet_repro.words import counted

from ..rows import BASELINE, FULL
from .charts import DRAWN_CLASSES, curves_figure, gains_figure, thinned
from .document import Chart, Heading, Table, Text
from .results import number_text, read_curve


def trainings(names, results):
    """{label: training folders, one a seed} of rows, each training once.

    Args:
        names: {row name: label}; a training bears the label of its first row.
        results: Results.
    """
    found = {}
    for name, label in names.items():
        folders = [folder.parent for folder in results.folders.get(name, ())]
        if folders and folders not in found.values():
            found[label] = folders
    return found


def curve_blocks(table, names, results):
    """Losses and intermediate mean IoU of a table's trainings, as parts of a report."""
    found = trainings(names, results)
    if not found:
        return []
    losses, scores = {}, {}
    for label, folders in found.items():
        losses[label], ends = [], []
        for folder in folders:
            curve = read_curve(folder / "losses.jsonl", ("iteration", "loss"))
            ends.append(curve["iteration"][-1] + 1)
            losses[label].append((thinned(curve["iteration"]), thinned(curve["loss"])))
        places = [folder / "curve.jsonl" for folder in folders]
        if all(path.exists() for path in places):
            curves = [read_curve(path, ("iteration", "mean_iou")) for path in places]
            for path, curve, end in zip(places, curves, ends, strict=True):
                if curve["iteration"][-1] != end:
                    raise UserError(f"{path}: ends at step {curve['iteration'][-1]:.0f}, and "
                                    f"losses.jsonl beside it at {end:.0f}: one of them "
                                    "is cut; bring it back from a copy, or remove the folder to "
                                    "run the row again")
            scores[label] = [(c["iteration"], 100 * c["mean_iou"]) for c in curves]
    alt = (f"{table}: loss{' and mean IoU' if scores else ''} during {len(found)} "
           f"training{'s' * (len(found) > 1)}; the first losses lie above the axis")
    return [Chart(f"report-curves-{table.lower().replace(' ', '')}", alt,
                  lambda: curves_figure(losses, scores))]


def class_blocks(names, results, profile):
    """IoU of each class in each row, and what the full row gains over the baseline."""
    labels = list(names.values())
    rows = {name: label if labels.count(label) == 1 else f"{label} ({name})"
            for name, label in names.items() if name in results}
    spreads = {name: [results.spread(name, c) for c in profile.classes] for name in rows}
    heads, columns = ["Class"], []
    gains = {}
    if BASELINE in rows and FULL in rows:
        gains = {c: full.minus(base) for c, base, full in
                 zip(profile.classes, spreads[BASELINE], spreads[FULL], strict=True)}
        heads.append("PSPNet - baseline")
        columns.append([(number_text(gain.mean, "+"), None) for gain in gains.values()])
    for name, label in rows.items():
        heads.append(label)
        columns.append([(number_text(s.mean), s.mean / 100) for s in spreads[name]])
    cells = list(zip(*columns, strict=True))
    blocks = [Heading(2, "IoU of each class"), Table(
        "IoU of each class in percent" + (", mean over seeds" if results.seeds > 1 else ""),
        tuple(heads),
        tuple((c, *(text for text, _ in line)) for c, line in zip(profile.classes, cells)),
        shades=tuple(tuple(share for _, share in line) for line in cells))]
    if gains:
        which = "each class" if len(gains) <= 2 * DRAWN_CLASSES else "the classes that differ most"
        blocks.append(Chart("report-classes", f"IoU of {which}: PSPNet minus baseline",
                            lambda: gains_figure(gains)))
    return blocks


def _either(trained, tested):
    """What training and test have in common, or both."""
    return trained if trained == tested else f"{trained}; test: {tested}"


def _commit(about):
    return re.sub(r"^([0-9a-f]{10})[0-9a-f]+", r"\1", about["commit"])


def _versions(about):
    return f"Python {about['python']}, torch {about['torch']}"


def _machine(about):
    gpu = f"{about['gpu']}, " if "gpu" in about else ""
    return f"{gpu}{about['processor']}, {counted(about['cores'], 'core')}"


def _run_cells(result, folder):
    settings, abouts = result["settings"], (result["train_provenance"], result["provenance"])
    given = settings["initial_weights"]
    return (result["finished"],
            *(_either(*map(told, abouts)) for told in (_commit, _versions, _machine)),
            _either(str(result["train_processes"]), str(result["test_processes"])),
            f"{result['initial_sha256'][:12]} ({'file ' + given[:12] if given else 'random'})",
            str(settings["max_iter"]), str(settings["batch_size"]),
            f"{result['train_seconds_of_last_sitting']:.0f}", f"{result['test_seconds']:.0f}",
            str(result["train_peak_memory_mib"]), str(result["test_peak_memory_mib"]),
            folder.parent.name.rpartition("-")[2], folder.name.rpartition("-")[2])


def provenance_blocks(names, results):
    """Where every run comes from."""
    heads = ("Run", "finished", "commit", "versions", "machine", "processes",
             "initial weights (SHA-256)", "steps", "batch", "training (s)", "test (s)",
             "training (MiB)", "test (MiB)", "training digest", "test digest")
    rows = tuple((f"{name}, seed {result['seed']}", *_run_cells(result, folder))
                 for name in names if name in results
                 for result, folder in zip(results.runs[name], results.folders[name], strict=True))
    return [Heading(2, "Provenance"),
            Text("Rows with the same training digest share that training. Commit, seconds and "
                 "memory of a run that was stopped and resumed are those of its last part. "
                 "report.json holds all settings, digests of lists, confusion matrices and times."),
            Table("Origin of each run", heads, rows, folded=len(rows) > 8)]
