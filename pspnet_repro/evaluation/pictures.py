"""Label maps in colour, and pictures side by side."""

from collections.abc import Sequence

import cv2
import numpy as np

from pspnet_repro.data.classes import Classes

UNLABELLED_RGB = (0, 0, 0)
Palette = Sequence[Sequence[int]]  # (red, green, blue) a class


def colourize(label: np.ndarray, palette_rgb: Palette) -> np.ndarray:
    """(H, W) integer labels -> (H, W, 3) uint8 RGB; labels without a colour are black."""
    table = np.full((256, 3), UNLABELLED_RGB, np.uint8)
    table[:len(palette_rgb)] = palette_rgb
    return table[np.asarray(label).astype(np.uint8)]


def side_by_side(pictures: Sequence[np.ndarray], titles: Sequence[str], margin: int = 4,
                 caption: int = 22) -> np.ndarray:
    """Pictures of one height in a row, each under its title.

    Args:
        pictures: (H, W, 3) uint8 RGB each.
        titles: a line of text each.
        margin, caption: pixels between pictures and above them.
    Returns:
        (H + caption, sum of widths + margins, 3) uint8 RGB on white.
    """
    columns = []
    for picture, title in zip(pictures, titles, strict=True):
        head = np.full((caption, picture.shape[1], 3), 255, np.uint8)
        cv2.putText(head, title, (2, caption - 7), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1,
                    cv2.LINE_AA)
        columns += [np.concatenate([head, picture]),
                    np.full((picture.shape[0] + caption, margin, 3), 255, np.uint8)]
    return np.concatenate(columns[:-1], 1)


def legend(names: Sequence[str], palette_rgb: Palette, width: int,
           scale: float = 1.0) -> np.ndarray:
    """Colours with their classes' names, as many columns as fit.

    Args:
        width: pixels of the picture.
        scale: 1: lines of 20 pixels.
    Returns:
        (H, width, 3) uint8 RGB on white.
    """
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
    mixed = cv2.addWeighted(np.ascontiguousarray(image_rgb), 0.5,
                            colourize(label, classes.palette_rgb), 0.5, 0)
    counts = np.bincount(np.asarray(label).ravel(), minlength=len(classes.names))
    present = [k for k in np.argsort(-counts, kind="stable") if counts[k]]
    width = max(260, mixed.shape[1])
    lines = legend([f"{classes.names[k]} {100 * counts[k] / counts.sum():.1f}%" for k in present],
                   [classes.palette_rgb[k] for k in present], width, max(1.0, width / 1000))
    page = np.full((mixed.shape[0] + len(lines), width, 3), 255, np.uint8)
    page[:mixed.shape[0], :mixed.shape[1]] = mixed
    page[mixed.shape[0]:] = lines
    return page
