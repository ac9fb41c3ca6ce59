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
