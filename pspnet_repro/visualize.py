"""Label maps in colour, and pictures side by side."""

import cv2
import numpy as np

UNLABELLED_RGB = (0, 0, 0)


def colourize(label, palette_rgb):
    """(H, W) integer labels -> (H, W, 3) uint8 RGB; labels without a colour are black."""
    table = np.zeros((256, 3), np.uint8)
    table[:] = UNLABELLED_RGB
    table[:len(palette_rgb)] = palette_rgb
    return table[np.asarray(label).astype(np.uint8)]


def side_by_side(pictures, titles, margin=4, caption=22):
    """Pictures of one height in a row, each under its title.

    Args:
        pictures: list of (H, W, 3) uint8 RGB.
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


def legend(names, palette_rgb, width, row=20):
    """Colours with their classes' names, as many columns as fit.

    Args:
        names: class names.
        palette_rgb: a colour a class.
        width, row: pixels of the picture and of a line.
    Returns:
        (H, width, 3) uint8 RGB on white.
    """
    column = max(30 + 9 * len(name) for name in names)
    columns = max(1, width // column)
    lines = -(-len(names) // columns)
    picture = np.full((lines * row + 6, width, 3), 255, np.uint8)
    for k, (name, colour) in enumerate(zip(names, palette_rgb, strict=True)):
        y, x = k // columns * row + 4, k % columns * column + 2
        cv2.rectangle(picture, (x, y), (x + 18, y + row - 6), tuple(map(int, colour)), -1)
        cv2.putText(picture, name, (x + 23, y + row - 9), cv2.FONT_HERSHEY_SIMPLEX, 0.42,
                    (0, 0, 0), 1, cv2.LINE_AA)
    return picture
