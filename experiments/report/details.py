"""Behind the figures of the tables: curves, the IoU of each class, provenance."""

import re
from collections.abc import Iterable

from pspnet_repro.errors import UserError
from pspnet_repro.words import counted

from ..profiles import Profile
from ..rows import BASELINE, FULL
from .charts import DRAWN_CLASSES, curves_figure, gains_figure, thinned
from .document import Block, Chart, Heading, Table, Text
from .results import Results, number_text, read_curve


def curve_blocks(table: str, names: dict[str, str], results: Results) -> list[Block]:
    """Losses and intermediate mean IoU of a table's trainings, {name of a row: label}; a training
    that rows share has the label of the first."""
    losses, scores, drawn = {}, {}, []
    for name, label in names.items():
        folders = [folder.parent for folder in results.folders.get(name, ())]
        if not folders or folders in drawn:
            continue
        drawn.append(folders)
        steps = [(folder, run["settings"]["max_iter"])
                 for folder, run in zip(folders, results.runs[name], strict=True)]
        losses[label] = [
            tuple(map(thinned, _whole_curve(folder / "losses.jsonl", "loss", last - 1)))
            for folder, last in steps]
        if all((folder / "curve.jsonl").exists() for folder in folders):
            curves = [_whole_curve(folder / "curve.jsonl", "mean_iou", last)
                      for folder, last in steps]
            scores[label] = [(iterations, 100 * values) for iterations, values in curves]
    if not losses:
        return []
    alt = (f"{table}: loss{' and mean IoU' if scores else ''} during "
           f"{counted(len(losses), 'training')}; the first losses lie above the axis")
    return [Chart(f"report-curves-{table.lower().replace(' ', '')}", alt,
                  lambda: curves_figure(losses, scores))]


def _whole_curve(path, name, last):
    """(iterations, values) of a training's curve, whose last iteration must be `last`."""
    iterations, values = read_curve(path, ("iteration", name)).values()
    if iterations[-1] != last:
        raise UserError(f"{path}: ends with iteration {iterations[-1]:.0f}, and the training with "
                        f"{last}: bring the whole file back from a copy, or remove the folder to "
                        "run the row again")
    return iterations, values


def class_blocks(names: dict[str, str], results: Results, profile: Profile) -> list[Block]:
    """IoU of each class in each row, and what the full row gains over the baseline."""
    labels = list(names.values())
    rows = {name: label if labels.count(label) == 1 else f"{label} ({name})"
            for name, label in names.items() if name in results}
    spreads = {name: [results.spread(name, c) for c in profile.classes] for name in rows}
    heads, columns, gains = ["Class"], [], {}
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


def _commit(provenance):
    return re.sub(r"^([0-9a-f]{10})[0-9a-f]+", r"\1", provenance["commit"])


def _versions(provenance):
    return f"Python {provenance['python']}, torch {provenance['torch']}"


def _machine(provenance):
    gpu = f"{provenance['gpu']}, " if "gpu" in provenance else ""
    return f"{gpu}{provenance['processor']}, {counted(provenance['cores'], 'core')}"


def _run_cells(result, folder):
    settings, file = result["settings"], result["settings"]["initial_weights"]
    machines = result["train_provenance"], result["provenance"]
    return (result["finished"],
            *(_either(*map(text, machines)) for text in (_commit, _versions, _machine)),
            _either(str(result["train_processes"]), str(result["test_processes"])),
            f"{result['initial_sha256'][:12]} ({'file ' + file[:12] if file else 'random'})",
            str(settings["max_iter"]), str(settings["batch_size"]),
            f"{result['train_seconds_of_last_sitting']:.0f}", f"{result['test_seconds']:.0f}",
            str(result["train_peak_memory_mib"]), str(result["test_peak_memory_mib"]),
            folder.parent.name.rpartition("-")[2], folder.name.rpartition("-")[2])


def provenance_blocks(names: Iterable[str], results: Results) -> list[Block]:
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
