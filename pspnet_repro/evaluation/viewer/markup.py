"""The HTML of the viewer: pictures, and what surrounds them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np

from pspnet_repro.data.classes import Classes
from pspnet_repro.data.conventions import value_counts
from pspnet_repro.errors import printable
from pspnet_repro.evaluation.viewer.encode import jpeg_url, nearest, png_url, scaled, shrink

UNLABELLED = 255
PICTURE_BYTES = 299_000  # of the page; 100 pictures take less than 30 MB
SIDES = (1024, 768, 512, 384, 256, 128, 64)
QUALITIES = (85, 75, 65, 50)
THUMBNAIL_SIDE = 160
MAX_NAME = 200


@dataclass(frozen=True, eq=False)
class ViewerImage:
    """One picture of the page; dictionaries are by the name of the network."""

    name: str  # any text, such as the name of the file
    image_rgb: np.ndarray  # (H, W, 3) uint8
    predictions: dict[str, np.ndarray]  # (H, W) uint8 labels
    truth: np.ndarray | None = None  # (H, W) uint8 labels, 255 where unlabelled
    confidence: dict[str, np.ndarray] | None = None  # (H, W) float, 0..1, of the predicted class
    # IoU, 0..1, by the name of the class; classes that are missing or NaN have none.
    iou: dict[str, dict[str, float]] | None = None


def _read(name):
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


STYLE, SCRIPT = _read("viewer.css"), _read("viewer.js")


def shown(text: object) -> str:
    """Any text as it is shown: control characters and marks of direction escaped, cut."""
    return printable(str(text), MAX_NAME)


def _html(text):
    return escape(shown(text))


def _colour(rgb):
    return "#{:02x}{:02x}{:02x}".format(*map(int, rgb))


def _swatch(rgb):
    return f'<i class="swatch" style="background:{_colour(rgb)}"></i>'


def _layers(networks):
    return ["Photograph", "Truth", *networks]


def surroundings(classes: Classes, networks: Sequence[str], level: int) -> list[str]:
    """HTML of the viewer before and after the pictures."""
    buttons = "\n".join(
        f'<button type="button" aria-pressed="true"><bdi>{_html(name)}</bdi></button>'
        for name in _layers(networks))
    figures = "\n".join(
        f'<figure><div class="stack"><img alt="" draggable="false">'
        f'{"<canvas role=img></canvas>" if layer else ""}<span class="cross"></span></div>'
        f'<figcaption><bdi>{_html(name)}</bdi> <span class="readout"></span></figcaption></figure>'
        for layer, name in enumerate(_layers(networks)))
    legend = "\n".join(
        f'<li><button type="button" aria-pressed="true" data-colour="{_colour(rgb)}">'
        f"{_swatch(rgb)}<bdi>{_html(name)}</bdi></button></li>"
        for name, rgb in zip(classes.names, classes.palette_rgb, strict=True))
    return _filled("viewer.html", {
        "name": f'<h{level}><bdi id="name"></bdi> <span id="place"></span></h{level}>',
        "legend-title": f'<h{level + 1} id="legend-title">Classes</h{level + 1}>',
        "layers": buttons, "figures": figures, "classes": legend}).split("<!-- items -->\n")


def page_around(title: str) -> list[str]:
    """HTML of a page of its own before and after the viewer."""
    return _filled("page.html", {"style": STYLE + _read("page.css"), "script": SCRIPT,
                                 "title": _html(title)}).split("<!-- viewer -->")


def _filled(name, texts):
    # Names hold no marks: their "<" is escaped.
    html = _read(name)
    for mark, text in texts.items():
        html = html.replace(f"<!-- {mark} -->", text)
    return html


def picture(number: int, image: ViewerImage, classes: Classes, networks: Sequence[str],
            level: int) -> tuple[str, bool]:
    """HTML of an image, and whether it is smaller than usual.

    Its section is printed, and read by the page's script: the photograph and the label maps are
    in the page once.
    """
    labels = {1: image.truth} if image.truth is not None else {}
    labels |= {layer: image.predictions[name] for layer, name in enumerate(networks, 2)}
    extent = image.image_rgb.shape[:2]
    usual = scaled(*extent, SIDES[0])
    counts = {layer: value_counts(label) for layer, label in labels.items()}
    largest = {layer: _largest(count, classes.names) for layer, count in counts.items()}
    start = _thumbnail(image, list(largest.values()))
    end = f'</div><ul class="legend">{_legend(counts, classes)}</ul></section></li>\n'
    for side in SIDES:
        size = scaled(*extent, side)
        shrunk = shrink(image.image_rgb, size)
        figures = "".join(_label_figure(number, layer, size, image, classes, networks, label,
                                        largest[layer]) for layer, label in labels.items())
        for quality in QUALITIES:
            html = (start + _heading(image, size, usual, level)
                    + _photograph_figure(number, image, shrunk, quality) + figures + end)
            if len(html.encode()) <= PICTURE_BYTES:
                return html, size != usual
    return html, size != usual


def _largest(counts, names):
    """The largest classes of a label map, for those who do not see it."""
    order = [k for k in np.argsort(-counts[:len(names)], kind="stable")[:3] if counts[k]]
    return ", ".join(f"{_html(names[k])} {counts[k] / counts.sum():.0%}" for k in order) or (
        "unlabelled")


def _thumbnail(image, largest):
    pixels = shrink(image.image_rgb, scaled(*image.image_rgb.shape[:2], THUMBNAIL_SIDE))
    name = _html(image.name)
    alt = ": ".join([name, *largest[:1]])
    return (f'<li><button type="button" class="thumbnail"><img alt="{alt}" '
            f'src="{jpeg_url(pixels, 70)}"><span aria-hidden="true"><bdi>{name}</bdi></span>'
            "</button>\n")


def _heading(image, size, usual, level):
    height, width = size
    note = (f'<p class="note">Shown at {width} × {height} pixels to keep the page small.</p>'
            if size != usual else "")
    return (f'<section class="sheet"><h{level}><bdi>{_html(image.name)}</bdi></h{level}>{note}'
            '<div class="figures">\n')


def _figure(layer, size, alt, caption, content, data=""):
    height, width = size
    return (f'<figure data-layer="{layer}"{data}><svg viewBox="0 0 {width} {height}" role="img" '
            f'aria-label="{alt}">{content}</svg><figcaption><bdi>{_html(caption)}</bdi>'
            "</figcaption></figure>\n")


def _photograph_figure(number, image, pixels, quality):
    height, width = pixels.shape[:2]
    content = (f'<image id="p{number}" width="{width}" height="{height}" '
               f'href="{jpeg_url(pixels, quality)}"/>')
    return _figure(0, (height, width), f"{_html(image.name)}, photograph", "Photograph", content)


def _label_figure(number, layer, size, image, classes, networks, label, largest):
    name = _layers(networks)[layer]
    data = ""
    if layer > 1 and name in (image.confidence or {}):
        values = np.asarray(image.confidence[name], np.float32)
        values = shrink(values, scaled(*size, max(1, max(size) // 4)))
        percent = np.rint(100 * values).clip(0, 100).astype(np.uint8)
        data += f' data-confidence="{png_url(percent)}"'
    if layer > 1 and name in (image.iou or {}):
        values = [image.iou[name].get(k) for k in classes.names]
        values = [None if v is None or not np.isfinite(v) else round(100 * float(v), 1)
                  for v in values]
        data += f' data-iou="{json.dumps(values, separators=(",", ":"))}"'
    height, width = size
    content = (f'<use href="#p{number}"/><image class="labels" width="{width}" height="{height}" '
               f'href="{png_url(nearest(label, size), classes.palette_rgb)}"/>')
    alt = f"{_html(image.name)}, {_html(name)}: {largest}"
    return _figure(layer, size, alt, name, content, data)


def _legend(counts, classes):
    present = sum(counts.values(), np.zeros(UNLABELLED + 1, int))
    entries = zip(classes.names, classes.palette_rgb, strict=True)
    return "".join(f"<li>{_swatch(rgb)}<bdi>{_html(name)}</bdi></li>"
                   for k, (name, rgb) in enumerate(entries) if present[k])
