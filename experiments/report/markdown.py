"""A report as Markdown, with its pictures in files beside it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pspnet_repro.data.conventions import value_counts
from pspnet_repro.data.images import png_bytes
from pspnet_repro.evaluation.pictures import UNLABELLED_RGB, colourize, legend, side_by_side

from . import document
from .charts import chart_png


def _cell(text):
    return text.replace("|", "\\|")


def table_lines(table: document.Table) -> list[str]:
    """Without the caption."""
    heads, *rows = ("| " + " | ".join(map(_cell, line)) + " |"
                    for line in (table.heads, *table.rows))
    return [heads, "|---|" + "---:|" * (len(table.heads) - 1), *rows]


def _gallery_pixels(gallery, pictures):
    """All images of a gallery, one below the other, then one legend: (H, W, 3) uint8 RGB."""
    names, palette = pictures.classes.names, pictures.classes.palette_rgb
    strips, counts = [], np.zeros(256, int)
    for image in gallery.images:
        maps = [image.truth, *(image.predictions[name] for name in pictures.networks)]
        counts += sum(map(value_counts, maps))
        strips.append(side_by_side([image.image_rgb, *(colourize(m, palette) for m in maps)],
                                   ["image", "truth", *pictures.networks]))
    present = [k for k in np.argsort(-counts[:len(names)], kind="stable") if counts[k]]
    colours = [(names[k], palette[k]) for k in present]
    colours += [("unlabelled", UNLABELLED_RGB)] * bool(counts[len(names):].any())
    width = max(strip.shape[1] for strip in strips)
    strips.append(legend(*zip(*colours), width))
    return np.concatenate([
        np.pad(strip, ((0, 0), (0, width - strip.shape[1]), (0, 0)), constant_values=255)
        for strip in strips])


def _gallery_lines(gallery, networks):
    if not gallery.images:
        return [f"### {gallery.title}", "", "No image."]
    return [f"### {gallery.title}", "",
            f"![Image, truth, {' and '.join(networks)}]({gallery.name}.png)", "",
            *(f"{number}. {image.name}" for number, image in enumerate(gallery.images, 1))]


def _block_lines(block):
    match block:
        case document.Heading(level, text):
            return ["#" * level + " " + text]
        case document.Text(text):
            return [text]
        case document.Table():
            return [f"{block.caption}.", "", *table_lines(block)]
        case document.Chart(name, alt):
            return [f"![{alt}]({name}.png)"]
        case document.Pictures(_, networks, galleries):
            return [line for gallery in galleries
                    for line in (*_gallery_lines(gallery, networks), "")][:-1]


def markdown_files(blocks: Sequence[document.Block], path: Path) -> dict[Path, str | bytes]:
    """The content of a Markdown file with a report's parts, and of the pictures beside it."""
    files = {path: "\n".join(line for block in blocks for line in (*_block_lines(block), ""))}
    for block in blocks:
        match block:
            case document.Chart(name):
                files[path.parent / f"{name}.png"] = chart_png(block)
            case document.Pictures(_, _, galleries):
                files |= {path.parent / f"{gallery.name}.png":
                          png_bytes(_gallery_pixels(gallery, block))
                          for gallery in galleries if gallery.images}
    return files
