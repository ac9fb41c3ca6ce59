"""One HTML page that shows photographs, their labels and the predictions of networks.

    classes = known_classes("camvid")
    images = (ViewerImage(path.name, image_rgb, {"PSPNet50": label}) for ...)
    note = write_viewer("page.html", "CamVid", classes, images, ["PSPNet50"])
"""

from dataclasses import dataclass

import numpy as np

from pspnet_repro.errors import UserError
from pspnet_repro.evaluation.viewer.markup import (
    PICTURE_BYTES,
    SCRIPT,
    SIDES,
    STYLE,
    UNLABELLED,
    page_around,
    picture,
    shown,
    surroundings,
)
from pspnet_repro.files import write_bytes

__all__ = ["SCRIPT", "STYLE", "ViewerImage", "viewer_html", "write_viewer"]


@dataclass(frozen=True, eq=False)
class ViewerImage:
    """One picture of the page.

    Attributes:
        name: any text, such as the name of the file.
        image_rgb: (H, W, 3) uint8.
        predictions: (H, W) uint8 labels by the name of the network.
        truth: (H, W) uint8 labels, 255 where unlabelled, or None.
        confidence: (H, W) float by the name of the network: the probability, 0..1, of the
            predicted class; or None.
        iou: by the name of the network, the IoU, 0..1, by the name of the class; or None.
            Classes that are missing or NaN have no IoU.
    """

    name: str
    image_rgb: np.ndarray
    predictions: dict
    truth: np.ndarray | None = None
    confidence: dict | None = None
    iou: dict | None = None


def write_viewer(path, title, classes, images, networks, write=write_bytes):
    """Write the page; it needs no network, no server and no other file.

    A picture takes at most PICTURE_BYTES of the page. Its long side has at most 1024 pixels, and
    fewer where it would take more bytes.

    Args:
        path: the file.
        title: the heading, any text.
        classes: data.classes.Classes, at most 255.
        images: an iterable of ViewerImage; one of them is in memory at a time.
        networks: names of the networks, in the order of the page.
        write: called with the path and a function that fills a binary file.
    Returns:
        A sentence about pictures that had to become smaller than usual, or "".
    Raises:
        UserError: there are no images; an image's arrays do not fit its photograph, the networks
            or the classes; or the file cannot be written. Nothing is left behind.
    """
    head, tail = page_around(title)
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
    return (f"{path}: {smaller} of its pictures had to shrink below {SIDES[0]} pixels, because "
            f"each may take {PICTURE_BYTES // 1000} kB")


def viewer_html(classes, images, networks, level):
    """The viewer as an element of another page, which holds STYLE and, after it, SCRIPT.

    Args:
        classes, images, networks: see write_viewer.
        level: of the headings of its pictures, 2 to 5.
    Raises:
        UserError: as write_viewer.
    """
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
    start, end = surroundings(classes, networks, level)
    yield start, False
    number = 0
    for image in images:
        number += 1  # enumerate would hold the picture
        _check(image, classes, networks)
        part = picture(number, image, classes, networks, level)
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
