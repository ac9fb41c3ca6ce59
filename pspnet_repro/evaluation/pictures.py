"""Label maps in colour, and pictures side by side."""

from collections.abc import Sequence

import cv2
import numpy as np

from pspnet_repro.data.classes import Classes
from pspnet_repro.data.conventions import strips, value_counts

UNLABELLED_RGB = (0, 0, 0)
MARGIN, CAPTION = 4, 22  # pixels between pictures and above them
Palette = Sequence[Sequence[int]]  # (red, green, blue) a class


def colourize(label: np.ndarray, palette_rgb: Palette) -> np.ndarray:
    """(H, W) integer labels -> (H, W, 3) uint8 RGB; labels without a colour are black."""
    table = np.full((256, 3), UNLABELLED_RGB, np.uint8)
    table[:len(palette_rgb)] = palette_rgb
    label = np.asarray(label)
    picture = np.empty((*label.shape, 3), np.uint8)
    for rows in strips(*label.shape):
        picture[rows] = table[label[rows].astype(np.uint8)]
    return picture


def side_by_side(pictures: Sequence[np.ndarray], titles: Sequence[str]) -> np.ndarray:
    """Pictures, (H, W, 3) uint8 RGB of one height, in a row, each under its title of one line.

    Returns:
        (H + CAPTION, sum of widths + margins, 3) uint8 RGB on white.
    """
    columns = []
    for picture, title in zip(pictures, titles, strict=True):
        head = np.full((CAPTION, picture.shape[1], 3), 255, np.uint8)
        cv2.putText(head, title, (2, CAPTION - 7), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1,
                    cv2.LINE_AA)
        columns += [np.concatenate([head, picture]),
                    np.full((picture.shape[0] + CAPTION, MARGIN, 3), 255, np.uint8)]
    return np.concatenate(columns[:-1], 1)


def legend(names: Sequence[str], palette_rgb: Palette, width: int,
           scale: float = 1.0) -> np.ndarray:
    """Colours with their classes' names, as many columns as fit into a `width` of pixels. At scale
    1 lines have 20 pixels. Returns (H, width, 3) uint8 RGB on white."""
    def pixels(number):
        return round(scale * number)

    row = pixels(20)
    column = pixels(max(30 + 9 * len(name) for name in names))
    columns = max(1, width // column)
    lines = -(-len(names) // columns)
    picture = np.full((lines * row + pixels(6), width, 3), 255, np.uint8)
    for k, (name, colour) in enumerate(zip(names, palette_rgb, strict=True)):
        y, x = k // columns * row + pixels(4), k % columns * column + pixels(2)
        cv2.rectangle(picture, (x, y), (x + pixels(18), y + row - pixels(6)),
                      tuple(map(int, colour)), -1)
        cv2.putText(picture, name, (x + pixels(23), y + row - pixels(9)),
                    cv2.FONT_HERSHEY_SIMPLEX, 0.42 * scale, (0, 0, 0), max(1, pixels(1)),
                    cv2.LINE_AA)
    return picture


def overlay(image_rgb: np.ndarray, label: np.ndarray, classes: Classes) -> np.ndarray:
    """A photograph under the half-transparent colours of its classes, and a legend of them.

    Args:
        image_rgb: (H, W, 3) uint8.
        label: (H, W) integer, 0..len(classes.names)-1.
    Returns:
        uint8 RGB, at least 260 pixels wide: the picture at the left, and below it the classes
        that occur, the largest first, with their share of the pixels.
    """
    height, width = label.shape
    counts = value_counts(label, len(classes.names))
    present = [k for k in np.argsort(-counts, kind="stable") if counts[k]]
    page_width = max(260, width)
    lines = legend([f"{classes.names[k]} {100 * counts[k] / counts.sum():.1f}%" for k in present],
                   [classes.palette_rgb[k] for k in present], page_width,
                   max(1.0, page_width / 1000))
    page = np.full((height + len(lines), page_width, 3), 255, np.uint8)
    for rows in strips(height, width):
        page[rows, :width] = cv2.addWeighted(np.ascontiguousarray(image_rgb[rows]), 0.5,
                                             colourize(label[rows], classes.palette_rgb), 0.5, 0)
    page[height:] = lines
    return page
