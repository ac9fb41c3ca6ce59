"""One HTML page that shows photographs, their labels and the predictions of networks.

    classes = known_classes("camvid")
    images = (ViewerImage(path.name, image_rgb, {"PSPNet50": label}) for ...)
    note = write_viewer("page.html", "CamVid", classes, images, ["PSPNet50"])
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from pspnet_repro.data.classes import Classes
from pspnet_repro.errors import UserError
from pspnet_repro.evaluation.viewer import markup
from pspnet_repro.evaluation.viewer.markup import SCRIPT, STYLE, UNLABELLED, ViewerImage, shown
from pspnet_repro.files import Content, write_bytes

__all__ = ["SCRIPT", "STYLE", "ViewerImage", "viewer_html", "write_viewer"]


def write_viewer(path: str | Path, title: str, classes: Classes, images: Iterable[ViewerImage],
                 networks: Sequence[str],
                 write: Callable[[str | Path, Content], object] = write_bytes) -> str:
    """Write the page; it needs no network, no server and no other file.

    A picture takes at most PICTURE_BYTES of the page. Its long side has at most 1024 pixels, and
    fewer where it would take more bytes: then a sentence is returned that says so, else "".

    Args:
        classes: at most 255.
        images: one of them is in memory at a time.
        networks: names of the networks, in the order of the page.
        write: called with the path and a function that fills a binary file.
    Raises:
        UserError: there are no images; an image's arrays do not fit its photograph, the networks
            or the classes; or the file cannot be written. Nothing is left behind.
    """
    head, tail = markup.page_around(title)
    smaller = 0

    def fill(file):
        nonlocal smaller
        file.write(head.encode())
        for html, is_smaller in _parts(path, classes, images, list(networks), 2):
            smaller += is_smaller
            file.write(html.encode())
        file.write(tail.encode())

    write(path, fill)
    if not smaller:
        return ""
    return (f"{path}: {smaller} of its pictures had to shrink below {markup.SIDES[0]} pixels, "
            f"because each may take {markup.PICTURE_BYTES // 1000} kB")


def viewer_html(classes: Classes, images: Iterable[ViewerImage], networks: Sequence[str],
                level: int) -> str:
    """The viewer as an element of another page, which holds STYLE and, after it, SCRIPT. `level` is
    that of its pictures' headings, 2 to 5; for the others, and errors, see write_viewer."""
    parts = "".join(html for html, _ in _parts("viewer", classes, images, list(networks), level))
    return f'<section class="viewer" aria-label="Viewer">\n{parts}</section>\n'


def _parts(place, classes, images, networks, level):
    """(HTML, whether it is a picture smaller than usual) of the viewer, part by part."""
    if len(set(networks)) < len(networks):
        raise UserError(f"{place}: each network must have a name of its own, got {networks}; "
                        "rename one")
    if not 1 <= len(classes.names) <= UNLABELLED:
        raise UserError(f"{place}: the page shows 1..{UNLABELLED} classes, got "
                        f"{len(classes.names)}; shorten the list of classes")
    start, end = markup.surroundings(classes, networks, level)
    yield start, False
    number = 0
    for image in images:
        number += 1  # enumerate would hold the picture
        _check(image, classes, networks)
        part = markup.picture(number, image, classes, networks, level)
        del image  # before the next one is made
        yield part
    if not number:
        raise UserError(f"{place}: there are no images to show; name at least one")
    yield end, False


def _check(image, classes, networks):
    size = np.shape(image.image_rgb)[:2]
    name = f"image {shown(image.name)!r}"
    if np.shape(image.image_rgb) != (*size, 3) or 0 in size or image.image_rgb.dtype != np.uint8:
        raise UserError(f"{name}: must be (H, W, 3) uint8, got {np.shape(image.image_rgb)} "
                        f"{image.image_rgb.dtype}")
    for field in ("predictions", "confidence", "iou"):
        keys = list(getattr(image, field) or {})
        if set(keys) - set(networks) or (field == "predictions" and set(networks) - set(keys)):
            raise UserError(f"{name}: {field} must be of the networks {networks}, got {keys}")
    _check_labels(f"{name}, truth", image.truth, size, classes, " or 255")
    for network, label in image.predictions.items():
        _check_labels(f"{name}, predictions of {shown(network)}", label, size, classes)
    for network, values in (image.confidence or {}).items():
        whose = f"{name}, confidence of {shown(network)}"
        if np.shape(values) != size:
            raise UserError(f"{whose}: must be {size} as the photograph, got {np.shape(values)}")
        # A softmax in float32 may pass 1 by its rounding; a NaN fails the comparison.
        if not (np.min(values) >= 0 and np.max(values) <= 1.001):
            raise UserError(f"{whose}: must be 0..1, got {np.min(values)}..{np.max(values)}")


def _check_labels(whose, label, size, classes, or_unlabelled=""):
    if label is None and or_unlabelled:
        return
    if np.shape(label) != size or label.dtype != np.uint8:
        raise UserError(f"{whose}: must be {size} uint8 as the photograph, got {np.shape(label)} "
                        f"{getattr(label, 'dtype', type(label).__name__)}")
    wrong = label[label >= len(classes.names)]
    if or_unlabelled:
        wrong = wrong[wrong != UNLABELLED]
    if wrong.size:
        raise UserError(f"{whose}: labels must be 0..{len(classes.names) - 1}{or_unlabelled}, got "
                        f"{wrong[0]}; give the list of classes that these labels are of")
