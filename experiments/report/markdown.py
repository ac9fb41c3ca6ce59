"""A report as Markdown, with its pictures in files beside it."""

import numpy as np

from experiments.report import document
from experiments.report.charts import chart_png
from pspnet_repro.files import write_bytes
from pspnet_repro.visualize import legend, side_by_side, write_png


def _cell(text):
    return text.replace("|", "\\|")


def table_lines(table):
    """A document.Table as lines of Markdown, without its caption."""
    lines = [table.heads, *table.rows]
    lines = ["| " + " | ".join(map(_cell, line)) + " |" for line in lines]
    return [lines[0], "|---|" + "---:|" * (len(table.heads) - 1), *lines[1:]]


def _gallery_pixels(gallery):
    """All strips of a gallery, one below the other, then one legend: (H, W, 3) uint8 RGB."""
    strips = [side_by_side(strip.pixels, strip.titles) for strip in gallery.strips]
    colours = dict(item for strip in gallery.strips for item in strip.legend)
    width = max(strip.shape[1] for strip in strips)
    strips.append(legend(list(colours), list(colours.values()), width))
    return np.concatenate([
        np.pad(strip, ((0, 0), (0, width - strip.shape[1]), (0, 0)), constant_values=255)
        for strip in strips])


def _block_lines(block, output):
    match block:
        case document.Heading(level, text):
            return ["#" * level + " " + text]
        case document.Text(text):
            return [text]
        case document.Table():
            return [f"{block.caption}:", "", *table_lines(block)]
        case document.Chart(name, alt):
            write_bytes(output / f"{name}.png", chart_png(block))
            return [f"![{alt}]({name}.png)"]
        case document.Gallery(name, alt, strips):
            write_png(output / f"{name}.png", _gallery_pixels(block))
            return [f"![{alt}]({name}.png)", "", *(f"{number}. {strip.caption}"
                                                   for number, strip in enumerate(strips, 1))]
        case _:
            raise TypeError(f"no part of a report: {type(block).__name__}")


def write_markdown(blocks, path):
    """Write a report's parts to a Markdown file and their pictures into its folder.

    Args:
        blocks: parts of document.py.
        path: the file.
    Raises:
        UserError: a file cannot be written.
    """
    lines = []
    for block in blocks:
        lines += [*_block_lines(block, path.parent), ""]
    write_bytes(path, "\n".join(lines))
