"""A report as Markdown, with its pictures in files beside it."""

import numpy as np

from . import document
from .charts import chart_png
from pspnet_repro.visualize import legend, png_bytes, side_by_side


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


def _block_lines(block):
    match block:
        case document.Heading(level, text):
            return ["#" * level + " " + text]
        case document.Text(text):
            return [text]
        case document.Table():
            return [f"{block.caption}:", "", *table_lines(block)]
        case document.Chart(name, alt):
            return [f"![{alt}]({name}.png)"]
        case document.Gallery(name, alt, strips):
            return [f"![{alt}]({name}.png)", "", *(f"{number}. {strip.caption}"
                                                   for number, strip in enumerate(strips, 1))]
        case _:
            raise TypeError(f"no part of a report: {type(block).__name__}")


def markdown_files(blocks, path):
    """A report's parts as a Markdown file with their pictures beside it.

    Args:
        blocks: parts of document.py.
        path: of the Markdown file.
    Returns:
        {path: text or bytes} of all files.
    """
    files = {path: "\n".join(line for block in blocks for line in (*_block_lines(block), ""))}
    for block in blocks:
        match block:
            case document.Chart(name):
                files[path.parent / f"{name}.png"] = chart_png(block)
            case document.Gallery(name):
                files[path.parent / f"{name}.png"] = png_bytes(_gallery_pixels(block))
    return files
