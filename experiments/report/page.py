"""A report as one HTML page that needs nothing else."""

import itertools
import string
from collections.abc import Sequence
from html import escape
from pathlib import Path

from pspnet_repro.evaluation import viewer

from . import document
from .charts import chart_svg


def _read(name):
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


STYLE = viewer.STYLE + _read("page.css")
WIDE = 10  # columns that small letters keep on a printed page


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
    wide = ' class="wide"' * (len(table.heads) > WIDE)
    box = (f'<div class="scroll" role="region" tabindex="0" aria-label="{caption}">'
           f'<table{wide} style="--names:{names}ch"><caption><span>{caption}</span></caption>'
           f"<thead><tr>{heads}</tr></thead><tbody>"
           + "\n".join(lines) + "</tbody></table></div>")
    return f"<details><summary>{caption}</summary>{box}</details>" if table.folded else box


def _block_html(block):
    match block:
        case document.Heading(level, text):
            return f'<h{level} id="{_anchor(text)}">{escape(text)}</h{level}>'
        case document.Text(text):
            return f"<p>{escape(text)}</p>"
        case document.Table():
            return _table_html(block)
        case document.Chart():
            return (f'<figure class="chart">{chart_svg(block)}'
                    f"<figcaption>{escape(block.alt)}</figcaption></figure>")
        case document.Pictures(classes, networks, galleries):
            images = [image for gallery in galleries for image in gallery.images]
            return viewer.viewer_html(classes, images, networks, 3) if images else ""


def page_text(blocks: Sequence[document.Block]) -> str:
    """The HTML of a report's parts, the first of them its heading."""
    title, *rest = blocks
    contents = "".join(
        f'<li><a href="#{_anchor(block.text)}">{escape(block.text)}</a></li>' for block in rest
        if isinstance(block, document.Heading) and block.level == 2)
    body = []
    for charts, group in itertools.groupby(rest, lambda b: isinstance(b, document.Chart)):
        html = "\n".join(map(_block_html, group))
        body.append(f'<div class="charts">{html}</div>' if charts else html)
    main = "\n".join(body)
    script = f"\n<script>\n{viewer.SCRIPT}</script>" * ('class="viewer"' in main)
    return string.Template(_read("page.html")).substitute(
        title=escape(title.text), style=STYLE, heading=_block_html(title), contents=contents,
        main=main, script=script)
