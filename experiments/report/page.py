"""A report as one HTML page that needs nothing else."""

import base64
import io
import itertools
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from . import document
from .charts import chart_svg

STYLE = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")


def _anchor(text):
    return "-".join("".join(c if c.isalnum() else " " for c in text.lower()).split())


def _breakable(text):
    """Names of rows, such as ResNet50+DA+AL, may go on in a new line after each part."""
    return escape(text).replace("+", "+<wbr>")


def _table_html(table):
    heads = "".join(f'<th scope="col">{_breakable(head)}</th>' for head in table.heads)
    lines = []
    for number, (head, *cells) in enumerate(table.rows):
        shades = table.shades[number] if table.shades else [None] * len(cells)
        cells = "".join(
            f"<td>{escape(cell)}</td>" if shade is None else
            f'<td class="shade" style="--share:{100 * shade:.0f}%">{escape(cell)}</td>'
            for cell, shade in zip(cells, shades, strict=True))
        mark = ' class="reported"' if number in table.reported else ""
        lines.append(f'<tr{mark}><th scope="row">{_breakable(head)}</th>{cells}</tr>')
    caption = escape(table.caption)
    names = min(28, 2 + max(len(head) for head, *_ in (table.heads, *table.rows)))
    box = (f'<div class="scroll" role="region" tabindex="0" aria-label="{caption}">'
           f'<table style="--names:{names}ch"><caption><span>{caption}</span></caption>'
           f"<thead><tr>{heads}</tr></thead><tbody>"
           + "\n".join(lines) + "</tbody></table></div>")
    return f"<details><summary>{caption}</summary>{box}</details>" if table.folded else box


def _chart_html(chart):
    return (f'<figure class="chart">{chart_svg(chart)}<figcaption>{escape(chart.alt)}</figcaption>'
            "</figure>")


def _picture_html(pixels, title, photograph):
    height, width = pixels.shape[:2]
    buffer, picture = io.BytesIO(), Image.fromarray(pixels)
    if photograph:
        picture.save(buffer, "JPEG", quality=85)
    else:
        colours, index = np.unique(pixels.reshape(-1, 3), axis=0, return_inverse=True)
        picture = Image.fromarray(index.reshape(height, width).astype(np.uint8))
        picture.putpalette(colours.tobytes())
        picture.save(buffer, "PNG", optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode()
    kind = "jpeg" if photograph else "png"
    return (f'<figure><img alt="{escape(title)}" width="{width}" height="{height}" '
            f'src="data:image/{kind};base64,{data}"><figcaption>{escape(title)}</figcaption>'
            "</figure>")


def _strip_html(strip):
    pictures = "".join(
        _picture_html(pixels, title, photograph=number == 0)
        for number, (pixels, title) in enumerate(zip(strip.pixels, strip.titles, strict=True)))
    legend = "".join(f'<li><span style="background:rgb{tuple(map(int, colour))}"></span>'
                     f"{escape(name)}</li>" for name, colour in strip.legend)
    return (f'<section class="strip"><p>{escape(strip.caption)}</p>'
            f'<div class="tiles">{pictures}</div><ul class="legend">{legend}</ul></section>')


def _block_html(block):
    match block:
        case document.Heading(level, text):
            return f'<h{level} id="{_anchor(text)}">{escape(text)}</h{level}>'
        case document.Text(text):
            return f"<p>{escape(text)}</p>"
        case document.Table():
            return _table_html(block)
        case document.Chart():
            return _chart_html(block)
        case document.Gallery(_, alt, strips):
            return (f'<div role="group" aria-label="{escape(alt)}">'
                    + "\n".join(map(_strip_html, strips)) + "</div>")
        case _:
            raise TypeError(f"no part of a report: {type(block).__name__}")


def page_text(blocks):
    """A report's parts of document.py, the first of them its heading, as one HTML page."""
    title, *rest = blocks
    contents = "".join(
        f'<li><a href="#{_anchor(block.text)}">{escape(block.text)}</a></li>' for block in rest
        if isinstance(block, document.Heading) and block.level == 2)
    body = []
    for charts, group in itertools.groupby(rest, lambda b: isinstance(b, document.Chart)):
        html = "\n".join(map(_block_html, group))
        body.append(f'<div class="charts">{html}</div>' if charts else html)
    main = "\n".join(body)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title.text)}</title>
<style>
{STYLE}</style>
</head>
<body>
<header>{_block_html(title)}<nav aria-label="Contents"><ul>{contents}</ul></nav></header>
<main>
{main}
</main>
</body>
</html>
"""
