"""The drawn scenes: a data set in which context decides the class (paper, 3.1).

A scene has, from top to bottom, a sky, a narrow strip of sand or pavement, a broad belt of trees
and rocks, and a ground on which walls, vehicles and hatches stand. All grounds, vehicles and walls
look alike; what they are is written far away:

- mismatched relationship: the ground is water below a strip of sand and road below pavement, and
  the same vehicle is a boat on one and a car on the other;
- confusion: the same wall belongs to buildings under a clear sky and to skyscrapers under a hazy;
- inconspicuous: a hatch is a small patch that hardly differs from the ground it lies on; it needs
  no context.

In half of the scenes a dam parts the ground, and the two sides have strips of their own: one
summary of the whole image is then not enough. The belt is broader than half of the receptive field
of the smallest miniature net, which so never sees a strip or the sky and what depends on them at
once.
"""

import json
from pathlib import Path

import cv2
import numpy as np

from pspnet_repro.errors import UserError, first_line
from pspnet_repro.files import lock_folder, write_bytes

SIZE = 185
CLASSES = ("sky", "sand", "pavement", "tree", "rock", "hatch",
           "water", "road", "boat", "car", "building", "skyscraper")
# Whether the class hangs on what lies farther away than BELT pixels.
CONTEXTUAL = (False,) * 6 + (True,) * 6
PALETTE_RGB = ((135, 190, 235), (235, 210, 130), (120, 120, 130), (40, 140, 50), (140, 95, 60),
               (250, 250, 90), (40, 90, 200), (70, 70, 75), (230, 60, 50), (240, 150, 40),
               (170, 110, 200), (220, 120, 180))
BELT = 50  # least rows between a cue and what depends on it
VERSION = 2  # of the drawing; part of the cache's name

_ID = {name: k for k, name in enumerate(CLASSES)}


def _texture(rng, height, width, colour, noise, grain):
    """(height, width, 3) float: a colour with blotches of `grain` pixels."""
    coarse = rng.normal(0, noise, (height // grain + 2, width // grain + 2, 1))
    blotches = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    fine = rng.normal(0, noise / 2, (height, width, 3))
    return np.asarray(colour, np.float64) + blotches[:, :, None] + fine


class _Canvas:
    def __init__(self) -> None:
        self.image = np.zeros((SIZE, SIZE, 3))
        self.label = np.full((SIZE, SIZE), 255, np.uint8)

    def paint(self, mask: np.ndarray, texture: np.ndarray, name: str) -> None:
        self.image[mask] = texture[mask]
        self.label[mask] = _ID[name]

    def patch(self, top: int, left: int, pixels: np.ndarray, name: str) -> None:
        h, w = pixels.shape[:2]
        self.image[top:top + h, left:left + w] = pixels
        self.label[top:top + h, left:left + w] = _ID[name]


def _vehicle(rng):
    """(9..13, 16..24, 3): a dark hull with a light band and a cabin."""
    h, w = rng.integers(9, 14), rng.integers(16, 25)
    pixels = _texture(rng, h, w, (60, 50, 150), 8, 4)
    pixels[h // 2:h // 2 + 2] = (200, 200, 210)
    pixels[:h // 2, w // 3:w // 3 + w // 4] = (90, 160, 170)
    return pixels


def _wall(rng):
    """(26..44, 22..40, 3): bricks with a grid of windows."""
    h, w = rng.integers(26, 45), rng.integers(22, 41)
    pixels = _texture(rng, h, w, (120, 150, 185), 8, 6)
    for y in range(4, h - 5, 9):
        for x in range(4, w - 4, 8):
            pixels[y:y + 5, x:x + 4] = (70, 60, 55)
    return pixels


def draw_scene(seed: int, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Scene `number` of the sequence that `seed` starts: (SIZE, SIZE, 3) uint8 BGR, and its label,
    (SIZE, SIZE) uint8, indices of CLASSES."""
    rng = np.random.default_rng((seed, number))
    canvas = _Canvas()
    rows = np.arange(SIZE)[:, None] + np.zeros((1, SIZE))
    columns = np.arange(SIZE)
    coast = rng.random(2) < 0.5
    hazy, parted = rng.random() < 0.5, rng.random() < 0.5
    if not parted:
        coast[1] = coast[0]
    middle = int(rng.integers(76, 109))

    sky_end = int(rng.integers(24, 31))
    strip_end = sky_end + int(rng.integers(12, 16))
    wave = rng.normal(0, 1, 4) @ np.sin(np.outer(np.arange(1, 5), columns) * np.pi / SIZE)
    belt_end = strip_end + BELT + np.clip(3 + 1.5 * wave, 0, 8)[None]

    sky = (185, 195, 205) if hazy else (230, 190, 140)
    canvas.paint(rows < sky_end, _texture(rng, SIZE, SIZE, sky, 6, 24), "sky")
    strip = (rows >= sky_end) & (rows < strip_end)
    for side, inside in enumerate((columns < middle, columns >= middle)):
        colour = (110, 195, 225) if coast[side] else (115, 110, 108)
        canvas.paint(strip & inside[None], _texture(rng, SIZE, SIZE, colour, 8, 8),
                     "sand" if coast[side] else "pavement")
    belt = (rows >= strip_end) & (rows < belt_end)
    canvas.paint(belt, _texture(rng, SIZE, SIZE, (50, 110, 60), 14, 5), "tree")
    for _ in range(rng.integers(2, 6)):
        mask = np.zeros((SIZE, SIZE), np.uint8)
        centre = (int(rng.integers(0, SIZE)), int(rng.integers(strip_end, belt_end.max())))
        axes = (int(rng.integers(8, 26)), int(rng.integers(6, 18)))
        cv2.ellipse(mask, centre, axes, float(rng.uniform(0, 180)), 0, 360, 1, -1)
        canvas.paint(belt & (mask > 0), _texture(rng, SIZE, SIZE, (75, 95, 125), 10, 7), "rock")
    ground = rows >= belt_end
    base = np.array((135, 125, 115)) + rng.normal(0, 6, 3)
    texture = _texture(rng, SIZE, SIZE, base, 7, 10)
    for side, inside in enumerate((columns < middle, columns >= middle)):
        canvas.paint(ground & inside[None], texture, "water" if coast[side] else "road")
    if parted:
        dam = ground & (np.abs(columns - middle) < 5)[None]
        canvas.paint(dam, _texture(rng, SIZE, SIZE, (75, 95, 125), 10, 7), "rock")

    taken = canvas.label == _ID["rock"]
    top_row = int(np.ceil(belt_end.max())) + 1

    def place(pixels):
        """Top left of a free spot on the ground for `pixels`, or None after some attempts."""
        h, w = pixels.shape[:2]
        for _ in range(20):
            top, left = rng.integers(top_row, SIZE - h + 1), rng.integers(0, SIZE - w + 1)
            area = np.s_[max(top - 2, 0):top + h + 2, max(left - 2, 0):left + w + 2]
            if not taken[area].any():
                taken[area] = True
                return int(top), int(left)
        return None

    for _ in range(rng.integers(1, 4)):
        pixels = _wall(rng)
        spot = place(pixels)
        if spot:
            canvas.patch(*spot, pixels, "skyscraper" if hazy else "building")
    for _ in range(rng.integers(3, 7)):
        pixels = _vehicle(rng)
        spot = place(pixels)
        if spot:
            side = int(spot[1] + pixels.shape[1] // 2 >= middle)
            canvas.patch(*spot, pixels, "boat" if coast[side] else "car")
    for _ in range(rng.integers(2, 5)):
        h, w = rng.integers(16, 26, 2)
        spot = place(np.empty((h, w)))
        if spot:
            area = np.s_[spot[0]:spot[0] + h, spot[1]:spot[1] + w]
            lifted = canvas.image[area] + 10
            lifted[1:-1:4, 1:-1] += 30
            lifted[3:-1:4, 1:-1] -= 30
            canvas.patch(*spot, lifted, "hatch")
    return np.clip(np.round(canvas.image), 0, 255).astype(np.uint8), canvas.label


def write_scenes(folder: Path | str, seed: int = 0, train: int = 400, val: int = 100) -> Path:
    """Write the data set as image and label files with lists, unless it is already there.

    Args:
        folder: cache folder; the data set goes into a subfolder named by version, seed and size.
        train, val: number of scenes.
    Returns:
        The subfolder: train.txt, val.txt, images/, annotations/, classes.txt and classes.json.
    Raises:
        UserError: a file cannot be written.
    """
    root = Path(folder) / f"scenes-v{VERSION}-seed{seed}-{train}-{val}"
    done = root / "classes.json"
    if done.exists():
        return root
    try:
        with lock_folder(root):
            return _write(root, done, seed, train, val)
    except OSError as error:
        raise UserError(f"{error.filename or root}: cannot be written: "
                        f"{first_line(error)}") from error


def _write(root, done, seed, train, val):
    for part, numbers in (("train", range(train)), ("val", range(train, train + val))):
        lines = []
        for number in numbers:
            image, label = draw_scene(seed, number)
            names = (f"images/{part}/{number:05d}.png", f"annotations/{part}/{number:05d}.png")
            for name, pixels in zip(names, (image, label)):
                write_bytes(root / name, cv2.imencode(".png", pixels)[1].tobytes())
            lines.append(" ".join(names) + "\n")
        write_bytes(root / f"{part}.txt", "".join(lines))
    write_bytes(root / "classes.txt", "".join(
        f"{red} {green} {blue} {name}\n" for name, (red, green, blue) in zip(CLASSES, PALETTE_RGB)))
    about = {"classes": CLASSES, "contextual": CONTEXTUAL, "palette_rgb": PALETTE_RGB}
    write_bytes(done, json.dumps(about, indent=1))
    return root
